/**
 * Where a request goes: host and port out of an authority, and the canonical path that policy decides on. Pure.
 * The bytes that are forwarded never come from here; what could be read as two places is refused, not repaired.
 */
import { GatewayError } from './problem.ts'

export interface HostPort {
  /** Lower case, no trailing dot, IPv6 in its shortest form without brackets. */
  readonly host: string
  readonly port: number
}

export const DEFAULT_PORTS = { http: 80, https: 443 } as const

/** The way back from `parseAuthority`: `[::1]:8080`. @param defaultPort a port that is left out. Default: none. */
export function formatAuthority({ host, port }: HostPort, defaultPort?: number): string {
  const name = host.includes(':') ? `[${host}]` : host
  return port === defaultPort ? name : `${name}:${port}`
}

/**
 * Host and port of an authority such as `api.github.com`, `api.github.com:8443`, `[::1]:443`.
 * @param defaultPort used when the text names none.
 * @throws {GatewayError} `request_malformed` for userinfo, an empty or out-of-range port, and a host that is neither LDH
 *   labels (RFC 1123; an internationalized name comes as A-labels) nor a canonical IP address.
 */
export function parseAuthority(text: string, defaultPort: number): HostPort {
  if (text.charCodeAt(0) === OPEN_BRACKET) return parseBracketed(text, defaultPort)
  const colon = text.indexOf(':')
  const name = colon === -1 ? text : text.slice(0, colon)
  return { host: hostName(name, text), port: colon === -1 ? defaultPort : portNumber(text, colon + 1) }
}

const OPEN_BRACKET = 0x5b

function parseBracketed(text: string, defaultPort: number): HostPort {
  const close = text.indexOf(']')
  if (close === -1) throw malformed(text, 'the bracket is not closed')
  const rest = text.length > close + 1 ? text.charCodeAt(close + 1) : -1
  if (rest !== -1 && rest !== 0x3a) throw malformed(text, 'only `:port` may follow the bracket')
  const host = addressV6(text.slice(1, close), text)
  return { host, port: rest === -1 ? defaultPort : portNumber(text, close + 2) }
}

/** WHATWG parsing gives RFC 5952 text; the character check keeps out zone ids and anything it would repair. */
function addressV6(literal: string, text: string): string {
  if (!/^[0-9a-f:.]{2,45}$/i.test(literal)) throw malformed(text, 'it is not an IPv6 address')
  const url = URL.parse(`http://[${literal}]`)
  if (url === null) throw malformed(text, 'it is not an IPv6 address')
  return url.hostname.slice(1, -1)
}

function portNumber(text: string, from: number): number {
  let port = 0
  for (let i = from; i < text.length; i++) {
    const digit = text.charCodeAt(i) - 0x30
    if (digit < 0 || digit > 9 || (digit === 0 && i === from))
      throw malformed(text, 'the port is not a number from 1 to 65535')
    port = port * 10 + digit
    if (port > 65535) throw malformed(text, 'the port is not a number from 1 to 65535')
  }
  if (port === 0) throw malformed(text, 'the port is empty')
  return port
}

/** Labels of letters, digits and inner hyphens (RFC 1123 §2.1), at most 63 each; a final dot is the root. */
const LDH_NAME = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*\.?$/i

function hostName(name: string, text: string): string {
  if (name.length > 254 || !LDH_NAME.test(name))
    throw malformed(text, 'the host is not made of letters, digits, hyphens and dots')
  const bare = name.endsWith('.') ? name.slice(0, -1) : name
  if (bare.length > 253) throw malformed(text, 'the host is longer than 253 characters')
  return settled(bare.toLowerCase(), text)
}

/** Numeric forms (`2130706433`, `0x7f.1`, `0177.0.0.1`) name an address to some resolvers only: just dotted quads are taken. */
function settled(host: string, text: string): string {
  const last = host.charCodeAt(host.lastIndexOf('.') + 1)
  const looksNumeric = last >= 0x30 && last <= 0x39
  if (looksNumeric && URL.parse(`http://${host}`)?.hostname !== host) {
    throw malformed(text, 'the host is not written in its canonical form')
  }
  return host
}

function malformed(text: string, why: string): GatewayError {
  const shown = JSON.stringify(text.slice(text.lastIndexOf('@') + 1, text.lastIndexOf('@') + 81))
  return new GatewayError(
    'request_malformed',
    `The authority ${shown} cannot be used: ${why}. Write host or host:port.`,
  )
}

