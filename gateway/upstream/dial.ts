/**
 * The guarded dial: the only place that opens outgoing sockets. Names are resolved once, every address is judged, and
 * exactly the judged addresses are dialled; a second lookup could answer differently (DNS rebinding, standards.md H2).
 */
import { connect as connectTcp, isIP, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { Clock } from '../protocol/clock.ts'
import type { ClientCertificate } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import { classifyAddress, isDialable, isDisguisedAddress, isMetadataName, isNeverDialled } from './address.ts'
import { describeTlsFailure } from './failure.ts'
import { type Resolve, resolveBySystem, together } from './lookup.ts'
import { codeOf, opened, TimeoutError } from './opened.ts'
import { type ContextFor, createContexts } from './secure-contexts.ts'
import { askProxy, goesDirect, proxyFailure, type UpstreamProxy } from './via-proxy.ts'

export interface DialOptions {
  /** For everything from the lookup to the finished TLS handshake. */
  readonly connectTimeoutMs: number
  /** Roots in PEM, trusted besides the system's. */
  readonly ca: readonly string[]
  /** Name → address, before DNS is asked; judged like any other address. */
  readonly hosts: ReadonlyMap<string, string>
  readonly clock: Clock
  /** Whether this address, or name, is a door of the gateway that no call may reach (standards.md H35). Default: there is none. */
  readonly isClosed?: (address: string, port: number) => boolean
  /** The proxy through which the way out leads. Default: there is none. */
  readonly proxy?: UpstreamProxy | undefined
  /** All addresses of a name, in the order to try. Default: the system's resolver. */
  readonly resolve?: Resolve
}

export interface DialTarget {
  readonly scheme: 'http' | 'https'
  readonly host: string
  readonly port: number
  /** CIDR ranges allowed besides public addresses. */
  readonly allowed: readonly string[]
  /** Protocols to offer in TLS, best first. Default HTTP/1.1 alone. */
  readonly alpn?: readonly string[]
  /** Shown in TLS, to the upstream and never to a proxy on the way. Default: none. */
  readonly certificate?: ClientCertificate | undefined
  /** TLS session to resume; sessions are never shared between isolation keys, nor between certificates. */
  readonly session?: Buffer | undefined
  readonly onSession?: (session: Buffer) => void
}

export interface Dialled {
  readonly socket: Socket
  /** The address that was dialled. */
  readonly address: string
  /** What the upstream chose of those offered; undefined: it knows no ALPN, or there was no TLS. */
  readonly protocol: string | undefined
}

/**
 * Open a connection.
 * @throws {GatewayError} `address_forbidden`, `upstream_unresolved`, `upstream_refused`, `upstream_timeout`, `upstream_tls`.
 */
export type Dial = (target: DialTarget, signal: AbortSignal) => Promise<Dialled>

const HTTP_1 = ['http/1.1']

export function createDial(given: DialOptions): Dial {
  const { connectTimeoutMs, clock, proxy } = given
  const options = { ...given, resolve: together(given.resolve ?? resolveBySystem, connectTimeoutMs) }
  const contextFor = createContexts(options.ca)
  const viaContext = proxy === undefined ? contextFor : createContexts(proxy.ca)

  return async (target, signal) => {
    const startMs = clock.elapsedMs()
    const leftMs = () => connectTimeoutMs - (clock.elapsedMs() - startMs)
    const way = { ...target, leftMs, signal }
    if (proxy === undefined || goesDirect(target.host, proxy.noProxy)) return connect(way, options, contextFor)
    const plain = await reachVia(proxy, way, options, viaContext)
    return target.scheme === 'http' ? plain : secure(plain, way, contextFor)
  }
}

type Ready = DialOptions & { readonly resolve: Resolve }

interface Way extends DialTarget {
  leftMs(): number
  readonly signal: AbortSignal
}

async function reach(way: Way, options: Ready): Promise<Dialled> {
  refuseName(way.host)
  const given = options.hosts.get(way.host)
  const addresses = given === undefined ? await locate(way.host, options.resolve, options.connectTimeoutMs) : [given]
  judge(way, addresses)
  refuseClosed(way, addresses, options.isClosed)
  return openFirst(way, addresses)
}

/** Any address of the operator's own proxy is meant, but for those that no setting opens. */
const EVERYWHERE = ['0.0.0.0/0', '::/0']

/** Names are left to the proxy; what can be judged without resolving them is judged. */
async function reachVia(proxy: UpstreamProxy, way: Way, options: Ready, contextFor: ContextFor): Promise<Dialled> {
  refuseName(way.host)
  const host = options.hosts.get(way.host) ?? way.host
  if (isIP(host) !== 0) judge(way, [host])
  refuseClosed(way, [host], options.isClosed)
  const { signal, leftMs } = way
  const toProxy = { scheme: proxy.scheme, host: proxy.host, port: proxy.port, allowed: EVERYWHERE, leftMs, signal }
  const open = await connect(toProxy, { ...options, isClosed: () => false }, contextFor).catch((cause) => {
    throw proxyFailure(cause)
  })
  await askProxy(open.socket, proxy, { host, port: way.port }, { timeoutMs: leftMs(), signal }).catch((cause) => {
    throw cause instanceof GatewayError ? cause : proxyFailure(asUnreached(toProxy, cause))
  })
  return { ...open, protocol: undefined }
}

/** Up to where HTTP can be spoken. */
async function connect(way: Way, options: Ready, contextFor: ContextFor): Promise<Dialled> {
  const plain = await reach(way, options)
  return way.scheme === 'http' ? plain : secure(plain, way, contextFor)
}

async function secure(plain: Dialled, way: Way, contextFor: ContextFor): Promise<Dialled> {
  const tls = connectTls({
    socket: plain.socket,
    host: way.host,
    ...(isIP(way.host) === 0 ? { servername: way.host } : {}), // RFC 6066 §3: no SNI for addresses
    ...(way.session === undefined ? {} : { session: way.session }),
    secureContext: contextFor(way.certificate),
    ALPNProtocols: [...(way.alpn ?? HTTP_1)],
  })
  if (way.onSession !== undefined) tls.on('session', way.onSession)
  await opened(tls, 'secureConnect', { timeoutMs: way.leftMs(), signal: way.signal }).catch((cause) => {
    plain.socket.destroy()
    throw explainTls(way, cause)
  })
  // Node reports an alert and then an end, and who reads until the end would know of that alone.
  tls.once('error', (cause) => tls.destroy(cause))
  return { socket: tls, address: plain.address, protocol: tls.alpnProtocol || undefined }
}

async function locate(host: string, resolve: Resolve, timeoutMs: number) {
  if (isIP(host) !== 0) return [host]
  const late = timer(timeoutMs)
  try {
    return await Promise.race([resolve(host), late.promise])
  } catch (cause) {
    if (cause instanceof TimeoutError)
      throw new GatewayError('upstream_timeout', `${host} was not resolved within ${timeoutMs} ms.`)
    throw new GatewayError('upstream_unresolved', `${host} could not be resolved (${codeOf(cause)}).`, { cause })
  } finally {
    late.clear()
  }
}

/** Before any lookup, and whatever `upstream.hosts` says. */
function refuseName(host: string): void {
  if (isMetadataName(host))
    throw new GatewayError('address_forbidden', `${host} is a metadata service. ${NEVER_REACHABLE}`)
  if (!isDisguisedAddress(host)) return
  throw new GatewayError(
    'address_forbidden',
    `${host} is a number that some resolvers take for an address. Write the address out.`,
  )
}

const NEVER_REACHABLE = 'Metadata services and link-local addresses are never reachable.'

/** One forbidden address refuses the host: a resolver under attack mixes them with good ones. */
function judge(target: DialTarget, addresses: readonly string[]): void {
  if (addresses.length === 0) throw new GatewayError('upstream_unresolved', `${target.host} has no address.`)
  const bad = addresses.find((address) => !isDialable(address, target.allowed))
  if (bad === undefined) return
  const kind = classifyAddress(bad)
  const fix = isNeverDialled(bad)
    ? NEVER_REACHABLE
    : 'If that is meant, list its range under `addresses`, where the settings or the service file name this host.'
  throw new GatewayError('address_forbidden', `${target.host} leads to a ${kind} address. ${fix}`)
}

/** Whatever ranges a service lists: an agent that reaches our own control door through us would be taken for its owner. */
function refuseClosed(
  { host, port }: DialTarget,
  addresses: readonly string[],
  isClosed: DialOptions['isClosed'],
): void {
  if (isClosed === undefined || !addresses.some((address) => isClosed(address, port))) return
  throw new GatewayError(
    'address_forbidden',
    `${host}:${port} leads to the control door of this gateway, which no call may reach.`,
  )
}

async function openFirst(way: Way, addresses: readonly string[]): Promise<Dialled> {
  let failure: unknown
  for (const [i, address] of addresses.entries()) {
    const socket = connectTcp({
      host: address,
      port: way.port,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: 60_000,
    })
    try {
      // A silent address may not use up the time of those after it.
      await opened(socket, 'connect', { timeoutMs: way.leftMs() / (addresses.length - i), signal: way.signal })
      return { socket, address, protocol: undefined }
    } catch (cause) {
      failure = cause
      if (way.signal.aborted) break
    }
  }
  throw asUnreached(way, failure)
}

function asUnreached({ host, port }: DialTarget, cause: unknown): GatewayError {
  if (cause instanceof GatewayError) return cause
  if (cause instanceof TimeoutError)
    return new GatewayError('upstream_timeout', `${host}:${port} did not accept a connection in time.`)
  return new GatewayError('upstream_refused', `${host}:${port} could not be reached (${codeOf(cause)}).`, { cause })
}

function timer(timeoutMs: number): { promise: Promise<never>; clear(): void } {
  const { promise, reject } = Promise.withResolvers<never>()
  const id = setTimeout(() => reject(new TimeoutError()), timeoutMs)
  return { promise, clear: () => clearTimeout(id) }
}

function explainTls(target: DialTarget, cause: unknown): GatewayError {
  const place = `${target.host}:${target.port}`
  if (cause instanceof TimeoutError)
    return new GatewayError('upstream_timeout', `${place} did not finish its TLS handshake in time.`)
  return new GatewayError('upstream_tls', `TLS with ${place} failed: ${describeTlsFailure(codeOf(cause))}`, { cause })
}
