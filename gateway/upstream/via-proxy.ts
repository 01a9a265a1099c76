/**
 * The way out through a proxy that is not ours (RFC 9110 §9.3.6): which targets take it, what is said to that proxy, and what its
 * answer means. It resolves names in our place, so what can be told from a name or a literal address is judged before. It sees
 * neither requests nor credentials of TLS upstreams, and its own words never reach an agent.
 */
import { isIP, type Socket } from 'node:net'
import { cidrContains, parseAddress, parseCidr } from '../protocol/cidr.ts'
import { GatewayError } from '../protocol/problem.ts'
import { formatAuthority, type HostPort } from '../protocol/target.ts'
import { type Patience, within } from './opened.ts'

export interface UpstreamProxy extends HostPort {
  readonly scheme: 'http' | 'https'
  /** Value of Proxy-Authorization for this proxy alone. Undefined: it asks for none. */
  readonly authorization: string | undefined
  /** Lower case: names, `.suffix` for everything below it, addresses and CIDR ranges for targets written as addresses. */
  readonly noProxy: readonly string[]
  /** Roots in PEM for an https proxy, trusted besides the system's. */
  readonly ca: readonly string[]
}

/** A proxy that refuses may send a page with its head; nobody reads it. */
const MAX_ANSWER_BYTES = 64 * 1024

/** Whether a target is dialled here, without the proxy: listed, or this machine itself, which is another one for the proxy. */
export function goesDirect(host: string, noProxy: readonly string[]): boolean {
  if (isIP(host) === 0) {
    if (host === 'localhost' || host.endsWith('.localhost')) return true
    return noProxy.some((entry) => entry === host || (entry.startsWith('.') && host.endsWith(entry)))
  }
  const address = parseAddress(host)
  if (address === undefined) return false
  return [...LOOPBACK, ...noProxy].some((entry) => {
    const range = parseCidr(entry.includes('/') ? entry : `${entry}/${entry.includes(':') ? 128 : 32}`)
    return range !== undefined && cidrContains(range, address)
  })
}

const LOOPBACK = ['127.0.0.0/8', '::1/128']

/**
 * Ask the proxy for a connection, and wait until it is there.
 * @param place where it leads, as asked for. @param socket connected to the proxy; bytes after its answer stay unread.
 * @throws {GatewayError} `upstream_proxy`, `upstream_refused`, `upstream_timeout`; anything else is the socket's
 */
export async function askProxy(socket: Socket, proxy: UpstreamProxy, place: HostPort, o: Patience): Promise<void> {
  const authority = formatAuthority(place)
  const credentials = proxy.authorization === undefined ? '' : `Proxy-Authorization: ${proxy.authorization}\r\n`
  socket.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n${credentials}\r\n`)
  const status = await within<number>(socket, o, (done) => readStatus(socket, done))
  if (status >= 200 && status < 300) return
  socket.destroy()
  throw refusalOf(status, authority)
}

/** Calls `done` with the status of the answer, 0 for what is none. @returns what stops it. */
function readStatus(socket: Socket, done: (status: number) => void): () => void {
  let seen: Buffer = Buffer.alloc(0)
  // Not by `data`: that would leave the socket flowing or paused for its next owner.
  const look = (): void => {
    seen = Buffer.concat([seen, socket.read() ?? NOTHING])
    const end = seen.indexOf('\r\n\r\n')
    if (end === -1 && seen.length < MAX_ANSWER_BYTES) return
    const [, status = '0'] = /^HTTP\/1\.[01] (\d{3})[ \r]/.exec(seen.toString('latin1', 0, 16)) ?? []
    done(end === -1 ? 0 : Number(status))
    if (end !== -1 && end + 4 < seen.length) socket.unshift(seen.subarray(end + 4))
  }
  socket.on('readable', look)
  return () => socket.off('readable', look)
}

const NOTHING = Buffer.alloc(0)

function refusalOf(status: number, authority: string): GatewayError {
  const who = 'The proxy on the way out (upstream.proxy)'
  if (status === 504) return new GatewayError('upstream_timeout', `${who} did not reach ${authority} in time (504).`)
  if (status >= 500) return new GatewayError('upstream_refused', `${who} could not reach ${authority} (${status}).`)
  if (status === 407)
    return new GatewayError(
      'upstream_proxy',
      `${who} does not accept the credentials of upstream.proxy.url, or asks for some where there are none (407). Correct them.`,
    )
  if (status >= 400)
    return new GatewayError(
      'upstream_proxy',
      `${who} does not let us reach ${authority} (${status}). Have it allow CONNECT to that place, or list the host under upstream.proxy.no_proxy.`,
    )
  return new GatewayError(
    'upstream_proxy',
    `${who} did not answer CONNECT as an HTTP proxy does. Check upstream.proxy.url.`,
  )
}

/** What went wrong between us and the proxy, told without naming it: where it is, is nobody's business outside. */
export function proxyFailure(cause: unknown): unknown {
  if (!(cause instanceof GatewayError)) return cause
  const what = FAILURES[cause.code]
  if (what === undefined) return cause
  return new GatewayError(cause.code, `The proxy on the way out (upstream.proxy) ${what}`, { cause })
}

const FAILURES: Partial<Record<GatewayError['code'], string>> = {
  address_forbidden: 'is at an address that is never reachable. Check upstream.proxy.url.',
  upstream_unresolved: 'could not be resolved.',
  upstream_refused: 'could not be reached.',
  upstream_timeout: 'did not answer in time.',
  upstream_tls: 'did not prove its identity. Check upstream.proxy.url and upstream.proxy.ca.',
}
