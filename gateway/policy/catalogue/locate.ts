/** Finds the place of one request. Everything read here is controlled by the agent until this has run (H7, H30). */
import { DESK_HOST } from '../../protocol/desk.ts'
import { HostTable, isHostPattern, parseHostPattern } from '../../protocol/host-pattern.ts'
import type { Destination } from '../../protocol/message.ts'
import { credentialInMergedPath, credentialInPath } from '../../protocol/path-slot.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { type Endpoint, type Operation, plainHost, type Service } from '../../protocol/service.ts'
import { canonicalPath, DEFAULT_PORTS, formatAuthority, parseAuthority } from '../../protocol/target.ts'
import { type Site, type Spot, UNMANAGED } from './site.ts'

export function createLocator(sites: readonly Site[]): (inbound: Destination) => Endpoint {
  const byName = new Map(sites.map((site) => [site.service.name, site]))
  const byHost = new Map<string, Site[]>()
  const patterns = new HostTable<Spread>()
  for (const site of sites) {
    for (const host of site.service.hosts) {
      const pattern = isHostPattern(host) ? parseHostPattern(host) : undefined
      if (pattern === undefined) byHost.set(host, [...(byHost.get(host) ?? []), site])
      else patterns.add(pattern, { host, sites: [site] })
    }
  }
  return (inbound) => {
    refuseMethod(inbound.method)
    if (inbound.host === DESK_HOST) throw ownName()
    if (inbound.mode === 'reverse') return locateRoute(inbound, byName)
    if (inbound.hostHeader !== undefined) agreeOnHost(inbound, inbound.hostHeader)
    const candidates = byHost.get(inbound.host)
    if (candidates !== undefined) return endpointAt(inbound, siteAt(inbound, candidates), inbound)
    const spread = patterns.match(inbound.host)
    if (spread === undefined) return unmanagedEndpoint(inbound)
    const { host, sites: owners } = spread.value
    const site = siteAt(inbound, owners)
    const found = endpointAt(inbound, site, inbound, host)
    const located = { ...found, params: { ...found.params, ...spread.params } }
    const held = site.inside.get(host)
    return held === undefined
      ? located
      : { ...located, place: `/${spread.params[held]}${found.path === '/' ? '' : found.path}` }
  }
}

/** A pattern of hosts, and the service whose it is. */
interface Spread {
  readonly host: string
  readonly sites: readonly [Site]
}

/** TRACE and TRACK echo the request, credential included; CONNECT inside a request would be a second tunnel. */
function refuseMethod(method: string): void {
  if (method !== 'TRACE' && method !== 'CONNECT' && method !== 'TRACK') return
  throw new GatewayError(
    'method_refused',
    `${method} is never forwarded: it would show the request as it was sent upstream. Use another method.`,
  )
}

/** Whatever a service file or a name server says. */
function ownName(): GatewayError {
  return new GatewayError(
    'target_mismatch',
    `${DESK_HOST} is the gateway itself, as agents see it through their proxy, and nothing is forwarded there.`,
  )
}

interface Place {
  readonly scheme: 'http' | 'https'
  readonly host: string
  readonly port: number
}

function locateRoute(inbound: Destination, byName: ReadonlyMap<string, Site>): Endpoint {
  const site = byName.get(inbound.route ?? '')
  const host = site && plainHost(site.service)
  const port = site?.service.ports[0]
  if (site === undefined || host === undefined || port === undefined) {
    const known = [...byName.values()]
      .flatMap(({ service }) => (plainHost(service) ? `/${service.name}/` : []))
      .join(', ')
    throw new GatewayError(
      'route_unknown',
      `No service with a fixed host is called ${JSON.stringify((inbound.route ?? '').slice(0, 80))}. Routes: ${known}.`,
    )
  }
  return endpointAt(inbound, site, { scheme: site.service.scheme, host, port })
}

/** RFC 9110 §7.2: the Host field names the same place as the target; behind a shared front it would choose another site. */
function agreeOnHost(inbound: Destination, hostHeader: string): void {
  const defaultPort = DEFAULT_PORTS[inbound.scheme]
  if (hostHeader === formatAuthority(inbound, defaultPort)) return // as most clients write it
  const named = parseAuthority(hostHeader, defaultPort)
  if (named.host === inbound.host && named.port === inbound.port) return
  throw new GatewayError(
    'target_mismatch',
    `The Host field names ${named.host}:${named.port}, but the request goes to ${inbound.host}:${inbound.port}. Send one name only.`,
  )
}