/** 1: stands for itself, 2: ends the path, 3: needs decoding, 0: refused. */
const PATH_CLASS = charClasses([
  ['abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&\'()*+,=:@/"<>^`{|}[]', 1],
  ['?', 2],
  ['%', 3],
])

const DOT_SEGMENT = /(?:^|\/)\.{1,2}(?:\/|$)/

/**
 * The path that policy decides on: without query, percent-decoded once; an encoded slash stays `%2F` inside its segment, so
 * that a segment of the result is a segment of the request. One trailing slash is dropped: servers differ on it.
 * @throws {GatewayError} `path_ambiguous` for dot segments, backslashes, `;`, control characters, broken or double encoding,
 *   non-shortest UTF-8, and characters that compatibility normalization (NFKC) turns into any of these.
 */
export function canonicalPath(rawPath: string): string {
  let end = rawPath.length
  let isEncoded = false
  for (let i = 0; i < end; i++) {
    const kind = PATH_CLASS[rawPath.charCodeAt(i)] ?? 0
    if (kind === 1) continue
    if (kind === 0) throw ambiguous(refusedCharacter(rawPath.charCodeAt(i)))
    if (kind === 2) end = i
    else isEncoded = true
  }
  if (end === 0) return '/'
  if (rawPath.charCodeAt(0) !== SLASH) throw ambiguous('it does not begin with a slash')
  const hasTrailingSlash = end > 1 && rawPath.charCodeAt(end - 1) === SLASH && rawPath.charCodeAt(end - 2) !== SLASH
  const path = rawPath.slice(0, hasTrailingSlash ? end - 1 : end)
  if (path.includes('/.') && DOT_SEGMENT.test(path)) throw ambiguous('it holds a `.` or `..` segment')
  return isEncoded ? decoded(path) : path
}

const SLASH = 0x2f

function refusedCharacter(code: number): string {
  if (code === 0x5c) return 'it holds a backslash, which some servers read as a slash'
  if (code === 0x3b) return 'it holds `;`, which some servers cut off as path parameters'
  if (code === 0x23) return 'it holds a fragment'
  return 'it holds a character that must be percent-encoded'
}

/** Slashes are split off before decoding: `%2F` stays one segment for those who decode late. */
function decoded(path: string): string {
  const parts = path.split(/%2f/i)
  let plain = true
  for (let i = 0; i < parts.length; i++) {
    const part = decodeOnce(parts[i] ?? '')
    if (/[^\x20-\x7e]/.test(part)) plain = false
    parts[i] = part
  }
  // Both readers of an encoded slash must see no dot segment.
  if (DOT_SEGMENT.test(parts.join('/'))) throw ambiguous('it holds an encoded `.` or `..` segment')
  const canonical = parts.join('%2F')
  if (!plain) refuseCompatible(parts.join('/'))
  return canonical
}

function decodeOnce(text: string): string {
  let part: string
  try {
    part = decodeURIComponent(text) // refuses lone `%`, overlong and broken UTF-8, surrogates
  } catch {
    throw ambiguous('its percent-encoding is broken or not UTF-8')
  }
  if (/[\p{Cc}\\;]/u.test(part)) throw ambiguous('it holds an encoded backslash, `;` or control character')
  if (/%[0-9a-f]{2}/i.test(part)) throw ambiguous('it is percent-encoded twice')
  return part
}

/** A server that normalizes (fullwidth solidus, one dot leader) must not see other segments than we do. */
function refuseCompatible(text: string): void {
  const folded = text.normalize('NFKC')
  const sameSegments = folded.split('/').length === text.split('/').length
  if (sameSegments && !/[\\;]|%[0-9a-f]{2}|(?:^|\/)\.{1,2}(?:\/|$)/i.test(folded)) return
  throw ambiguous('it holds characters that some servers normalize to a separator')
}

function ambiguous(why: string): GatewayError {
  return new GatewayError(
    'path_ambiguous',
    `The path cannot be read in one way only: ${why}. Send the path in its plain form.`,
  )
}

function charClasses(rows: readonly (readonly [string, number])[]): Uint8Array {
  const table = new Uint8Array(128)
  for (const [characters, kind] of rows) {
    for (const character of characters) table[character.charCodeAt(0)] = kind
  }
  return table
}
