/**
 * Requests inside a CONNECT tunnel. The tunnel says where they go and who asks; what they say themselves must agree, or two
 * hops would decide on two places (domain fronting). A Proxy-Authorization inside is ignored: it was meant for nobody here.
 */
import { GatewayError } from '../protocol/problem.ts'
import type { Fields } from './fields.ts'
import type { Line, Tunnel } from './line.ts'
import { cutAbsolute, placeOf, requirePlace, type Target } from './place.ts'

/** @throws {GatewayError} `target_mismatch`, `request_malformed`. */
export function tunnelTarget(line: Line, tunnel: Tunnel, url: string, fields: Fields): Target {
  const { scheme, host, port, presented } = tunnel
  if (tunnel.foreignName !== undefined) {
    throw new GatewayError(
      'target_mismatch',
      `CONNECT asked for ${host}, but the TLS handshake named ${tunnel.foreignName}. Both must name the same host.`,
    )
  }
  if (fields.host !== undefined && fields.host !== line.agreedHost) {
    requirePlace(fields.host, tunnel)
    line.agreedHost = fields.host
  }
  const rawPath = url.charCodeAt(0) === 0x2f ? url : pathOfAbsolute(url, tunnel)
  return { mode: 'intercept', scheme, host, port, rawPath, hostHeader: fields.host, presented }
}

/** RFC 9112 §3.2.2: a server accepts the absolute form too; it must name the place the tunnel leads to. */
function pathOfAbsolute(url: string, tunnel: Tunnel): string {
  const { scheme, authority, rawPath } = cutAbsolute(url)
  const place = placeOf(authority, scheme)
  if (scheme !== tunnel.scheme || place.host !== tunnel.host || place.port !== tunnel.port) {
    throw new GatewayError(
      'target_mismatch',
      `The tunnel leads to ${tunnel.host}:${tunnel.port}, but the request target names another place. Open a tunnel to that one.`,
    )
  }
  return rawPath
}
