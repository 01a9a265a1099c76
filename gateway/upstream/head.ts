/**
 * Turns the head of an upstream's answer into what the agent gets: nothing that belongs to one connection, no credential,
 * no word in the gateway's own name. Order, case and repetitions stay.
 */
import { STATUS_CODES } from 'node:http'
import type { Capture } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { Slot } from '../protocol/service.ts'
import { type Action, actionOf, readFields } from './answer-fields.ts'
import { isAccepted } from './outlet.ts'
import { isCredentialCookie, requireChunked, requirePlainMessages, requireSearchable } from './searchable.ts'
import type { Searcher } from './searcher.ts'

export interface Head {
  readonly status: number
  readonly statusText: string
  /** Flat list for `writeHead`. */
  readonly headers: string[]
  /** Bytes of the body, where the upstream says so and they are passed on as they come. */
  readonly contentLength: number | undefined
  /** Content coding that must be undone before the body can be searched. */
  readonly coding: string | undefined
  /** Done again afterwards: the agent offered to undo it. */
  readonly isCodedAgain: boolean
  /** Credentials overwritten in the reason phrase. */
  readonly found: number
}

/** As it came. */
export interface HeadSource {
  readonly status: number
  readonly statusText: string
  /** `name, value, name, value`, searched already (`readFields`). */
  readonly fields: readonly string[]
  /** Answers to HEAD and those without content have fields about a body that does not follow. */
  readonly hasBody: boolean
}

/** What was asked with, and what may be in the answer. The same for every answer to a request. */
export interface HeadTerms {
  readonly isCredentialed: boolean
  /** A credential is in the request as a value, so no answer may come in which it could not be found (`carriesSecret`). */
  readonly isSearched: boolean
  /** Null when there is no credential to search for. */
  readonly searcher: Searcher | null
  /** Where the service takes credentials. */
  readonly slots: readonly Slot[]
  /** The service's file says that its cookies are no credentials. */
  readonly passesCookies?: boolean | undefined
  /** What the agent sent as Accept-Encoding. */
  readonly acceptEncoding?: string | undefined
  /** Present: the answer is a credential; its body is read, not passed on. */
  readonly capture?: Capture | undefined
  /** Present: something of its body is kept back; it is read whole before any of it is passed on. */
  readonly redact?: readonly string[] | undefined
}

/** Whether the body is gathered, and goes out whole or not at all. */
export function isGathered({ capture, redact }: Pick<HeadTerms, 'capture' | 'redact'>): boolean {
  return capture !== undefined || redact !== undefined
}

/** Of an answer with a credential the upstream refused: 401 would start logins at the agent (clients.md §0.2, §8). */
const REFUSED = { status: 403, statusText: 'Forbidden' }

/** What one pass over the fields gathers. */
interface Draft {
  readonly source: HeadSource
  readonly terms: HeadTerms
  readonly coding: string | undefined
  readonly isCodedAgain: boolean
  readonly headers: string[]
  contentLength: number | undefined
  nominated: string | undefined
}

/** @throws {GatewayError} `upstream_encoding` when the body comes in a form in which it could not be searched. */
export function readHead(source: HeadSource, terms: HeadTerms): Head {
  const { fields: names, hasBody } = source
  const { searcher, acceptEncoding } = terms
  const isRead = mustBeRead(terms)
  if (source.status === 206) requireWhole(terms)
  const coding = isRead && hasBody ? codingOf(names) : undefined
  const isCodedAgain = coding !== undefined && !isGathered(terms) && isAccepted(acceptEncoding, coding)
  const draft: Draft = {
    source,
    terms,
    coding,
    isCodedAgain,
    headers: [],
    contentLength: undefined,
    nominated: undefined,
  }
  for (let i = 0; i + 1 < names.length; i += 2) {
    const name = names[i] as string
    const value = names[i + 1] as string
    const action = actionOf(name)
    if (action === 'keep') draft.headers.push(name, value)
    else if (action !== 'drop') apply(action, name, value, draft)
  }
  const { nominated, contentLength } = draft
  const headers = nominated === undefined ? draft.headers : withoutNominated(draft.headers, nominated)
  if (source.status === 401 && terms.isCredentialed) {
    headers.push('Keyless-Upstream-Status', '401')
    return { ...REFUSED, headers, contentLength, coding, isCodedAgain, found: 0 }
  }
  const phrase = phraseOf(source, searcher)
  return {
    status: source.status,
    statusText: phrase.text,
    headers,
    contentLength,
    coding,
    isCodedAgain,
    found: phrase.found,
  }
}

