/**
 * The guarded dial: the only place that opens outgoing sockets. Names are resolved once, every address is judged, and
 * exactly the judged addresses are dialled; a second lookup could answer differently (DNS rebinding, standards.md H2).
 */
import { promises as dns } from 'node:dns'
import { connect as connectTcp, isIP, type Socket } from 'node:net'
import { connect as connectTls, createSecureContext, getCACertificates, type TLSSocket } from 'node:tls'
import type { Clock } from '../protocol/clock.ts'
import { GatewayError } from '../protocol/problem.ts'
import { classifyAddress, isDialable, isDisguisedAddress } from './address.ts'
import { describeTlsFailure } from './failure.ts'

export interface DialOptions {
  /** For everything from the lookup to the finished TLS handshake. */
  readonly connectTimeoutMs: number
  /** Roots in PEM, trusted besides the system's. */
  readonly ca: readonly string[]
  /** Name → address, before DNS is asked; judged like any other address. */
  readonly hosts: ReadonlyMap<string, string>
  readonly clock: Clock
  /** Whether this is a door of the gateway that no call may reach (standards.md H35). Default: there is none. */
  readonly isClosed?: (address: string, port: number) => boolean
  /** All addresses of a name, in the order to try. Default: the system's resolver. */
  readonly resolve?: (host: string) => Promise<readonly string[]>
}

export interface DialTarget {
  readonly scheme: 'http' | 'https'
  readonly host: string
  readonly port: number
  /** CIDR ranges allowed besides public addresses. */
  readonly allowed: readonly string[]
  /** Protocols to offer in TLS, best first. Default HTTP/1.1 alone. */
  readonly alpn?: readonly string[]
  /** TLS session to resume; sessions are never shared between isolation keys. */
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

export function createDial(options: DialOptions): Dial {
  const { connectTimeoutMs, clock, hosts } = options
  const resolve = options.resolve ?? resolveBySystem
  const roots = options.ca.length === 0 ? {} : { ca: [...getCACertificates('default'), ...options.ca] }
  const secureContext = createSecureContext({ minVersion: 'TLSv1.2', ...roots })

  return async (target, signal) => {
    const startMs = clock.elapsedMs()
    const leftMs = () => connectTimeoutMs - (clock.elapsedMs() - startMs)
    const given = hosts.get(target.host)
    const addresses = given === undefined ? await locate(target.host, resolve, connectTimeoutMs) : [given]
    judge(target, addresses)
    refuseClosed(target, addresses, options.isClosed)
    const plain = await openFirst(target, addresses, leftMs, signal)
    if (target.scheme === 'http') return plain
    const tls = connectTls({
      socket: plain.socket,
      host: target.host,
      ...(isIP(target.host) === 0 ? { servername: target.host } : {}), // RFC 6066 §3: no SNI for addresses
      ...(target.session === undefined ? {} : { session: target.session }),
      secureContext,
      ALPNProtocols: [...(target.alpn ?? HTTP_1)],
    })
    if (target.onSession !== undefined) tls.on('session', target.onSession)
    await opened(tls, 'secureConnect', leftMs(), signal).catch((cause) => {
      plain.socket.destroy()
      throw explainTls(target, cause)
    })
    return { socket: tls, address: plain.address, protocol: tls.alpnProtocol || undefined }
  }
}

async function resolveBySystem(host: string): Promise<readonly string[]> {
  const found = await dns.lookup(host, { all: true, order: 'verbatim' })
  return found.map(({ address }) => address)
}

async function locate(host: string, resolve: (host: string) => Promise<readonly string[]>, timeoutMs: number) {
  if (isDisguisedAddress(host)) {
    throw new GatewayError(
      'address_forbidden',
      `${host} is a number that some resolvers take for an address. Write the address out.`,
    )
  }
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

/** One forbidden address refuses the host: a resolver under attack mixes them with good ones. */
function judge(target: DialTarget, addresses: readonly string[]): void {
  if (addresses.length === 0) throw new GatewayError('upstream_unresolved', `${target.host} has no address.`)
  const bad = addresses.find((address) => !isDialable(address, target.allowed))
  if (bad === undefined) return
  const kind = classifyAddress(bad)
  const fix =
    kind === 'metadata'
      ? 'Metadata services are never reachable.'
      : 'If that is meant, list its range under `addresses` of the service.'
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

async function openFirst(
  target: DialTarget,
  addresses: readonly string[],
  leftMs: () => number,
  signal: AbortSignal,
): Promise<Dialled> {
  let failure: unknown
  for (const [i, address] of addresses.entries()) {
    const socket = connectTcp({
      host: address,
      port: target.port,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: 60_000,
    })
    try {
      // A silent address may not use up the time of those after it.
      await opened(socket, 'connect', leftMs() / (addresses.length - i), signal)
      return { socket, address, protocol: undefined }
    } catch (cause) {
      failure = cause
      if (signal.aborted) break
    }
  }
  const place = `${target.host}:${target.port}`
  if (failure instanceof TimeoutError)
    throw new GatewayError('upstream_timeout', `${place} did not accept a connection in time.`)
  throw new GatewayError('upstream_refused', `${place} could not be reached (${codeOf(failure)}).`, { cause: failure })
}

/** Wait until a socket is open; a socket that fails, or comes too late, is destroyed. */
function opened(
  socket: Socket | TLSSocket,
  event: 'connect' | 'secureConnect',
  timeoutMs: number,
  signal: AbortSignal,
): Promise<void> {
  socket.on('error', ignore) // between two owners a socket must not be without a listener
  return new Promise((resolve, reject) => {
    const fail = (cause: unknown) => {
      settle()
      socket.destroy()
      reject(cause)
    }
    const succeed = () => {
      settle()
      resolve()
    }
    const leave = () => fail(signal.reason)
    const end = () => fail(new Error('closed during the handshake'))
    const late = setTimeout(() => fail(new TimeoutError()), Math.max(1, timeoutMs))
    const settle = () => {
      clearTimeout(late)
      signal.removeEventListener('abort', leave)
      socket.off(event, succeed).off('error', fail).off('close', end)
    }
    socket.once(event, succeed).once('error', fail).once('close', end)
    signal.addEventListener('abort', leave)
    if (signal.aborted) leave()
  })
}

class TimeoutError extends Error {}

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

function codeOf(cause: unknown): string {
  const code = cause instanceof Error ? (cause as NodeJS.ErrnoException).code : undefined
  return code ?? (cause instanceof Error ? cause.message : 'unknown')
}

function ignore(): void {
  // The next owner sees the error in `socket.errored`.
}
