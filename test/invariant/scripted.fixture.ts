/** An upstream on bare TLS sockets that answers each request exactly as the test says: `act` gets the socket and what arrived. */
import { once } from 'node:events'
import type { AddressInfo, Socket } from 'node:net'
import { createServer, type TLSSocket } from 'node:tls'
import { throwAwayTls } from '../../deploy/demo/certificate.ts'

export interface ScriptedUpstream {
  readonly port: number
  readonly caPem: string
  /** Everything that arrived, a connection an entry, in the order of the connections. */
  readonly received: string[]
  /** How requests are answered from now on; called once a request head, with the text of the head. */
  act: (socket: TLSSocket, head: string) => void
  /** End a connection without a word. */
  reset(socket: TLSSocket): void
  stop(): Promise<void>
}

export async function startScripted(names: readonly string[]): Promise<ScriptedUpstream> {
  const tls = await throwAwayTls(names)
  const sockets = new Set<TLSSocket>()
  const server = createServer({ key: tls.key, cert: tls.cert }, (socket) => {
    sockets.add(socket)
    socket.setNoDelay(true)
    socket.once('close', () => sockets.delete(socket)).on('error', () => {})
    const connection = upstream.received.push('') - 1
    let unread = ''
    socket.on('data', (chunk: Buffer) => {
      upstream.received[connection] += chunk.toString('latin1')
      unread += chunk.toString('latin1')
      for (let end = unread.indexOf('\r\n\r\n'); end !== -1; end = unread.indexOf('\r\n\r\n')) {
        const head = unread.slice(0, end + 4)
        unread = unread.slice(end + 4)
        if (/^[A-Z]+ \S+ HTTP\/1\.1\r\n/.test(head)) upstream.act(socket, head)
      }
    })
  })
  /** port of the other side → its TCP connection */
  const raws = new Map<number, Socket>()
  server.on('connection', (raw: Socket) => {
    const port = raw.remotePort as number
    raws.set(port, raw)
    raw.once('close', () => raws.delete(port))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const upstream: ScriptedUpstream = {
    port: (server.address() as AddressInfo).port,
    caPem: tls.caPem,
    received: [],
    act: (socket) => void socket.write('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n'),
    reset: (socket) => void raws.get(socket.remotePort as number)?.resetAndDestroy(),
    async stop() {
      const closed = once(server.close(), 'close')
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
  return upstream
}
