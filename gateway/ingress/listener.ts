/**
 * The proxy door: one port that takes every shape clients really send (clients.md §0.6). Owns the HTTP server, which also
 * parses what comes out of tunnels, knows every connection, and drains. What a request means is settled elsewhere.
 */
import type { Server } from 'node:http'
import { Server as NetServer, type Socket } from 'node:net'
import type { Clock } from '../protocol/clock.ts'
import type { Desk } from '../protocol/desk.ts'
import type { Service } from '../protocol/service.ts'
import { formatAuthority } from '../protocol/target.ts'
import type { RequestRooms } from '../request-rooms.ts'
import { type AcceptParts, accept } from './accept.ts'
import type { CertificateAuthority } from './certificate.ts'
import { type Closures, cutClosedTunnels } from './closures.ts'
import { openTunnel } from './connect.ts'
import { createHttp2 } from './http2.ts'
import { createInterceptor, type Interceptor, type TlsComplaint } from './intercept.ts'
import { type Door, newLine, type Peer, type Proofs, type Tunnel } from './line.ts'
import { createHttpServer, onBrokenRequest } from './parser.ts'
import { createAnnouncers } from './proxy-protocol.ts'
import { continueOnFirstRead, serve } from './serve.ts'
import { openSocks } from './socks.ts'
import { createSecureDoor, type ProxyTls, type SecureDoor, type VerifyClient } from './tls.ts'
import { openUpgrade } from './upgrade.ts'

export interface ProxyDoorParts {
  readonly host: string
  /** 0 takes a free one. */
  readonly port: number
  readonly tenant: string
  readonly rooms: RequestRooms
  /** Default: agents cannot ask the gateway itself here. */
  readonly desk?: Desk
  route(name: string): Service | undefined
  readonly authority: CertificateAuthority
  readonly clock: Clock
  /** Where agents find this door. Default: http:// or https:// and the address that is listened on. */
  readonly url?: string
  /** Connections at once; beyond, the oldest idle one makes room. Default 10,000. */
  readonly maxConnections?: number
  /** Default: grants that are bound to a key cannot be used here. */
  readonly proofs?: Proofs
  /** Default: plain HTTP. */
  readonly tls?: ProxyTls
  /** Whether a client's certificate is believed. Default: none is. */
  readonly verifyClient?: VerifyClient
  /** CIDR ranges of balancers that announce whose connection it is, and must. Default: nobody may. */
  readonly announcedBy?: readonly string[]
  /** Default: nothing is ever blocked for everybody. */
  readonly closures?: Closures
  /** A client's TLS handshake failed; once per host and reason. Default: a process warning. */
  onTlsError?(complaint: TlsComplaint): void
}

export interface ProxyDoor {
  readonly port: number
  /**
   * Stop accepting, close idle connections and tunnels at once, give requests in flight `graceMs` to finish, cut the rest.
   * Resolves when every connection is closed. Idempotent.
   */
  drain(graceMs: number): Promise<void>
}

/** @throws {Error} naming the setting, such as when the address is taken. */
export async function openProxyDoor(parts: ProxyDoorParts): Promise<ProxyDoor> {
  const { server, parse } = createHttpServer()
  const door: Door = {
    tenant: parts.tenant,
    rooms: parts.rooms,
    desk: parts.desk,
    route: parts.route,
    nowMs: () => parts.clock.nowMs(),
    proofs: parts.proofs,
    url: '',
    port: 0,
    isDraining: false,
    lines: new Map(),
    hold: (socket, peer) => addLine(door, socket, null, peer),
    serveHttp(socket, tunnel) {
      if (tunnel !== null) addLine(door, socket, tunnel, tunnel)
      parse(socket)
      socket.resume()
    },
  }
  const onTlsError = parts.onTlsError ?? (({ text }) => process.emitWarning(text, 'KeylessTlsWarning'))
  const interceptor = openInterceptor(door, parts.authority, onTlsError)
  const secure = openSecureDoor(door, parts, onceEach(onTlsError))
  server.on('connection', acceptor(parts, { door, interceptor, secure, onTlsError: onceEach(onTlsError) }))
  server.on('request', (_req, reply) => serve(door, reply))
  server.on('checkContinue', (req, reply) => {
    continueOnFirstRead(req, reply)
    serve(door, reply)
  })
  server.on('connect', (req, stream, head) => void openTunnel(door, interceptor, req, [stream, head]))
  server.on('upgrade', (req, stream, head) => openUpgrade(door, req, [stream, head]))
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => onBrokenRequest(door, error, socket as Socket))
  if (parts.closures !== undefined) cutClosedTunnels(door, parts.closures)
  door.port = await listen(server, parts)
  const scheme = parts.tls === undefined ? 'http' : 'https'
  door.url = parts.url ?? `${scheme}://${formatAuthority({ host: parts.host, port: door.port })}`
  let drained: Promise<void> | undefined
  return {
    port: door.port,
    drain(graceMs) {
      secure?.close()
      drained ??= drain(door, server, graceMs)
      return drained
    },
  }
}

