/**
 * A new connection at the proxy door: who it says it is (PROXY protocol), and by its first byte what it speaks: TLS, SOCKS5, or
 * else HTTP/1.1. One look at each connection, none at its requests.
 */
import type { Socket } from 'node:net'
import { SILENCE_MS, TLS_HANDSHAKE } from './connect.ts'
import { awaitFirstByte, FirstBytes } from './first-bytes.ts'
import type { TlsComplaint } from './intercept.ts'
import type { Door, Peer } from './line.ts'
import { type Announcers, isAnnouncement, readAnnouncement } from './proxy-protocol.ts'
import { endWith, writeBadRequest } from './refusal.ts'
import type { SecureDoor } from './tls.ts'

export interface AcceptParts {
  readonly door: Door
  /** Whose announcement is required. Undefined: nobody may announce. */
  readonly announcers: Announcers | undefined
  /** Undefined: the door speaks plain HTTP. */
  readonly secure: SecureDoor | undefined
  /** Connections at once. */
  readonly maxConnections: number
  /** Whether programs on this machine may speak plainly to a door that has TLS. */
  readonly isPlainLocally: boolean
  openSocks(socket: Socket): void
  onTlsError(complaint: TlsComplaint): void
}

/** First byte of SOCKS5 (RFC 1928 §3). */
const SOCKS5 = 5
const SOCKS_NO_ACCEPTABLE_METHODS = Buffer.from([SOCKS5, 0xff])
/** A balancer sends its announcement at once. */
const ANNOUNCEMENT_MS = 5_000

/** Serve a raw connection. Never throws. */
export function accept(parts: AcceptParts, socket: Socket): void {
  socket.on('error', ignore)
  const address = plainAddress(socket.remoteAddress ?? '')
  if (parts.door.lines.size >= parts.maxConnections && !makeRoom(parts.door)) {
    parts.door.rooms.audit.turnedAway?.('connections')
    socket.destroy()
    return
  }
  parts.door.hold(socket, { address })
  if (parts.announcers?.has(address)) void takeAnnouncement(parts, socket, address)
  else awaitFirstByte(socket, SILENCE_MS, (seen) => begin(parts, socket, seen))
}

/**
 * A flood of connections that ask nothing, or come without a grant, must not keep out those who work: the oldest connection on
 * which nothing is under way has to go. Whose it is does not count: behind a balancer all have one address.
 */
function makeRoom({ lines }: Door): boolean {
  for (const [socket, { busy }] of lines) {
    if (busy > 0) continue
    lines.delete(socket)
    socket.destroy()
    return true
  }
  return false
}

async function takeAnnouncement(parts: AcceptParts, socket: Socket, balancer: string): Promise<void> {
  const bytes = new FirstBytes(socket, ANNOUNCEMENT_MS)
  try {
    const announced = await readAnnouncement(bytes)
    bytes.release()
    parts.door.hold(socket, { address: announced === undefined ? balancer : plainAddress(announced) })
    awaitFirstByte(socket, SILENCE_MS, (seen) => begin(parts, socket, seen))
  } catch (cause) {
    bytes.release()
    const why = `${balancer} has to send a PROXY protocol header first (listen.proxy_protocol): ${(cause as Error).message}.`
    if (!socket.destroyed) turnAway(parts, socket, why)
  }
}

function begin(parts: AcceptParts, socket: Socket, seen: Buffer): void {
  const { door, secure } = parts
  const line = door.lines.get(socket)
  if (line === undefined) return
  const [first] = seen
  if (first === TLS_HANDSHAKE) {
    if (secure !== undefined) secure.accept(socket, line)
    else refuseTls(parts, socket)
    return
  }
  const isPlain = secure === undefined || (parts.isPlainLocally && isLoopback(line))
  if (first === SOCKS5) {
    if (isPlain) parts.openSocks(socket)
    else {
      door.rooms.audit.turnedAway?.('protocol')
      endWith(socket, SOCKS_NO_ACCEPTABLE_METHODS)
    }
  } else if (!isPlain) turnAway(parts, socket, SPEAKS_TLS)
  else if (isAnnouncement(seen)) turnAway(parts, socket, unlisted(line))
  else door.serveHttp(socket, null)
}

const SPEAKS_TLS = 'This door speaks TLS: use https:// in the proxy URL, as in https://task:handle@host:port.'

/** Plain HTTP is what clients show best of all that is not TLS: Go says what it got, and OpenSSL that it was no TLS. */
function refuseTls(parts: AcceptParts, socket: Socket): void {
  const text =
    'This door speaks plain HTTP: use http:// in the proxy URL. For TLS to the proxy, set listen.proxy_tls in the settings.'
  parts.onTlsError({ host: 'listen.proxy', code: 'NO_TLS', userAgent: undefined, text: `A client tried TLS. ${text}` })
  turnAway(parts, socket, text)
}

/** It speaks what is not spoken here. */
function turnAway({ door }: AcceptParts, socket: Socket, why: string): void {
  door.rooms.audit.turnedAway?.('protocol')
  writeBadRequest(socket, why)
}

function unlisted({ address }: Peer): string {
  return `A PROXY protocol header is not taken from ${address}. Add that address to listen.proxy_protocol.from, or do not send the header.`
}

function isLoopback({ address }: Peer): boolean {
  return address.startsWith('127.') || address === '::1'
}

/** IPv4 as IPv4, also where a dual-stack socket or a balancer shows it as IPv6. */
function plainAddress(address: string): string {
  return address.startsWith('::ffff:') && address.includes('.') ? address.slice('::ffff:'.length) : address
}

/** A client may leave at any time; whoever reads or writes next sees that the socket is destroyed. */
function ignore(): void {}
