/**
 * Ends the TLS of a tunnel with a leaf for the host that CONNECT named. One TLS server per host, fed with raw sockets, so that
 * session tickets and handshake errors are Node's business; they never listen.
 */
import { Socket } from 'node:net'
import { createServer, type Server, type TLSSocket } from 'node:tls'
import type { CertificateAuthority } from './certificate.ts'
import type { Tunnel } from './line.ts'

/** A TLS handshake that failed, for the operator. Once per host and reason. */
export interface TlsComplaint {
  readonly host: string
  /** OpenSSL or Node error code. */
  readonly code: string
  readonly userAgent: string | undefined
  /** What happened and what to do about it. */
  readonly text: string
}

export interface Interceptor {
  /** Take over a raw connection whose next bytes are a ClientHello. Never rejects: a connection that cannot be served is closed. */
  accept(raw: Socket, tunnel: Tunnel): Promise<void>
  /** The client ended a connection after its handshake and before any request: the way of some, Node among them, to distrust. */
  sawNoRequest(tunnel: Tunnel): void
}

interface InterceptorParts {
  readonly authority: CertificateAuthority
  nowMs(): number
  /** The handshake is over; `tunnel.foreignName` is set if the client named another host in it. */
  onSecure(raw: Socket, secure: TLSSocket, tunnel: Tunnel): void
  onTlsError(complaint: TlsComplaint): void
}

interface HostServer {
  readonly server: Server
  readonly renewAtMs: number
  /** Of the authority when the leaf was issued. */
  readonly generation: number
}

/** Offered protocols, best first. */
const ALPN = ['h2', 'http/1.1']
const MAX_HOSTS = 512
const HANDSHAKE_TIMEOUT_MS = 20_000
const MAX_COMPLAINTS = 1024

export function createInterceptor(parts: InterceptorParts): Interceptor {
  /** host → its server; insertion order is order of use, oldest first. */
  const servers = new Map<string, Promise<HostServer>>()
  /** raw socket → the tunnel whose handshake it is in */
  const handshakes = new WeakMap<Socket, Tunnel>()
  const complain = complainer(parts.onTlsError)

  async function open(host: string): Promise<HostServer> {
    const { generation } = parts.authority
    const { key, cert, renewAtMs } = parts.authority.issueLeaf(host)
    const server = createServer({
      key,
      cert,
      ALPNProtocols: ALPN,
      minVersion: 'TLSv1.2',
      handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
    })
    server.on('secureConnection', (secure) => {
      const raw = rawOf(secure)
      const tunnel = raw && handshakes.get(raw)
      if (raw === undefined || tunnel === undefined) {
        secure.destroy() // whose connection this is cannot be told: nobody is served
        return
      }
      parts.onSecure(raw, secure, { ...tunnel, foreignName: foreignName(secure, host) })
    })
    server.on('tlsClientError', (error: NodeJS.ErrnoException, secure) => {
      const raw = rawOf(secure)
      complain(error, host, (raw && handshakes.get(raw))?.userAgent)
      secure.destroy()
    })
    return { server, renewAtMs, generation }
  }

  /** The host's server, made anew when its leaf is due; at most one is being made at a time. */
  async function serverOf(host: string): Promise<Server> {
    const before = servers.get(host)
    if (before !== undefined) {
      const { server, renewAtMs, generation } = await before
      if (parts.nowMs() < renewAtMs && generation === parts.authority.generation) {
        servers.delete(host)
        servers.set(host, before)
        return server
      }
    }
    const making = servers.get(host)
    if (making !== undefined && making !== before) return (await making).server
    const made = open(host)
    servers.delete(host)
    servers.set(host, made)
    made.catch(() => servers.delete(host))
    if (servers.size > MAX_HOSTS) servers.delete(leastWanted())
    return (await made).server
  }

  /** The oldest host of no service, so that whoever names thousands of those takes no leaf from anybody else. */
  function leastWanted(): string {
    for (const host of servers.keys()) if (!parts.authority.serves(host)) return host
    const [oldest = ''] = servers.keys()
    return oldest
  }

  return {
    async accept(raw, tunnel) {
      handshakes.set(raw, tunnel)
      raw.allowHalfOpen = false // a client that ends its side in the handshake is gone
      try {
        const server = await serverOf(tunnel.host)
        if (!raw.destroyed) server.emit('connection', raw)
      } catch (cause) {
        // Without a certificate there is no TLS to answer in, and never a bare tunnel.
        complain(cause as Error, tunnel.host, tunnel.userAgent)
        raw.destroy()
      }
    },
    sawNoRequest({ host, userAgent }) {
      complain(NO_REQUEST, host, userAgent)
    },
  }
}

/** `_parent` is the raw socket that Node wrapped. It is the connection's identity, so nothing less exact will do (ports are reused). */
export function rawOf(secure: TLSSocket): Socket | undefined {
  const parent = (secure as TLSSocket & { readonly _parent?: unknown })._parent
  return parent instanceof Socket ? parent : undefined
}

/** RFC 6066 §3: SNI is a DNS name without trailing dot, and absent for IP literals. */
function foreignName(secure: TLSSocket, host: string): string | undefined {
  const { servername } = secure as TLSSocket & { readonly servername?: string | false | null }
  if (!servername) return undefined
  const name = servername.toLowerCase().replace(/\.$/, '')
  return name === host ? undefined : JSON.stringify(name.slice(0, 80))
}

const NO_REQUEST = Object.assign(new Error('closed after the handshake'), { code: 'NO_REQUEST' })

/** Alerts by which clients say that they do not trust the certificate, and the silent ways (clients.md §1, CONNECT wire facts). */
const DISTRUST = /UNKNOWN_CA|BAD_CERTIFICATE|CERTIFICATE_UNKNOWN/
const HUNG_UP = /ECONNRESET|NO_REQUEST/
const TRUST_REMEDY =
  'Start it with "keyless run", or point it at the gateway\'s ca.pem: SSL_CERT_FILE, NODE_EXTRA_CA_CERTS, REQUESTS_CA_BUNDLE, GIT_SSL_CAINFO or its own setting. For a host of no service the ca.pem on disk is not enough: docs/ca.md.'

function complainer(report: (complaint: TlsComplaint) => void) {
  const reported = new Set<string>()
  return (error: NodeJS.ErrnoException, host: string, userAgent: string | undefined): void => {
    const code = error.code ?? error.name
    const key = `${host} ${code}`
    if (reported.has(key)) return
    if (reported.size >= MAX_COMPLAINTS) reported.clear()
    reported.add(key)
    const who = userAgent === undefined ? 'A client' : `The client ${JSON.stringify(userAgent.slice(0, 120))}`
    // It is read at a terminal, which obeys control characters; JSON.stringify leaves those beyond ASCII as they are.
    const text = `${who} ${whatHappened(error, code, host)}`.replaceAll(/[^\x20-\x7e]/g, '?')
    report({ host, code, userAgent, text })
  }
}

function whatHappened({ message }: Error, code: string, host: string): string {
  if (DISTRUST.test(code)) return `does not trust the gateway's certificate for ${host} (${code}). ${TRUST_REMEDY}`
  if (HUNG_UP.test(code))
    return `ended TLS for ${host} before any request, as if it did not trust the gateway's certificate (${code}). ${TRUST_REMEDY}`
  return `could not set up TLS for ${host} (${code}): ${message.trim()}`
}
