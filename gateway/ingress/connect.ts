/**
 * CONNECT (RFC 9110 §9.3.6): settle who is calling on the proxy connection, where a 407 is understood, then see by the first
 * byte whether TLS or cleartext HTTP is inside. Everything else is refused inside, where clients show why (clients.md §0.1).
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { uuidv7 } from '../protocol/id.ts'
import type { Inbound } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import { admitTunnel } from '../request.ts'
import { keepServing, replyOn } from './detached.ts'
import { hasBody, parseCredentials, readFields } from './fields.ts'
import { awaitFirstByte } from './first-bytes.ts'
import { unreadInbound } from './inbound.ts'
import type { Interceptor } from './intercept.ts'
import type { Door, Line, Tunnel } from './line.ts'
import { placeOf } from './place.ts'
import { unprovable } from './proof.ts'
import { draining, turnAway } from './refusal.ts'

/** Browsers open tunnels ahead of need; one that stays silent this long is closed. */
export const SILENCE_MS = 120_000
/** ContentType handshake(22), the first byte of every TLS ClientHello (RFC 8446 §5.1). */
export const TLS_HANDSHAKE = 0x16

const ESTABLISHED = 'HTTP/1.1 200 Connection Established\r\n\r\n'

/** Serve the `connect` event of the listener. Never rejects. */
export async function openTunnel(
  door: Door,
  interceptor: Interceptor,
  req: IncomingMessage,
  [stream, head]: [Duplex, Buffer],
): Promise<void> {
  const socket = req.socket
  const line = door.lines.get(socket)
  // Answers owed to earlier requests would get mixed up with the tunnel's bytes. A wrapped stream means content, which CONNECT has not.
  if (line === undefined || line.busy > 0 || stream !== socket) {
    socket.destroy()
    return
  }
  const reply = replyOn(socket, req)
  const inbound = await admit(door, line, reply)
  if (inbound === undefined) {
    keepServing(door, reply, head)
    return
  }
  reply.detachSocket(socket)
  if (socket.destroyed) return
  socket.write(ESTABLISHED)
  if (head.length > 0) socket.unshift(head)
  const { host, port, presented, proof, client } = inbound
  enterTunnel(door, interceptor, socket, { host, port, presented, proof, ...client })
}

/** The inside of a tunnel that was let in and knows it: TLS or cleartext HTTP, as its first byte says. */
export function enterTunnel(
  door: Door,
  interceptor: Interceptor,
  socket: Socket,
  way: Omit<Tunnel, 'scheme' | 'foreignName'>,
): void {
  awaitFirstByte(socket, SILENCE_MS, ([first]) => {
    const isTls = first === TLS_HANDSHAKE
    const tunnel: Tunnel = { scheme: isTls ? 'https' : 'http', ...way, foreignName: undefined }
    if (isTls) void interceptor.accept(socket, tunnel)
    else door.serveHttp(socket, tunnel)
  })
}

/** @returns what was asked for, or undefined when the refusal has been written. */
async function admit(door: Door, line: Line, reply: ServerResponse): Promise<Inbound | undefined> {
  let inbound: Inbound
  try {
    if (line.tunnel !== null)
      throw new GatewayError(
        'method_refused',
        'CONNECT inside a tunnel is not served. Open a second connection to the gateway.',
      )
    if (line.refusal !== undefined) throw line.refusal
    inbound = connectInbound(door, line, reply)
    if (door.isDraining) throw draining()
    if (inbound.presented?.scheme === 'dpop') throw unprovable()
  } catch (cause) {
    await turnAway(unreadInbound(door, line, reply), cause, door.rooms)
    return undefined
  }
  try {
    return (await admitTunnel(inbound, door.rooms)) ? inbound : undefined
  } catch {
    reply.destroy() // the refusal itself could not be made
    return undefined
  }
}

/** @throws {GatewayError} `request_malformed`, `target_mismatch`. */
function connectInbound(door: Door, line: Line, reply: ServerResponse): Inbound {
  const { req } = reply
  const fields = readFields(req.rawHeaders)
  if (hasBody(fields))
    throw new GatewayError('request_malformed', 'CONNECT has no content (RFC 9110 §9.3.6). Send it without a body.')
  // Host repeats the authority, and clients built on Python's http.client leave it out; what decides is the request target.
  const { host, port } = placeOf(req.url as string, 'https')
  return {
    id: uuidv7(door.nowMs()),
    tenant: door.tenant,
    mode: 'forward',
    method: 'CONNECT',
    scheme: 'https',
    host,
    port,
    rawPath: '',
    rawHeaders: req.rawHeaders,
    hostHeader: fields.host,
    presented: fields.proxyAuthorization === undefined ? null : parseCredentials(fields.proxyAuthorization),
    proof: line.proof,
    client: { address: line.address, userAgent: fields.userAgent },
    body: null,
    reply,
  }
}
