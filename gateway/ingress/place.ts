/** Where a request says it goes: request targets in absolute form, Host fields, and whether they name the same place. */
import { isIP } from 'node:net'
import type { Mode, Presented } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import { DEFAULT_PORTS, type HostPort, parseAuthority } from '../protocol/target.ts'

/** What a request's own words say about where it goes and who asks. */
export interface Target {
  readonly mode: Mode
  readonly scheme: 'http' | 'https'
  readonly host: string
  readonly port: number
  readonly rawPath: string
  /** Absent in reverse mode, where Host names the gateway. */
  readonly hostHeader: string | undefined
  readonly presented: Presented | null
  readonly route?: string
}

/** An absolute-form request target, cut but not interpreted. */
export interface AbsoluteForm {
  readonly scheme: 'http' | 'https'
  readonly authority: string
  /** What follows the authority, byte for byte; `/` where nothing does (RFC 9110 §4.2.3). */
  readonly rawPath: string
}

/** Memo of a pure function, per default port: authority as received → place. Agents choose authorities, so it is bounded. */
const knownPlaces = { http: new Map<string, HostPort>(), https: new Map<string, HostPort>() }
const MAX_PLACES = 1024

/** @throws {GatewayError} `request_malformed` unless the target is `http://…` or `https://…`. */
export function cutAbsolute(url: string): AbsoluteForm {
  const colon = url.indexOf(':')
  const scheme = url.startsWith('http://') ? 'http' : url.startsWith('https://') ? 'https' : schemeOf(url)
  const start = colon + 3
  let end = start
  for (; end < url.length; end++) {
    const code = url.charCodeAt(end)
    if (code === 0x2f || code === 0x3f) break // slash or question mark
  }
  const rest = url.slice(end)
  return { scheme, authority: url.slice(start, end), rawPath: rest.charCodeAt(0) === 0x2f ? rest : `/${rest}` }
}

function schemeOf(url: string): 'http' | 'https' {
  const scheme = /^(https?|wss?):\/\//i.exec(url)?.[1]?.toLowerCase()
  // WebSocket clients write `ws:` for a handshake that is HTTP (clients.md §0.6).
  if (scheme === 'http' || scheme === 'ws') return 'http'
  if (scheme === 'https' || scheme === 'wss') return 'https'
  throw new GatewayError(
    'request_malformed',
    'The request target is neither http://…, https://… nor a path. A proxy takes the first two, a reverse route the third.',
  )
}

/** @throws {GatewayError} `request_malformed` */
export function placeOf(authority: string, scheme: 'http' | 'https'): HostPort {
  const known = knownPlaces[scheme]
  const before = known.get(authority)
  if (before !== undefined) return before
  const place = parseAuthority(authority, DEFAULT_PORTS[scheme])
  if (known.size >= MAX_PLACES) known.clear()
  known.set(authority, place)
  return place
}

/** @throws {GatewayError} `target_mismatch` when `hostHeader` names another place; `request_malformed` when it names none. */
export function requirePlace(hostHeader: string, expected: HostPort & { readonly scheme: 'http' | 'https' }): void {
  const named = placeOf(hostHeader, expected.scheme)
  if (named.host === expected.host && named.port === expected.port) return
  throw new GatewayError(
    'target_mismatch',
    `The request goes to ${expected.host}:${expected.port}, but its Host field names ${named.host}:${named.port}. Both must name the same place.${adviceFor(expected.host)}`,
  )
}

/** SOCKS clients that resolve names themselves lose them on the way. */
function adviceFor(host: string): string {
  return isIP(host) === 0 ? '' : ' With SOCKS, write socks5h://, so that the name reaches the gateway.'
}
