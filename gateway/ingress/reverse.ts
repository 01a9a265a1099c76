/**
 * Reverse routes: `/<service>/rest` for SDKs that take a base URL instead of a proxy. The agent's credential sits where the
 * SDK puts its key; what follows the service name goes on byte for byte.
 */
import type { IncomingMessage } from 'node:http'
import type { Presented, RawHeaders } from '../protocol/message.ts'
import { credentialInPath } from '../protocol/path-slot.ts'
import { GatewayError } from '../protocol/problem.ts'
import { plainHost, type Service, type Slot } from '../protocol/service.ts'
import { DEFAULT_PORTS } from '../protocol/target.ts'
import { fieldValue, parseCredentials } from './fields.ts'
import type { Door } from './line.ts'
import type { Target } from './place.ts'

/**
 * @param path path and query as received, beginning with the route.
 * @param presented from Proxy-Authorization, which goes before the slot: the launcher's forwarder adds it.
 * @throws {GatewayError} `route_unknown`
 */
export function reverseTarget(door: Door, req: IncomingMessage, path: string, presented: Presented | null): Target {
  const end = routeEnd(path)
  const name = path.slice(1, end)
  const service = door.route(name)
  const host = service && plainHost(service)
  if (service === undefined || host === undefined) {
    throw new GatewayError(
      'route_unknown',
      service
        ? `${service.name} has no fixed host that a route could lead to (${service.hosts.join(', ')}). Send the request through the proxy setting.`
        : 'No service has this reverse route. Use /<service>/<path> with a configured service, or send the request through the proxy setting.',
    )
  }
  const rest = path.slice(end)
  const rawPath = rest.charCodeAt(0) === 0x2f ? rest : `/${rest}`
  return {
    mode: 'reverse',
    scheme: service.scheme,
    host,
    port: service.ports[0] ?? DEFAULT_PORTS[service.scheme],
    rawPath,
    hostHeader: undefined,
    presented: presented ?? presentedInSlot(service, req.rawHeaders, rawPath),
    route: service.name,
  }
}

function routeEnd(path: string): number {
  for (let i = 1; i < path.length; i++) {
    const code = path.charCodeAt(i)
    if (code === 0x2f || code === 0x3f) return i // slash or question mark
  }
  return path.length
}

/** The agent's own credential in the first of the service's slots that is filled. */
function presentedInSlot(service: Service, rawHeaders: RawHeaders, rawPath: string): Presented | null {
  for (const slot of service.slots) {
    const token = tokenIn(slot, rawHeaders, rawPath)
    if (token !== undefined && token !== '') return { token, scheme: 'slot' }
  }
  return null
}

function tokenIn(slot: Slot, rawHeaders: RawHeaders, rawPath: string): string | undefined {
  switch (slot.in) {
    case 'header': {
      const value = fieldValue(rawHeaders, slot.name.toLowerCase())
      if (value === undefined) return undefined
      if (slot.name.toLowerCase() === 'authorization') return authorizationToken(value)
      return value.toLowerCase().startsWith(slot.prefix?.toLowerCase() ?? '')
        ? value.slice(slot.prefix?.length ?? 0).trim()
        : value
    }
    case 'basic': {
      const value = fieldValue(rawHeaders, 'authorization')
      return value === undefined ? undefined : authorizationToken(value)
    }
    case 'query':
      return queryValue(rawPath, slot.name)
    case 'cookie':
      return cookieValue(fieldValue(rawHeaders, 'cookie') ?? '', slot.name)
    case 'subprotocol':
      return subprotocolAfter(slot.prefix, fieldValue(rawHeaders, 'sec-websocket-protocol') ?? '')
    case 'signature':
      // AWS_SESSION_TOKEN: SDKs send it beside the signature, in a field, or in the query of a presigned URL.
      return slot.scheme === 'aws4'
        ? (fieldValue(rawHeaders, 'x-amz-security-token') ?? queryValue(rawPath, 'X-Amz-Security-Token'))
        : undefined
    case 'path':
      return credentialInPath(rawPath, [slot])?.text
    default:
      return undefined // no SDK sends its key there, or none travels at all
  }
}

/** `Bearer x`, `Basic x`, and the schemes that only some APIs know, such as GitHub's `token x`. */
function authorizationToken(value: string): string | undefined {
  return parseCredentials(value)?.token ?? /^[A-Za-z-]+ +(\S+)$/.exec(value.trim())?.[1]
}

function queryValue(rawPath: string, name: string): string | undefined {
  const start = rawPath.indexOf('?')
  return start === -1 ? undefined : (new URLSearchParams(rawPath.slice(start)).get(name) ?? undefined)
}

function subprotocolAfter(prefix: string, offered: string): string | undefined {
  const names = offered.split(',').map((name) => name.trim())
  return names.find((name) => name.startsWith(prefix))?.slice(prefix.length)
}

function cookieValue(cookies: string, name: string): string | undefined {
  for (const pair of cookies.split(';')) {
    const equals = pair.indexOf('=')
    if (equals !== -1 && pair.slice(0, equals).trim() === name) return pair.slice(equals + 1).trim()
  }
  return undefined
}
