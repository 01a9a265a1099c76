/** Entries in words for people at a terminal. Everything that came from an agent goes through `printable`. */
import type { Entry } from '../../audit/entries/entry.ts'
import { actors, type Makers, placeOf, sentence } from '../../audit/entries/lineage.ts'

const STEERING = /[\p{Cc}\p{Cf}\p{Co}\p{DI}\p{Zl}\p{Zp}]/gu

/**
 * Text that cannot steer a terminal or pass for other text: control, format, bidirectional and line-separating characters become
 * `\u…` escapes.
 */
export function printable(text: string): string {
  return text.replace(STEERING, (found) => `\\u{${found.codePointAt(0)?.toString(16)}}`)
}

/** A value as JSON, equal to what is in the log; JSON itself leaves C1 controls and direction marks as they are. */
export function printableJson(value: unknown, indent?: number): string {
  const escaped = (unit: string) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`
  // The only control characters that JSON writes outside of strings are the line breaks of an indented text.
  return JSON.stringify(value, null, indent).replace(STEERING, (found) =>
    found === '\n' ? found : found.split('').map(escaped).join(''),
  )
}

/** One entry on one line: time, number, what it is. */
export function oneLine(entry: Entry): string {
  const time = entry.ts.replace('T', ' ').replace('Z', '')
  return printable(`${time}  #${entry.seq}  ${gist(entry)}`)
}

function gist(entry: Entry): string {
  if (entry.kind === 'call.decision') return decisionGist(entry)
  if (entry.kind === 'call.outcome') return outcomeGist(entry)
  const who = entry.lineage || entry.human ? `  ${whoIn(entry)}${entry.task ? ` “${entry.task.purpose}”` : ''}` : ''
  const facts = entry.facts && Object.keys(entry.facts).length > 0 ? `  ${JSON.stringify(entry.facts)}` : ''
  const refusal = entry.decision?.code ? `  ${entry.decision.code}` : ''
  return `${entry.kind}${who}${refusal}${facts}${entry.req ? `  [${entry.req}]` : ''}`
}

function decisionGist(entry: Entry): string {
  const verdict = entry.decision?.effect === 'allow' ? 'ALLOW' : `DENY ${entry.decision?.code ?? ''}`
  return `${verdict}  ${whoIn(entry)}  ${entry.target ? placeOf(entry.target) : ''}  ${entry.target?.operation ?? '-'}  [${entry.req}]`
}

function outcomeGist({ outcome, cred, req }: Entry): string {
  const bytes = outcome?.bytes_in === undefined ? '' : `  ${outcome.bytes_in} B in, ${outcome.bytes_out ?? 0} B out`
  const error = outcome?.error ? `  ${outcome.error}` : ''
  const credential = cred ? `  credential ${cred.credential} (${cred.provider}, ${cred.cache})` : ''
  const leaked = outcome?.scrubbed ? `  credential came back ${outcome.scrubbed} times` : ''
  return `  → ${outcome?.status ?? '-'}${error}  ${outcome?.dur_ms} ms${bytes}${credential}${leaked}  [${req}]`
}

function whoIn(entry: Entry): string {
  return actors(entry).join(' → ') || entry.human?.sub || entry.client?.ip || 'unknown'
}

/** What `show` prints: a sentence, and then the entries as they are, indented. */
export function whole(entries: readonly Entry[]): string {
  const [first, ...rest] = entries
  if (!first) return ''
  const lead = first.kind === 'call.decision' ? [sentence(first, rest.at(-1)), ''] : []
  const bodies = entries.map((entry) => `#${entry.seq} ${entry.kind}\n${JSON.stringify(entry, null, 2)}`)
  return [...lead, ...bodies].map(printableLines).join('\n')
}

/** What `lineage` prints: the sentence with the policies behind every step, and the chain with one step a line. */
export function chain(entries: readonly Entry[], makers: Makers): string {
  const [first, ...rest] = entries
  if (!first) return ''
  const steps = (first.lineage ?? []).map((step, depth) => {
    const name = step.cut === undefined ? `${step.type} ${step.id}` : `(${step.cut} more steps)`
    const grant = step.grant ? `  under grant ${step.grant}` : ''
    return `${'  '.repeat(depth)}${depth === 0 ? '' : '└ '}${name}${grant}${step.on_behalf ? ', attested by the gateway' : ''}`
  })
  const issuer = first.human ? [`human vouched for by ${first.human.iss}`] : []
  const task = first.task ? [`task ${first.task.id}: “${first.task.purpose}”`] : []
  const lead = first.kind === 'call.decision' ? sentence(first, rest.at(-1), makers) : oneLine(first)
  return [lead, '', ...steps, ...issuer, ...task].map(printable).join('\n')
}

/** The same of several lines. */
export function printableLines(text: string): string {
  return text.split('\n').map(printable).join('\n')
}