function apply(action: Exclude<Action, 'keep' | 'drop'>, name: string, value: string, draft: Draft): void {
  const { source, terms, coding, headers } = draft
  const isRecoded = coding !== undefined
  switch (action) {
    case 'connection':
      draft.nominated = draft.nominated === undefined ? value : `${draft.nominated},${value}`
      return
    case 'transfer-encoding':
      requireChunked(value)
      return
    case 'content-type':
      if (mustSearch(terms) && source.hasBody) requireSearchable(value)
      headers.push(name, value)
      return
    case 'part':
      requireWhole(terms)
      headers.push(name, value)
      return
    case 'message-coding':
      if (mustSearch(terms) && source.hasBody) requirePlainMessages(value)
      headers.push(name, value)
      return
    case 'content-length':
      if (isRecoded || source.status === 204) return // RFC 9110 §8.6
      draft.contentLength = Number(value)
      headers.push(name, value)
      return
    case 'etag':
      headers.push(name, isRecoded && !value.startsWith('W/') ? `W/${value}` : value)
      return
    case 'set-cookie':
    case 'challenge':
    case 'content-encoding':
    case 'digest':
      if (isPassed(action, value, draft)) headers.push(name, value)
      return
    default:
      action satisfies never
  }
}

function isPassed(
  action: 'set-cookie' | 'challenge' | 'content-encoding' | 'digest',
  value: string,
  draft: Draft,
): boolean {
  const { isCredentialed, passesCookies, slots } = draft.terms
  switch (action) {
    case 'set-cookie': // a session opened with our credential is a credential that outlives its lease
      return !isCredentialed || (passesCookies === true && !isCredentialCookie(value, slots))
    case 'challenge': // the agent has nothing to answer it with
      return !isCredentialed
    case 'content-encoding':
      return draft.coding === undefined || draft.isCodedAgain
    case 'digest': // of bytes that the agent does not get
      return draft.coding === undefined
    default:
      return action satisfies never
  }
}

function mustSearch({ searcher, isSearched }: HeadTerms): boolean {
  return searcher !== null && isSearched
}

function mustBeRead(terms: HeadTerms): boolean {
  return mustSearch(terms) || isGathered(terms)
}

/** Nobody asked for a part (`Range` does not leave the gateway), and in parts of a credential nothing is found. */
function requireWhole(terms: HeadTerms): void {
  if (!mustBeRead(terms)) return
  throw new GatewayError('upstream_encoding', 'The answer is a part, in which nothing could be found for certain.')
}

/** The reason phrase, which may echo too. */
function phraseOf({ status, statusText }: HeadSource, searcher: Searcher | null): { text: string; found: number } {
  if (statusText === STATUS_CODES[status]) return { text: statusText, found: 0 }
  const bytes = Buffer.from(statusText, 'latin1')
  const found = searcher?.mask(bytes) ?? 0
  const text = bytes.toString('latin1')
  return { text: /^[\t\x20-\x7e\x80-\xff]*$/.test(text) ? text : '', found }
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
    if (actionOf(name) === 'keep' && !/^(?:trailer|host)$/i.test(name)) {
      pairs.push([name, texts[i + 1] as string])
    }
  }
  return { pairs, found }
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
