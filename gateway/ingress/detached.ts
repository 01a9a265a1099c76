/**
 * Requests that ask for their connection (CONNECT, Upgrade): Node's parser has let go of it, and has no response for them. They
 * are answered all the same, and after an answer the connection goes back to the parser.
 */
import { type IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Door } from './line.ts'

/** A response on the connection that a request came on. Its owner detaches it, or gives the connection back. */
export function replyOn(socket: Socket, req: IncomingMessage): ServerResponse {
  socket.on('error', ignore)
  const reply = new ServerResponse(req)
  reply.shouldKeepAlive = isPersistent(req)
  reply.assignSocket(socket)
  return reply
}

/**
 * After the answer the connection goes back to the HTTP parser: clients retry with credentials on the same one. Not if bytes came
 * that did not wait for the answer: they were meant for the protocol that was asked for, and may be anybody's words. Read as
 * requests they would be asked in the name of whoever has this connection.
 * @param head what came after the request. @param done the answer is out
 */
export function keepServing(door: Door, reply: ServerResponse, head: Buffer, done: () => void = ignore): void {
  const socket = reply.socket
  if (socket === null || reply.destroyed) return
  if (head.length > 0) reply.shouldKeepAlive = false
  const next = (): void => {
    done()
    reply.detachSocket(socket)
    socket.off('error', ignore)
    const isAhead = head.length > 0 || socket.readableLength > 0
    if (isAhead || !reply.shouldKeepAlive || door.isDraining) {
      socket.on('error', ignore)
      socket.destroySoon()
      return
    }
    door.serveHttp(socket, door.lines.get(socket)?.tunnel ?? null)
    const line = door.lines.get(socket)
    if (line !== undefined) line.isUsed = true // nobody who was answered distrusts our certificate
  }
  if (reply.writableFinished) next()
  else reply.once('finish', next)
}

/** RFC 9112 §9.3. */
function isPersistent({ httpVersionMinor, headers }: IncomingMessage): boolean {
  const options = headers.connection ?? headers['proxy-connection']?.toString() ?? ''
  return httpVersionMinor === 1 ? !/\bclose\b/i.test(options) : false
}

/** A client may leave at any time; whoever reads or writes next sees that the socket is destroyed. */
function ignore(): void {}