function siteAt(inbound: Destination, candidates: readonly Site[]): Site {
  const { host, port, scheme } = inbound
  for (const site of candidates) {
    if (!site.service.ports.includes(port)) continue
    if (site.service.scheme === scheme) return site
    throw wrongScheme(inbound, site.service)
  }
  const [first] = candidates
  // http:// to an https service arrives on port 80: the scheme is the mistake to name.
  if (first !== undefined && first.service.scheme !== scheme) throw wrongScheme(inbound, first.service)
  const ports = candidates.flatMap((site) => site.service.ports).join(', ')
  throw new GatewayError(
    'host_unmanaged',
    `No service covers port ${port} of ${host}; its ports are: ${ports}. Use one of them, or add the port to the service file.`,
  )
}

function wrongScheme({ scheme, host }: Destination, service: Service): GatewayError {
  const usual = DEFAULT_PORTS[service.scheme]
  const place = formatAuthority({ host, port: service.ports[0] ?? usual }, usual)
  return new GatewayError(
    'target_mismatch',
    `The service ${service.name} is reached over ${service.scheme} only, and this request uses ${scheme}. Use ${service.scheme}://${place}.`,
  )
}

/** @param host as the service has it: its name, or the pattern that it matches. */
function endpointAt(inbound: Destination, site: Site, place: Place, host = place.host): Endpoint {
  const { method } = inbound
  const rawPath = withoutCredential(inbound.rawPath, site.service)
  const path = canonicalPath(rawPath)
  const mark = rawPath.indexOf('?')
  if (mark !== -1 && OVERRIDE.test(rawPath)) refuseOverride(rawPath.slice(mark + 1))
  const found = site.tries.get(host)?.match(method, path, mark === -1 ? '' : rawPath.slice(mark + 1), inbound)
  if (found !== undefined) return endpoint(rawPath, place, found.value, path, found.params)
  refuseUnclear(path)
  return endpoint(rawPath, place, isSafe(method) ? site.unlisted.read : site.unlisted.write, path, NO_PARAMS)
}

/** What the agent put into the path in place of a credential is for nobody to see, and for nothing to match. */
function withoutCredential(rawPath: string, { slots }: Service): string {
  const found = credentialInPath(rawPath, slots)
  if (found !== undefined) return found.rest
  if (credentialInMergedPath(rawPath, slots) === undefined) return rawPath
  throw new GatewayError(
    'path_ambiguous',
    'The path holds an empty segment (//) or an encoded slash before a credential, where servers differ on what it means. Send a plain path.',
  )
}

/** Without either, `refuseOverride` finds nothing: most queries need no second look. */
const OVERRIDE = /meth|%/i
/** Parameters by which frameworks take another method than the request line says: Rails, Laravel, WordPress, Salesforce, Google. */
const OVERRIDE_NAME =
  /^(?:_(?:http_?)?method|\$?http_?method|x[-_]http[-_]method(?:[-_]override)?|x[-_]method[-_]override)$/i

/** Policy decides on the method of the request line (H31). The header fields of this kind are dropped in `upstream/headers.ts`. */
function refuseOverride(query: string): void {
  for (const name of new URLSearchParams(query.replaceAll(';', '&')).keys()) {
    if (!OVERRIDE_NAME.test(name.trim())) continue
    throw new GatewayError(
      'request_malformed',
      `The query parameter ${JSON.stringify(name)} asks for another method than the request line. Send that method itself.`,
    )
  }
}

/** Only an operation whose pattern says so takes these: elsewhere a decoding or merging server would see another place. */
function refuseUnclear(path: string): void {
  if (path.includes('%2F')) {
    throw new GatewayError(
      'path_ambiguous',
      'The path holds an encoded slash (%2F) where no operation of the service takes one. Send a plain slash, or the id instead of the name.',
    )
  }
  if (path.includes('//')) {
    throw new GatewayError(
      'path_ambiguous',
      'The path holds an empty segment (//), which some servers merge. Remove the extra slash.',
    )
  }
}

const NO_PARAMS: Readonly<Record<string, string>> = Object.freeze({})

function endpoint(rawPath: string, place: Place, spot: Spot, path: string, params: Endpoint['params']): Endpoint {
  const { scheme, host, port } = place
  return {
    service: spot.service,
    operation: spot.operation,
    scheme,
    host,
    port,
    path,
    rawPath,
    params,
  }
}

const [UNMANAGED_READ, UNMANAGED_WRITE] = UNMANAGED.operations as readonly [Operation, Operation]

function unmanagedEndpoint(inbound: Destination): Endpoint {
  const operation = isSafe(inbound.method) ? UNMANAGED_READ : UNMANAGED_WRITE
  return endpoint(
    inbound.rawPath,
    inbound,
    { service: UNMANAGED, operation },
    canonicalPath(inbound.rawPath),
    NO_PARAMS,
  )
}

/** RFC 9110 §9.2.1, without TRACE. */
function isSafe(method: string): boolean {
  return method === 'GET' || method === 'HEAD' || method === 'OPTIONS'
}
