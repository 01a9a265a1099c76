/**
 * HTTP/2 inside an intercepted tunnel, where ALPN agreed on it. One server that never listens is fed with TLS connections;
 * every stream is a request of its own on the one flow. Owns the limits by which a connection that only costs is ended.
 */
import { constants, createServer, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2'
import type { TLSSocket } from 'node:tls'
import type { Inbound } from '../protocol/message.ts'
import { Calm, COST } from './calm.ts'
import { serveInbound } from './desk.ts'
import { fieldValue } from './fields.ts'
import { StreamBody } from './http2-body.ts'
import { MAX_HEAD_BYTES, readHead, readStream, unreadStream } from './http2-inbound.ts'
import { StreamReply } from './http2-reply.ts'
import { type Door, type Line, newLine, type Tunnel } from './line.ts'
import { draining, turnAway } from './refusal.ts'

/** RFC 9113 §6.5.2 wants at least 100. Each costs an upstream stream and up to two windows of memory. */
const MAX_STREAMS = 128
/** Bytes that a client may send on one stream ahead of its upstream. */
const STREAM_WINDOW = 256 * 1024
/** The same for all streams together. Node gives it back at once, so that a stalled stream holds up no other. */
const SESSION_WINDOW = 1024 * 1024
/** Fields of a head. Their bytes are limited before that, but only as the client sends them: packed, one byte may repeat 4 KiB. */
const MAX_FIELDS = 2_048
/** Of our answers: an upstream's head may have 64 KiB, names and lengths add to it. Beyond it nghttp2 gives the connection up. */
const MAX_SENT_HEAD_BYTES = 256 * 1024
/** As long as an idle connection of HTTP/1.1 is kept. */
const IDLE_MS = 120_000
const WATCH_MS = 10_000
/** A client that is sent away has this long to read why. */
const LAST_WORDS_MS = 1_000

/** @returns what has a connection whose next bytes are the preface of HTTP/2. */
export function createHttp2(door: Door): (socket: TLSSocket, tunnel: Tunnel) => void {
  // What is not set is Node's own and nghttp2's limit: at most 8 CONTINUATION frames a head, 1000 frames that are invalid or empty,
  // 100 streams beyond those allowed, 1000 unsent acknowledgements, 32 entries of SETTINGS, 10 MB for all of a session.
  // The extended CONNECT (RFC 8441) stays unoffered: browsers would move their WebSockets onto it.
  const server = createServer({
    maxHeaderListPairs: MAX_FIELDS,
    maxSendHeaderBlockLength: MAX_SENT_HEAD_BYTES,
    strictSingleValueFields: false, // what an upstream repeats is repeated
    settings: {
      maxConcurrentStreams: MAX_STREAMS,
      maxHeaderListSize: MAX_HEAD_BYTES,
      initialWindowSize: STREAM_WINDOW,
    },
  })
  return (socket, tunnel) => {
    const line = newLine(tunnel, tunnel)
    door.lines.set(socket, line)
    socket.once('close', () => door.lines.delete(socket))
    const onSession = (session: ServerHttp2Session) => attend(door, line, tunnel, { session, socket })
    server.on('session', onSession)
    server.emit('connection', socket) // makes the session of this very socket before it returns
    server.off('session', onSession)
  }
}

interface Connection {
  readonly session: ServerHttp2Session
  readonly socket: TLSSocket
}

function attend(door: Door, line: Line, tunnel: Tunnel, { session, socket }: Connection): void {
  line.retire = () => session.close()
  session.setLocalWindowSize(SESSION_WINDOW)
  const calm = new Calm(door.nowMs)
  let isSentAway = false
  const charge = (cost: number): void => {
    if (calm.spend(cost) || isSentAway || session.destroyed) return
    isSentAway = true
    session.goaway(constants.NGHTTP2_ENHANCE_YOUR_CALM) // `destroy` would drop it behind what is still to be written
    setTimeout(() => socket.destroy(), LAST_WORDS_MS).unref()
  }
  session.on('error', () => {}) // it is over, and its streams have been told
  session.on('ping', () => charge(COST.ping))
  session.on('remoteSettings', () => {
    charge(COST.settings)
    line.isUsed = true // our certificate is trusted; Node's WebSocket leaves here for a connection of HTTP/1.1
  })
  session.on('stream', (stream, _headers, flags, raw: readonly string[]) => {
    if (stream.destroyed)
      charge(COST.abandoned) // reset in the same breath
    else
      serveStream(door, line, tunnel, {
        stream,
        hasContent: (flags & constants.NGHTTP2_FLAG_END_STREAM) === 0,
        raw,
        charge,
      })
  })
  closeWhenIdle(session, socket, line)
}

interface Arrival {
  readonly stream: ServerHttp2Stream
  readonly hasContent: boolean
  readonly raw: readonly string[]
  readonly charge: (cost: number) => void
}

/** One request. Never throws, never rejects. */
function serveStream(door: Door, line: Line, tunnel: Tunnel, { stream, hasContent, raw, charge }: Arrival): void {
  const head = readHead(raw)
  const reply = new StreamReply(stream, head.method === 'HEAD')
  line.isUsed = true
  line.busy += 1
  stream.on('error', () => {}) // `close` follows
  stream.on('close', () => {
    line.busy -= 1
    if (!reply.isOver) charge(COST.abandoned)
  })
  const asksFirst = fieldValue(head.rawHeaders, 'expect')?.toLowerCase() === '100-continue'
  const arrived = { head, body: hasContent ? new StreamBody(stream, asksFirst) : null, reply }
  let inbound: Inbound
  try {
    inbound = readStream(door, line, tunnel, arrived)
  } catch (cause) {
    void turnAway(unreadStream(door, line, tunnel, arrived), cause, door.rooms)
    return
  }
  if (door.isDraining) void turnAway(inbound, draining(), door.rooms)
  else serveInbound(door, inbound).catch(() => reply.destroy())
}

/** Also ends a connection that is over, but whose client reads nothing of its end. */
function closeWhenIdle(session: ServerHttp2Session, socket: TLSSocket, line: Line): void {
  let idleForMs = 0
  session.on('stream', () => {
    idleForMs = 0
  })
  const timer = setInterval(() => {
    idleForMs = line.busy === 0 ? idleForMs + WATCH_MS : 0
    if (session.destroyed) socket.destroy()
    else if (idleForMs > IDLE_MS) session.close()
  }, WATCH_MS)
  timer.unref()
  socket.once('close', () => clearInterval(timer))
}
