/**
 * Turns the head of an upstream's answer into what the agent gets: nothing that belongs to one connection, no credential,
 * no word in the gateway's own name. Order, case and repetitions stay.
 */
import { STATUS_CODES } from 'node:http'
import type { Slot } from '../protocol/service.ts'
import { isCredentialCookie, requireChunked, requireSearchable } from './searchable.ts'
import type { Searcher } from './searcher.ts'

type Action =
  | 'keep'
  | 'drop'
  | 'connection'
  | 'transfer-encoding'
  | 'content-length'
  | 'content-encoding'
  | 'content-type'
  | 'set-cookie'
  | 'challenge'
  | 'digest'
  | 'etag'

export interface Head {
  readonly status: number
  readonly statusText: string
  /** Flat list for `writeHead`. */
  readonly headers: string[]
  /** Bytes of the body, where the upstream says so and they are passed on as they come. */
  readonly contentLength: number | undefined
  /** Content coding that must be undone before the body can be scrubbed. */
  readonly coding: string | undefined
  /** Credentials overwritten in the head. */
  readonly found: number
}

export interface HeadSource {
  readonly status: number
  readonly statusText: string
  /** `name, value, name, value`, as undici's parser cut them out. */
  readonly raw: readonly Buffer[]
  readonly isCredentialed: boolean
  /** Null when there is no credential to search for. */
  readonly searcher: Searcher | null
  /** Answers to HEAD and those without content have fields about a body that does not follow. */
  readonly hasBody: boolean
  /** Where the service takes credentials: a cookie set there is one. */
  readonly slots: readonly Slot[]
}

const MAX_NAMES = 512
const MAX_NAME_LENGTH = 64
/** Memo of a pure function; upstreams choose names, so it is bounded. */
const actions = new Map<string, Action>()

const FIXED: ReadonlyMap<string, Action> = new Map<string, Action>([
  ['connection', 'connection'],
  ['keep-alive', 'drop'],
  ['te', 'drop'],
  ['upgrade', 'drop'],
  ['transfer-encoding', 'transfer-encoding'],
  ['content-length', 'content-length'],
  ['content-encoding', 'content-encoding'],
  ['content-type', 'content-type'],
  ['set-cookie', 'set-cookie'],
  ['www-authenticate', 'challenge'],
  ['content-md5', 'digest'],
  ['content-digest', 'digest'],
  ['repr-digest', 'digest'],
  ['digest', 'digest'],
  ['etag', 'etag'],
])

/** Of an answer with a credential the upstream refused: 401 would start logins at the agent (clients.md §0.2, §8). */
const REFUSED_STATUS = 403

/** What one pass over the fields gathers. */
interface Draft {
  readonly source: HeadSource
  readonly coding: string | undefined
  readonly headers: string[]
  contentLength: number | undefined
  nominated: string | undefined
  /** Credentials that were left out. */
  found: number
}

/** @throws {GatewayError} `upstream_encoding` when the body comes in a form in which it could not be searched. */
export function readHead(source: HeadSource): Head {
  const { raw, searcher, hasBody } = source
  const { texts: names, found } = readFields(raw, searcher)
  const coding = searcher !== null && hasBody ? codingOf(names) : undefined
  const draft: Draft = { source, coding, headers: [], contentLength: undefined, nominated: undefined, found }
  for (let i = 0; i + 1 < names.length; i += 2) {
    const name = names[i] as string
    const value = names[i + 1] as string
    const action = actions.get(name) ?? learn(name)
    if (action === 'keep') draft.headers.push(name, value)
    else if (action !== 'drop') apply(action, name, value, draft)
  }
  const { nominated, contentLength } = draft
  const headers = nominated === undefined ? draft.headers : withoutNominated(draft.headers, nominated)
  return { ...statusLine(source, headers), headers, contentLength, coding, found: draft.found }
}

function apply(action: Exclude<Action, 'keep' | 'drop'>, name: string, value: string, draft: Draft): void {
  const { source, coding, headers } = draft
  const isRecoded = coding !== undefined
  switch (action) {
    case 'connection':
      draft.nominated = draft.nominated === undefined ? value : `${draft.nominated},${value}`
      return
    case 'transfer-encoding':
      requireChunked(value)
      return
    case 'content-type':
      if (source.searcher !== null && source.hasBody) requireSearchable(value)
      headers.push(name, value)
      return
    case 'set-cookie':
      if (isCredentialCookie(value, source.slots)) draft.found += 1
      else headers.push(name, value)
      return
    case 'content-length':
      if (isRecoded || source.status === 204) return // RFC 9110 §8.6
      draft.contentLength = Number(value)
      headers.push(name, value)
      return
    case 'content-encoding':
    case 'digest': // of bytes that the agent would not get
      if (!isRecoded) headers.push(name, value)
      return
    case 'challenge':
      if (!source.isCredentialed) headers.push(name, value) // else the agent has nothing to answer it with
      return
    case 'etag':
      headers.push(name, isRecoded && !value.startsWith('W/') ? `W/${value}` : value)
      return
    default:
      action satisfies never
  }
}

