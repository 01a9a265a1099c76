/**
 * Requests in absolute form (RFC 9112 §3.2.2): `http://` from every proxy client, `https://` from clients that never learnt
 * CONNECT (clients.md §0.6).
 */
import type { IncomingMessage } from 'node:http'
import type { Presented } from '../protocol/message.ts'
import { type Fields, presentedWithProof } from './fields.ts'
import type { Door } from './line.ts'
import { cutAbsolute, placeOf, requirePlace, type Target } from './place.ts'
import { reverseTarget } from './reverse.ts'

/** @throws {GatewayError} `request_malformed`, `target_mismatch`, `route_unknown`. */
export function forwardTarget(door: Door, req: IncomingMessage, fields: Fields, presented: Presented | null): Target {
  const { scheme, authority, rawPath } = cutAbsolute(req.url as string)
  const { host, port } = placeOf(authority, scheme)
  if (fields.host !== undefined && fields.host !== authority) requirePlace(fields.host, { scheme, host, port })
  // A base URL that leads to us, sent through the proxy setting that leads to us too (clients.md §2, trap 29).
  if (port === door.port && scheme === 'http' && isOurs(host, req))
    return reverseTarget(door, req, rawPath, presented ?? presentedWithProof(fields, req.rawHeaders))
  return { mode: 'forward', scheme, host, port, rawPath, hostHeader: fields.host, presented }
}

function isOurs(host: string, req: IncomingMessage): boolean {
  return host === 'localhost' || host === '127.0.0.1' || host === '::1' || host === req.socket.localAddress
}
