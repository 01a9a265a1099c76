/** A proxy of the kind that networks put between themselves and the world: CONNECT with Basic credentials, plain or under TLS. */
import { createServer, type IncomingMessage } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { type AddressInfo, connect } from 'node:net'
import type { Duplex } from 'node:stream'

export interface CorporateProxy {
  readonly port: number
  /** Places that were asked for, in order. */
  readonly asked: string[]
  /** What came in Proxy-Authorization, in order. */
  readonly authorizations: (string | undefined)[]
  /** Bytes that went through tunnels, in both directions. */
  readonly seen: Buffer[]
  stop(): Promise<void>
}

export interface CorporateProxyOptions {
  readonly tls?: { readonly cert: string; readonly key: string }
  /** `user:password` that it wants. Default: anybody may. */
  readonly credentials?: string
  /** What it answers in place of a tunnel. Default: it opens one. */
  readonly answer?: (place: string) => string | undefined
  /** Where a place really is, as its own name server knows. Default: the place, on loopback. */
  readonly lookUp?: (place: string) => { readonly host: string; readonly port: number }
}

export async function startCorporateProxy(o: CorporateProxyOptions = {}): Promise<CorporateProxy> {
  const server = o.tls === undefined ? createServer() : createTlsServer(o.tls)
  const open = new Set<Duplex>()
  const proxy = { asked: [] as string[], authorizations: [] as (string | undefined)[], seen: [] as Buffer[] }
  const wanted = o.credentials && `Basic ${Buffer.from(o.credentials).toString('base64')}`
  const lookUp = o.lookUp ?? ((place) => ({ host: '127.0.0.1', port: Number(place.split(':').at(-1)) }))
  server.on('connect', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    const place = request.url ?? ''
    proxy.asked.push(place)
    proxy.authorizations.push(request.headers['proxy-authorization'])
    open.add(socket.on('error', () => {}))
    const refused = wanted !== undefined && request.headers['proxy-authorization'] !== wanted
    const answer = refused ? WANTS_CREDENTIALS : o.answer?.(place)
    if (answer !== undefined) {
      socket.end(answer)
      return
    }
    const outward = connect(lookUp(place))
    open.add(outward.on('error', () => socket.destroy()))
    socket.on('close', () => outward.destroy())
    outward.on('connect', () => {
      socket.write('HTTP/1.1 200 Connection established\r\nVia: corporate\r\n\r\n')
      outward.write(head)
      for (const side of [socket, outward]) side.on('data', (chunk: Buffer) => proxy.seen.push(chunk))
      socket.pipe(outward).pipe(socket)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    ...proxy,
    port: (server.address() as AddressInfo).port,
    async stop() {
      for (const socket of open) socket.destroy()
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

const WANTS_CREDENTIALS =
  'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="corp"\r\nContent-Length: 13\r\n\r\ncorporate 407'