function openInterceptor(
  door: Door,
  authority: CertificateAuthority,
  onTlsError: (complaint: TlsComplaint) => void,
): Interceptor {
  const serveHttp2 = createHttp2(door)
  const interceptor = createInterceptor({
    authority,
    nowMs: door.nowMs,
    onSecure(raw, secure, tunnel) {
      door.lines.delete(raw) // from here on the connection is its TLS side
      if (secure.alpnProtocol === 'h2') serveHttp2(secure, tunnel)
      else door.serveHttp(secure, tunnel)
      secure.prependOnceListener('close', () => {
        if (door.lines.get(secure)?.isUsed === false && !door.isDraining) interceptor.sawNoRequest(tunnel)
      })
    },
    onTlsError,
  })
  return interceptor
}

function openSecureDoor(
  door: Door,
  { tls, verifyClient }: ProxyDoorParts,
  onTlsError: (complaint: TlsComplaint) => void,
): SecureDoor | undefined {
  if (tls === undefined) return undefined
  return createSecureDoor({
    tls,
    verifyClient: verifyClient ?? (async () => undefined),
    onSecure(raw, secure, peer) {
      door.lines.delete(raw)
      if (secure.destroyed) return
      door.hold(secure, peer)
      door.serveHttp(secure, null)
    },
    onTlsError,
  })
}

type AcceptRooms = Pick<AcceptParts, 'door' | 'secure' | 'onTlsError'> & { readonly interceptor: Interceptor }

function acceptor(
  { tls, announcedBy, maxConnections = 10_000 }: ProxyDoorParts,
  rooms: AcceptRooms,
): (socket: Socket) => void {
  const { door, interceptor } = rooms
  const parts: AcceptParts = {
    ...rooms,
    maxConnections,
    announcers: announcedBy && createAnnouncers(announcedBy),
    isPlainLocally: tls?.require === undefined,
    openSocks: (socket) => void openSocks(door, interceptor, socket),
  }
  return (socket) => accept(parts, socket)
}

/** Clients that cannot do TLS come again and again; what is wrong is said once. */
function onceEach(report: (complaint: TlsComplaint) => void): (complaint: TlsComplaint) => void {
  const said = new Set<string>()
  return (complaint) => {
    if (said.has(complaint.code)) return
    said.add(complaint.code)
    report(complaint)
  }
}

function listen(server: Server, { host, port }: ProxyDoorParts): Promise<number> {
  return new Promise((resolve, reject) => {
    const refused = (cause: Error) => {
      const what = `The proxy door cannot listen on ${host}:${port}: ${cause.message}.`
      const remedy = 'Is another program there? Name a free port with the setting listen.proxy, as in 127.0.0.1:8180.'
      reject(new Error(`${what} ${remedy}`, { cause }))
    }
    server.once('error', refused)
    server.listen({ host, port, backlog: 1024 }, () => {
      server.off('error', refused)
      server.on('error', () => {}) // e.g. EMFILE on accept: connections that are there go on
      const address = server.address()
      resolve(typeof address === 'object' && address !== null ? address.port : port)
    })
  })
}

function addLine(door: Door, socket: Socket, tunnel: Tunnel | null, peer: Peer): void {
  const isKnown = door.lines.has(socket)
  door.lines.set(socket, newLine(tunnel, peer))
  if (!isKnown) socket.once('close', () => door.lines.delete(socket))
}

async function drain(door: Door, server: Server, graceMs: number): Promise<void> {
  door.isDraining = true
  // `net`'s close, because `http`'s also destroys connections whose last bytes are still being written.
  NetServer.prototype.close.call(server)
  for (const [socket, line] of door.lines) {
    if (line.retire !== undefined) line.retire()
    else if (line.busy === 0) socket.destroySoon()
  }
  const deadline = setTimeout(() => {
    for (const socket of door.lines.keys()) socket.destroy()
  }, graceMs)
  await Promise.all([...door.lines.keys()].map(closed))
  clearTimeout(deadline)
  server.close() // also stops the parser's timeout checks
}

function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    if (socket.destroyed) resolve()
    else socket.once('close', () => resolve())
  })
}
