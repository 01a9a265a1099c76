/** One request on its way from the parser into the flow, whichever way it came: counted on its line, read, and handed over. */
import { IncomingMessage, type ServerResponse } from 'node:http'
import type { Inbound } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import { atEndOfTurn } from '../protocol/turn.ts'
import { serveInbound } from './desk.ts'
import { readInbound, unreadInbound } from './inbound.ts'
import type { Door } from './line.ts'
import { isProvable, serveProved } from './proof.ts'
import { draining, turnAway } from './refusal.ts'

/** Requests on one connection that wait for their answer. Clients send one; each costs a socket upstream, so it must not be free. */
const MAX_UNANSWERED = 64

/** One request, whichever way it came. Never throws, never rejects. */
export function serve(door: Door, reply: ServerResponse): void {
  const { req } = reply
  const line = door.lines.get(req.socket)
  if (line === undefined) {
    reply.destroy() // its connection is closing
    return
  }
  if (line.busy >= MAX_UNANSWERED) {
    door.rooms.audit.turnedAway?.('unanswered')
    req.socket.destroy() // the answers before this one would have to come first, and the flood goes on meanwhile
    return
  }
  // RFC 9112 §9.6: the connection ends with the answer that is under way. Nobody would learn what became of this request.
  if (line.reply?.shouldKeepAlive === false) return
  // After an offer that is not taken Node's parser drops what came with it and reads what comes later: no request is whole any more.
  if (req.headers.upgrade !== undefined) reply.shouldKeepAlive = false
  line.busy += 1
  line.isUsed = true
  line.reply = reply
  reply.on('close', () => {
    line.busy -= 1
    if (door.isDraining && line.busy === 0) req.socket.destroySoon()
  })
  let inbound: Inbound
  try {
    inbound = readInbound(door, line, reply)
  } catch (cause) {
    // RFC 9112 §6.1: where its framing is in doubt, so is where the next request begins.
    if (req.httpVersion !== '1.1' || req.headers['transfer-encoding'] !== undefined) reply.shouldKeepAlive = false
    void turnAway(unreadInbound(door, line, reply), cause, door.rooms)
    return
  }
  const refusal = door.isDraining ? draining() : isWebSocket(req) ? upgradeRefused() : undefined
  if (refusal !== undefined) void turnAway(inbound, refusal, door.rooms)
  else enter(door, inbound, reply)
}

/** Into the flow, proofs verified first. Never throws, never rejects. */
export function enter(door: Door, inbound: Inbound, reply: ServerResponse): void {
  if (isProvable(inbound)) void serveProved(door, inbound, reply)
  else arrive({ door, inbound, reply })
}

const arrive = atEndOfTurn(({ door, inbound, reply }: Arrival) => {
  serveInbound(door, inbound).catch(() => reply.destroy())
})

interface Arrival {
  readonly door: Door
  readonly inbound: Inbound
  readonly reply: ServerResponse
}

/** RFC 9110 §7.8: an offer to upgrade may be ignored; a WebSocket client depends on it, and must hear that it is not taken. */
function isWebSocket({ headers: { upgrade } }: IncomingMessage): boolean {
  return upgrade !== undefined && /\bwebsocket\b/i.test(upgrade)
}

function upgradeRefused(): GatewayError {
  return new GatewayError(
    'upgrade_refused',
    'A WebSocket handshake is a GET without content and with `Connection: Upgrade` (RFC 6455 §4.1). Send it so, or without `Upgrade`.',
  )
}

/**
 * `Expect: 100-continue`: the body is asked for when somebody reads it, which is after the call was allowed and while it is
 * sent upstream. A refusal therefore goes out before the client has sent anything.
 */
export function continueOnFirstRead(req: IncomingMessage, reply: ServerResponse): void {
  req._read = (size) => {
    req._read = IncomingMessage.prototype._read
    if (!reply.headersSent && !reply.destroyed && req.readableLength === 0) reply.writeContinue()
    req._read(size)
  }
}
