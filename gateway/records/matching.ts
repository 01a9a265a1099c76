/** A filter as what the index is asked for: groups of terms of which a record has one each, and bounds of its place in time. Pure. */
import { GatewayError } from '../protocol/problem.ts'
import { readPromptHash } from '../protocol/prompt-hash.ts'
import type { Database, SqlValue } from './database.ts'
import type { Filter, Found } from './query.ts'
import { type TermName, term, wordsOf, wordTerm } from './terms.ts'

/** All that a value may stand in the log as: names of humans may be sealed. */
export type Forms = (value: string) => readonly string[]

export interface Condition {
  /** For WHERE; may be empty. */
  readonly sql: string
  readonly values: readonly SqlValue[]
}

/** Below `place` in the order of `id`, or above it. */
export interface Bound {
  readonly sign: '<' | '>' | '>='
  readonly ts: number
  readonly seq: number
  readonly log?: string
}

const EXACT = [
  'tenant',
  'log',
  'agent',
  'task',
  'grant',
  'service',
  'operation',
  'effect',
  'kind',
  'credential',
] as const

/** Of each group a record has at least one. @throws {GatewayError} `instruction_invalid` for what nothing can match. */
export function groupsOf(filter: Filter, forms: Forms = () => []): string[][] {
  const groups = EXACT.flatMap((name) => (filter[name] === undefined ? [] : [[term(name, filter[name])]]))
  const people = (['human', 'ancestor'] as const).flatMap((name) => personGroup(name, filter[name], forms))
  if (filter.host !== undefined) groups.push([term('host', filter.host.toLowerCase())])
  if (filter.status !== undefined) groups.push([term('status', statusOf(filter.status))])
  if (filter.trace !== undefined) groups.push([term('trace', traceOf(filter.trace))])
  if (filter.prompt !== undefined) groups.push([term('prompt', promptOf(filter.prompt))])
  return [...groups, ...people, ...wordGroups(filter.text)]
}

function personGroup(name: TermName, value: string | undefined, forms: Forms): string[][] {
  if (value === undefined) return []
  // `iss sub`: only the name is sealed.
  const at = value.indexOf(' ') + 1
  const [issuer, sub] = [value.slice(0, at), value.slice(at)]
  const sealed = [...forms(value), ...(at > 0 ? forms(sub).map((form) => issuer + form) : [])]
  return [[value, ...sealed].map((form) => term(name, form))]
}

function wordGroups(text: string | undefined): string[][] {
  if (text === undefined) return []
  const words = wordsOf(text)
  if (words.length === 0) throw invalid(`text: got no word, allowed are letters and digits, such as "issue 42".`)
  return words.map((word) => [wordTerm(word)])
}

function statusOf(status: string): string {
  const written = status.toLowerCase()
  if (/^[1-9](?:\d\d|xx)$/.test(written)) return written
  throw invalid(`status: got ${sized(status)}, allowed is a status such as 404, or a class such as 4xx.`)
}

function traceOf(trace: string): string {
  const id = /(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])/.exec(trace.toLowerCase())?.[0]
  if (id !== undefined) return id
  throw invalid(`trace: got ${sized(trace)}, allowed are the 32 hex digits of a W3C trace id, or a traceparent.`)
}

function promptOf(prompt: string): string {
  try {
    return readPromptHash(prompt) ?? prompt
  } catch {
    throw invalid(`prompt: got ${sized(prompt)}, allowed is sha256: and a digest of 32 bytes in hex or base64url.`)
  }
}

/** What was got, as errors say it: they repeat no value, because it may be anything, such as the prompt in place of its hash. */
export function sized(value: string): string {
  return `a string of ${value.length} characters`
}

export function invalid(detail: string): GatewayError {
  return new GatewayError('instruction_invalid', detail)
}

/** `id` of a record, as in `tables.ts`. */
const PLACE = '(CAST(? AS BIGINT) << 20) | (CAST(? AS BIGINT) & 1048575)'

export interface Selection {
  /** Where the ids of the records that match are. */
  readonly source: string
  /** The same with their columns. */
  readonly from: string
  /** Column that names their order. */
  readonly id: string
  readonly where: Condition
}

export function selection(
  dialect: Database['dialect'],
  groups: readonly (readonly string[])[],
  bounds: readonly Bound[],
): Selection {
  const isPosted = dialect === 'sqlite' && groups.length > 0
  const id = isPosted ? 'records_terms.rowid' : 'records.id'
  const source = isPosted ? 'records_terms' : 'records'
  const from = isPosted ? 'records_terms CROSS JOIN records ON records.id = records_terms.rowid' : 'records'
  const terms = isPosted ? [posted(groups)] : groups.map(held)
  const all = [...terms, ...bounds.map((bound) => bounded(id, bound, dialect))]
  return {
    source,
    from,
    id,
    where: { sql: all.map(({ sql }) => sql).join(' AND '), values: all.flatMap(({ values }) => values) },
  }
}

/** FTS5's own words are upper case; terms are not. */
function posted(groups: readonly (readonly string[])[]): Condition {
  const query = groups.map((group) => (group.length === 1 ? group[0] : `(${group.join(' OR ')})`)).join(' AND ')
  return { sql: 'records_terms MATCH ?', values: [query] }
}

function held(group: readonly string[]): Condition {
  const sign = group.length === 1 ? '@>' : '&&'
  return { sql: `records.terms ${sign} string_to_array(?, ' ')`, values: [group.join(' ')] }
}

/** A later time has no place in 64 bits: the year 2248. */
const LATEST_MS = 2 ** 43 - 1

/** Several logs can have records of one millisecond and number; one file has one log. */
function bounded(id: string, { sign, ts, seq, log }: Bound, dialect: Database['dialect']): Condition {
  const at = Math.min(Math.max(0, ts), LATEST_MS)
  if (dialect === 'sqlite' || log === undefined) return { sql: `${id} ${sign} (${PLACE})`, values: [at, seq] }
  return { sql: `(${id}, records.log) ${sign} (${PLACE}, ?)`, values: [at, seq, log] }
}

export function boundsOf({ since, until }: Filter): Bound[] {
  return [
    ...(since === undefined ? [] : [{ sign: '>=' as const, ts: since, seq: 0 }]),
    ...(until === undefined ? [] : [{ sign: '<' as const, ts: until, seq: 0 }]),
  ]
}

/** Where a page ended, as `next` of a page. Opaque to whoever holds it, and checked when it comes back. */
export function cursorOf({ ts, seq, log }: Found): string {
  return Buffer.from(JSON.stringify([ts, seq, log])).toString('base64url')
}

/** @throws {GatewayError} `instruction_invalid` */
export function readCursor(cursor: string): { ts: number; seq: number; log: string } {
  try {
    const [ts, seq, log] = JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8')) as unknown[]
    if (Number.isSafeInteger(ts) && Number.isSafeInteger(seq) && typeof log === 'string')
      return { ts: ts as number, seq: seq as number, log }
  } catch {}
  throw invalid(`after: got ${sized(cursor)}, allowed is "next" of the page before.`)
}
