/**
 * What in an answer the search for known credentials cannot settle: forms that it does not see through, which are refused with
 * `upstream_encoding`, and new credentials, which nobody knows yet. Pure.
 */
import { GatewayError } from '../protocol/problem.ts'
import type { Slot } from '../protocol/service.ts'

/** Character sets in which ASCII is ASCII, and UTF-16, which is searched for (`spelling.ts`). */
const SEARCHABLE =
  /^(?:utf-?8|utf-?16(?:[bl]e)?|us-ascii|ascii|binary|iso-?8859-\d+|iso-2022-\w+|latin-?\d+|windows-\d+|cp125\d|gb2312|gbk|gb18030|big5(?:-hkscs)?|shift[_-]jis|windows-31j|euc-\w+|koi8-\w+|macintosh|tis-620)$/i

/** The parser undoes `chunked` and nothing else: another coding would carry an echo past the search. */
export function requireChunked(transferEncoding: string): void {
  if (!/^[ \t]*chunked[ \t]*$/i.test(transferEncoding)) throw unreadable(`transfer coding ${transferEncoding}`)
}

/** Media types that passed before, as they came: memo of a pure function. Upstreams choose them, so it is bounded. */
const searchable = new Set<string>()
const MAX_TYPES = 256
const MAX_TYPE_LENGTH = 128

/** An agent can ask for EBCDIC or UTF-32 in `Accept`, and some frameworks oblige. */
export function requireSearchable(contentType: string): void {
  if (searchable.has(contentType)) return
  if (/^[ \t]*multipart\/byteranges/i.test(contentType)) throw unreadable('media type multipart/byteranges')
  for (const [, quoted, plain] of contentType.matchAll(/charset[ \t]*=[ \t]*(?:"([^"]*)"?|([^\s;,"]*))/gi)) {
    const charset = quoted ?? plain ?? ''
    if (charset !== '' && !SEARCHABLE.test(charset)) throw unreadable(`character set ${charset}`)
  }
  if (searchable.size < MAX_TYPES && contentType.length <= MAX_TYPE_LENGTH) searchable.add(contentType)
}

/**
 * gRPC and Connect pack each message by itself. Many servers pack an answer as its request was packed, whatever the request
 * accepts, and what such an answer echoes would pass the search.
 */
export function requirePlainMessages(coding: string): void {
  if (!/^[ \t]*(?:identity)?[ \t]*$/i.test(coding)) throw unreadable(`message coding ${coding}`)
}

/** RFC 6265 §5.2. A session renewed in the cookie that carries our credential is a credential. */
export function isCredentialCookie(value: string, slots: readonly Slot[]): boolean {
  const name = value.split('=', 1)[0]?.trim()
  return slots.some((slot) => slot.in === 'cookie' && slot.name === name)
}

function unreadable(what: string): GatewayError {
  return new GatewayError(
    'upstream_encoding',
    `The answer comes in the ${what.slice(0, 80)}, in which it cannot be searched for credentials.`,
  )
}