function statusLine(source: HeadSource, headers: string[]): { status: number; statusText: string } {
  const { status, isCredentialed } = source
  if (status === 401 && isCredentialed) {
    headers.push('Keyless-Upstream-Status', '401')
    return { status: REFUSED_STATUS, statusText: STATUS_CODES[REFUSED_STATUS] as string }
  }
  return { status, statusText: phrase(source) }
}

/** The reason phrase, which may echo too. */
function phrase({ status, statusText, searcher }: HeadSource): string {
  if (statusText === STATUS_CODES[status]) return statusText
  const bytes = Buffer.from(statusText, 'latin1')
  searcher?.mask(bytes)
  const text = bytes.toString('latin1')
  return /^[\t\x20-\x7e\x80-\xff]*$/.test(text) ? text : ''
}

/** The trailer section as pairs, scrubbed, without fields that must not be there (RFC 9110 §6.5.1). */
export function readTrailers(
  raw: readonly Buffer[],
  searcher: Searcher | null,
): { pairs: [string, string][]; found: number } {
  const { texts, found } = readFields(raw, searcher)
  const pairs: [string, string][] = []
  for (let i = 0; i + 1 < texts.length; i += 2) {
    const name = texts[i] as string
    if (classify(name.toLowerCase()) === 'keep' && !/^(?:trailer|host)$/i.test(name)) {
      pairs.push([name, texts[i + 1] as string])
    }
  }
  return { pairs, found }
}

/**
 * Names and values as text, credentials overwritten. The parser usually cuts all of them from one piece of memory, which
 * is then searched once and turned into text once.
 */
function readFields(raw: readonly Buffer[], searcher: Searcher | null): { texts: string[]; found: number } {
  const texts = new Array<string>(raw.length)
  const whole = wholeOf(raw)
  if (whole === undefined) {
    const found = searcher === null ? 0 : raw.reduce((sum, part) => sum + searcher.mask(part), 0)
    for (let i = 0; i < raw.length; i += 1) texts[i] = (raw[i] as Buffer).toString('latin1')
    return { texts, found }
  }
  const found = searcher === null ? 0 : searcher.mask(whole)
  const text = whole.toString('latin1')
  for (let i = 0; i < raw.length; i += 1) {
    const part = raw[i] as Buffer
    const start = part.byteOffset - whole.byteOffset
    texts[i] = text.slice(start, start + part.length)
  }
  return { texts, found }
}

/** The memory from the first field to the last, if they lie in it in order. */
function wholeOf(raw: readonly Buffer[]): Buffer | undefined {
  const first = raw[0]
  if (first === undefined) return undefined
  let end = first.byteOffset
  for (let i = 0; i < raw.length; i += 1) {
    const part = raw[i] as Buffer
    if (part.buffer !== first.buffer || part.byteOffset < end) return undefined
    end = part.byteOffset + part.length
  }
  return Buffer.from(first.buffer, first.byteOffset, end - first.byteOffset)
}

/** The content codings applied, as one word for `decode.ts`; `identity` does nothing. */
function codingOf(names: readonly string[]): string | undefined {
  let coding: string | undefined
  for (let i = 0; i + 1 < names.length; i += 2) {
    if (names[i]?.length !== 16 || names[i]?.toLowerCase() !== 'content-encoding') continue
    const value = (names[i + 1] as string).trim().toLowerCase()
    if (value !== '' && value !== 'identity') coding = coding === undefined ? value : `${coding}, ${value}`
  }
  return coding
}

function withoutNominated(headers: string[], nominated: string): string[] {
  const lower = nominated.toLowerCase()
  if (lower === 'keep-alive' || lower === 'close') return headers
  const dropped = new Set(lower.split(',').map((token) => token.trim()))
  const kept: string[] = []
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i] as string
    // A length that vanishes would change where the body ends.
    if (dropped.has(name.toLowerCase()) && name.toLowerCase() !== 'content-length') continue
    kept.push(name, headers[i + 1] as string)
  }
  return kept
}

function learn(name: string): Action {
  const action = classify(name.toLowerCase())
  if (actions.size < MAX_NAMES && name.length <= MAX_NAME_LENGTH) actions.set(name, action)
  return action
}

function classify(name: string): Action {
  // `Keyless-*` and `Proxy-*` are words of this gateway: an upstream could otherwise pass its answer off as a refusal.
  if (name.startsWith('proxy-') || name.startsWith('keyless-')) return 'drop'
  return FIXED.get(name) ?? 'keep'
}
