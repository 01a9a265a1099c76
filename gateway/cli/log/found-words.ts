/** A record of the index on one line, for people at a terminal. Everything that came from an agent goes through `printable`. */
import { DEFAULT_PORTS, formatAuthority } from '../../protocol/target.ts'
import type { Found } from '../../records/query.ts'
import type { Records } from '../../records/records.ts'
import { printable, printableJson } from './words.ts'

export interface Shape {
  readonly json?: boolean
  readonly prove?: boolean
}

/** As it was asked for: in words, as JSON, or with entries and proofs. */
export async function lineOf(records: Records, found: Found, { json, prove }: Shape): Promise<string> {
  if (prove) return printableJson(await records.tell(found, { prove }))
  return json ? printableJson(found) : foundLine(found)
}

/** Time, number, what was done by whom, and what became of it. */
export function foundLine(found: Found): string {
  const time = new Date(found.ts).toISOString().replace('T', ' ').replace('Z', '')
  const gist = found.kind === 'call' ? callGist(found) : entryGist(found)
  return printable(`${time}  #${found.seq}  ${gist}${found.req === undefined ? '' : `  [${found.req}]`}`)
}

function callGist(found: Found): string {
  const { effect, code, operation, dur_ms } = found
  const verdict = effect === 'allow' ? 'ALLOW' : `DENY ${code ?? ''}`
  return `${verdict}  ${whoIn(found) || 'unknown'}  ${placeIn(found)}  ${operation ?? '-'}  → ${endOf(found)}${dur_ms === undefined ? '' : `  ${dur_ms} ms`}`
}

function endOf({ effect, status, error, end_seq }: Found): string {
  if (effect === 'allow' && end_seq === undefined) return 'no outcome recorded yet'
  return `${status ?? '-'}${error === undefined ? '' : `, ${error}`}`
}

function entryGist(found: Found): string {
  const purpose = found.purpose === undefined ? '' : ` “${found.purpose}”`
  const told = [
    found.code,
    found.service,
    found.credential && `credential ${found.credential}`,
    found.grant_id && `grant ${found.grant_id}`,
    factsInWords(found.kind, objectIn(found.detail).facts),
  ]
  return [found.kind, `${whoIn(found)}${purpose}`, ...told].filter(Boolean).join('  ')
}

/** What an order, a consent or a signal is about and says, as far as no column has it. */
const TELLING: Readonly<Record<string, readonly string[]>> = {
  revocation: ['target', 'name', 'by', 'from', 'rule', 'action', 'order', 'detail'],
  approval: ['verdict', 'why', 'operation', 'approval', 'access_request'],
  breakglass: ['of', 'reason', 'request', 'detail', 'opened_by'],
  leak: ['what', 'canary', 'where', 'action', 'source', 'type'],
  policy: ['reason', 'about', 'effect', 'candidate_effect', 'policies'],
  signal: ['issuer', 'to', 'action', 'about', 'events', 'reason', 'order'],
}

/** @param facts of an entry of this kind. Empty where there is nothing to tell. */
export function factsInWords(kind: string, facts: unknown): string {
  const [room = ''] = kind.split('.', 1)
  const known = objectIn(facts)
  const told = (TELLING[room] ?? []).flatMap((name) =>
    known[name] === undefined ? [] : [`${name} ${String(known[name])}`],
  )
  return told.join(', ')
}

function objectIn(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Readonly<Record<string, unknown>>) : {}
}

/** Both ends of the lineage; `keyless log lineage` has all of it. Empty of what the gateway says of itself, and where nobody is known. */
function whoIn({ human, agent, depth, ip }: Found): string {
  const between = Number(depth ?? 0) > 0 ? ['…'] : []
  return [human, ...(agent === undefined ? [] : [...between, agent])].filter(Boolean).join(' → ') || String(ip ?? '')
}

function placeIn({ method, scheme, host, port, path }: Found): string {
  if (host === undefined) return ''
  const isTls = scheme === 'https'
  const authority = formatAuthority(
    { host: String(host), port: Number(port ?? 0) },
    isTls ? DEFAULT_PORTS.https : DEFAULT_PORTS.http,
  )
  return `${method ?? ''} ${isTls ? '' : `${scheme}://`}${authority}${path ?? ''}`
}
