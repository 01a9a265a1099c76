/** What a scan found, for people, programs and code hosts. Values are masked; names of places are attackers' text. */
import { VERSION } from '../../version.ts'
import { printable, printableJson } from '../log/words.ts'
import { counted } from '../table.ts'
import { type Finding, masked } from './finder.ts'

export interface Scanned {
  readonly found: readonly Finding[]
  /** Value → what the gateway did. */
  readonly ends: ReadonlyMap<string, string>
  readonly more: number
  readonly places: number
  readonly skipped: readonly string[]
}

interface Form {
  readonly json?: true
  readonly sarif?: true
}

export function told(scanned: Scanned, { json, sarif }: Form): string {
  if (sarif) return printableJson(sarifOf(scanned), 2)
  return json ? printableJson(jsonOf(scanned), 2) : wordsOf(scanned)
}

function wordsOf({ found, ends, more, places }: Scanned): string {
  const lines = found.map(({ place, line, rule, value, name }) => {
    const end = ends.get(value)
    return `${place}:${line}  ${rule}${name ? ` ${name}` : ''}  ${masked(value)}${end ? `  → ${end}` : ''}`
  })
  const bad = found.filter(({ rule }) => rule !== 'canary').length + more
  const canaries = found.length + more - bad
  const tail = canaries > 0 ? `, and ${counted(canaries, 'canary', 'canaries')} where they were planted` : ''
  return [...lines.map(printable), `${counted(bad, 'credential')} in ${counted(places, 'place')}${tail}.`].join('\n')
}

function jsonOf({ found, ends, more, places, skipped }: Scanned) {
  const findings = found.map(({ place, line, rule, value, name }) => ({
    ...{ place, line, rule, masked: masked(value) },
    ...(name !== undefined && { name }),
    ...(ends.has(value) && { gateway: ends.get(value) }),
  }))
  return { findings, more, places, not_read: skipped }
}

function sarifOf({ found }: Scanned) {
  const bad = found.filter(({ rule }) => rule !== 'canary')
  const rules = [...new Set(bad.map(({ rule }) => rule))].map((id) => ({ id }))
  return {
    $schema: 'https://json.schemastore.org/sarif-2.1.0.json',
    version: '2.1.0',
    runs: [
      {
        tool: { driver: { name: 'keyless scan', version: VERSION, rules } },
        results: bad.map(({ place, line, rule, value }) => ({
          ruleId: rule,
          level: 'error',
          message: { text: `A credential (${rule}) stands here: ${masked(value)}` },
          locations: [
            { physicalLocation: { artifactLocation: { uri: encodeURI(place) }, region: { startLine: line } } },
          ],
        })),
      },
    ],
  }
}
