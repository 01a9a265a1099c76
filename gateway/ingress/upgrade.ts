/**
 * WebSocket handshakes (RFC 6455 §4.2) on their way into the flow: decided like every request, refused like every request, and
 * only when the upstream has switched is the connection handed over.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Inbound, RawHeaders, Upgrade } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import { acceptOf } from '../protocol/websocket.ts'
import { keepServing, replyOn } from './detached.ts'
import { readInbound, unreadInbound } from './inbound.ts'
import type { Door } from './line.ts'
import { draining, turnAway } from './refusal.ts'
import { enter } from './serve.ts'

/** A peer that vanished without a word is looked for after so long; nothing else ends a silent WebSocket before its grant does. */
const KEEP_ALIVE_MS = 60_000
/** 16 bytes in base64. */
const KEY = /^[A-Za-z0-9+/]{21}[AQgw]==$/

/**
 * Whether a request is to be taken for a handshake. Other offers (`h2c` would carry requests past the flow) are ignored, and the
 * request is served (RFC 9110 §7.8).
 */
export function isHandshake({ method, headers }: IncomingMessage): boolean {
  // Java says that there is none: `Content-Length: 0`.
  const hasContent = (headers['content-length'] ?? '0') !== '0' || headers['transfer-encoding'] !== undefined
  return method === 'GET' && !hasContent && headers.upgrade?.trim().toLowerCase() === 'websocket'
}

/** Serve the `upgrade` event of the listener. Never throws, never rejects. */
export function openUpgrade(door: Door, req: IncomingMessage, [stream, head]: [Duplex, Buffer]): void {
  const { socket } = req
  const line = door.lines.get(socket)
  // Answers owed to earlier requests would get mixed up with the frames. A wrapped stream means content, which there is not.
  if (line === undefined || line.busy > 0 || stream !== socket) {
    socket.destroy()
    return
  }
  const reply = replyOn(socket, req)
  line.busy += 1
  line.isUsed = true
  line.reply = reply
  const stop = noticeLeaving(socket)
  keepServing(door, reply, head, () => {
    stop()
    line.busy -= 1
  })
  let inbound: Inbound
  try {
    inbound = { ...readInbound(door, line, reply), upgrade: upgradeOf(reply, socket, { head, stop }) }
    if (door.isDraining) throw draining()
  } catch (cause) {
    reply.shouldKeepAlive = false
    void turnAway(unreadInbound(door, line, reply), cause, door.rooms)
    return
  }
  enter(door, inbound, reply)
}

/**
 * Nobody reads the connection until it is accepted, and that may take a human: a client that leaves meanwhile has to be noticed. What it
 * sends ahead stays where it is. @returns stops.
 */
function noticeLeaving(socket: Socket): () => void {
  const look = () => {
    if (socket.readableLength === 0) socket.read(0)
  }
  const gone = () => socket.destroy()
  socket.on('readable', look).once('end', gone)
  return () => socket.off('readable', look).off('end', gone)
}

interface Handover {
  /** What came behind the handshake. */
  readonly head: Buffer
  /** Of `noticeLeaving`. */
  stop(): void
}

/** @throws {GatewayError} `upgrade_refused`, `request_malformed` */
function upgradeOf(reply: ServerResponse, socket: Socket, { head, stop }: Handover): Upgrade {
  const { headers, httpVersionMinor } = reply.req
  const version = headers['sec-websocket-version']
  if (version !== '13' || httpVersionMinor !== 1)
    throw new GatewayError(
      'upgrade_refused',
      'WebSocket is carried in version 13 over HTTP/1.1 (RFC 6455), and no other.',
    )
  const key = headers['sec-websocket-key'] ?? ''
  if (!KEY.test(key))
    throw new GatewayError(
      'request_malformed',
      'Sec-WebSocket-Key is not 16 bytes in base64 (RFC 6455 §4.1). Send one.',
    )
  return {
    protocol: 'websocket',
    accept(fields) {
      stop()
      reply.detachSocket(socket)
      socket.write(switching(key, fields), 'latin1')
      if (head.length > 0) socket.unshift(head)
      socket.setTimeout(0)
      socket.setKeepAlive(true, KEEP_ALIVE_MS)
      return socket
    },
  }
}

function switching(key: string, fields: RawHeaders): string {
  let text = `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${acceptOf(key)}\r\n`
  for (let i = 0; i + 1 < fields.length; i += 2) text += `${fields[i]}: ${fields[i + 1]}\r\n`
  return `${text}\r\n`
}
