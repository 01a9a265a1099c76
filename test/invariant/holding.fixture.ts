/**
 * An upstream over HTTP/1.1 and HTTP/2, with TLS and without, that holds its answers back, and knows how many calls it is
 * working on: `/ok` answers; `/silent` never does; `/half` and `/events` begin to; `/deaf` does not read; `/chat` is a WebSocket.
 */
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createSecureServer, type Http2ServerRequest, type Http2ServerResponse } from 'node:http2'
import type { AddressInfo, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { throwAwayTls } from '../../deploy/demo/certificate.ts'
import { acceptOf } from '../../gateway/protocol/websocket.ts'

export interface Holding {
  readonly tlsPort: number
  readonly cleartextPort: number
  readonly caPem: string
  /** Calls that arrived so far, by path; over HTTP/2 as `2 /path`. */
  readonly arrived: ReadonlyMap<string, number>
  /** Calls that are under way. */
  readonly open: number
  /** Connections that are open. */
  readonly connections: number
  /** Read what `/deaf` left unread. */
  listen(): void
  stop(): Promise<void>
}

type Request = IncomingMessage | Http2ServerRequest
type Response = ServerResponse | Http2ServerResponse

const PIECE = Buffer.alloc(64 * 1024, 'x')

export async function openHolding(names: readonly string[]): Promise<Holding> {
  const tls = await throwAwayTls(names)
  const arrived = new Map<string, number>()
  const sockets = new Set<Socket>()
  const deaf = new Set<Request>()
  const open = new Set<object>()
  const count = (request: Request) => {
    const path = `${request.httpVersionMajor === 2 ? '2 ' : ''}${request.url ?? ''}`
    arrived.set(path, (arrived.get(path) ?? 0) + 1)
  }
  const serve = (request: Request, response: Response) => {
    open.add(response)
    response.once('close', () => open.delete(response)).on('error', () => {})
    request.on('error', () => {})
    count(request)
    answer(request, response as ServerResponse, deaf)
  }
  const upgrade = (request: IncomingMessage, socket: Duplex) => {
    open.add(socket)
    socket
      .once('close', () => open.delete(socket))
      .on('error', () => {})
      .resume()
    socket.once('end', () => socket.destroy())
    count(request)
    const accept = acceptOf(request.headers['sec-websocket-key'] ?? '')
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
    )
  }
  const servers = [
    createSecureServer({ key: tls.key, cert: tls.cert, allowHTTP1: true }, serve),
    createServer({}, serve),
  ] as const
  for (const server of servers) {
    server.on('upgrade', upgrade)
    server.on('connection', (socket: Socket) => {
      sockets.add(socket)
      socket.on('error', () => {}).once('close', () => sockets.delete(socket))
    })
    server.listen({ host: '127.0.0.1', port: 0, backlog: 2048 })
    await once(server, 'listening')
  }
  const [tlsPort, cleartextPort] = servers.map((server) => (server.address() as AddressInfo).port)
  return {
    tlsPort: tlsPort as number,
    cleartextPort: cleartextPort as number,
    caPem: tls.caPem,
    arrived,
    get open() {
      return open.size
    },
    get connections() {
      return sockets.size
    },
    listen() {
      for (const request of deaf) request.resume()
      deaf.clear()
    },
    async stop() {
      for (const socket of sockets) socket.destroy()
      await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))))
    },
  }
}

function answer(request: Request, response: ServerResponse, deaf: Set<Request>): void {
  switch (request.url) {
    case '/silent':
      return
    case '/deaf':
      deaf.add(request.pause())
      return
    case '/half':
      response.writeHead(200).write(PIECE)
      return
    case '/events':
      response.writeHead(200, { 'content-type': 'text/event-stream' }).write('data: one\n\n')
      return
    default:
      request.resume().on('end', () => response.end('hello'))
  }
}
