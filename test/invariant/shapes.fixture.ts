/** Connections to the gateway in every shape in which requests arrive (clients.md §0.6), down to the socket that can be reset. */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { connect as connectTls } from 'node:tls'
import { basic } from './agent.fixture.ts'

export interface Way {
  /** Of the gateway. */
  readonly port: number
  readonly handle: string
  /** PEM of the gateway's CA, and of the certificate of its door. */
  readonly ca: string
  /** Places behind the gateway, `host:port`. */
  readonly tls: string
  readonly cleartext: string
}

export interface Opened {
  /** The TCP connection itself. */
  readonly raw: Socket
  /** What HTTP is spoken on. */
  readonly wire: Duplex
  /** Beginning of a request, up to the empty line. */
  head(method: string, path: string): string
}

const ignore = () => {}

/** @throws {Error} when the gateway does not take the connection. */
export async function dial(port: number): Promise<Socket> {
  const raw = connect(port, '127.0.0.1').on('error', ignore)
  await once(raw, 'connect')
  return raw
}

const secured = async (raw: Duplex, host: string, ca: string, alpn = 'http/1.1') => {
  const secure = connectTls({ socket: raw, servername: host, ca, ALPNProtocols: [alpn] }).on('error', ignore)
  await once(secure, 'secureConnect')
  return secure
}

const hostOf = (authority: string) => authority.replace(/:\d+$/, '')

async function tunnel(wire: Duplex, { handle }: Way, authority: string): Promise<void> {
  wire.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\nProxy-Authorization: ${basic(handle)}\r\n\r\n`)
  const [answer] = (await once(wire, 'data')) as [Buffer]
  if (!answer.toString().includes(' 200 ')) throw new Error(answer.toString())
}

export const greeting = Buffer.from([5, 1, 2])

export function socksLogin(handle: string): Buffer {
  return Buffer.concat([Buffer.from([1, 4]), Buffer.from('task'), Buffer.from([handle.length]), Buffer.from(handle)])
}

export function socksConnect(authority: string): Buffer {
  const host = hostOf(authority)
  const port = Number(authority.slice(host.length + 1))
  return Buffer.concat([
    Buffer.from([5, 1, 0, 3, host.length]),
    Buffer.from(host),
    Buffer.from([port >> 8, port & 255]),
  ])
}

async function socks(raw: Socket, { handle, tls }: Way): Promise<void> {
  for (const said of [greeting, socksLogin(handle), socksConnect(tls)]) {
    raw.write(said)
    await once(raw, 'data')
  }
}

const asProxy =
  (way: Way, origin: string, authority: string) =>
  (method: string, path: string): string =>
    `${method} ${origin}${path} HTTP/1.1\r\nHost: ${authority}\r\nProxy-Authorization: ${basic(way.handle)}\r\n`

const inside = (authority: string) => (method: string, path: string) =>
  `${method} ${path} HTTP/1.1\r\nHost: ${authority}\r\n`

/** Over HTTP/1.1, on to an upstream with or without TLS. */
export const shapes: Readonly<Record<string, (way: Way) => Promise<Opened>>> = {
  'in absolute form, http://': async (way) => {
    const raw = await dial(way.port)
    return { raw, wire: raw, head: asProxy(way, `http://${way.cleartext}`, way.cleartext) }
  },
  'in absolute form, https://': async (way) => {
    const raw = await dial(way.port)
    return { raw, wire: raw, head: asProxy(way, `https://${way.tls}`, way.tls) }
  },
  'on a reverse route': async (way) => {
    const raw = await dial(way.port)
    const fields = `Host: 127.0.0.1:${way.port}\r\nProxy-Authorization: ${basic(way.handle)}\r\n`
    return { raw, wire: raw, head: (method, path) => `${method} /held${path} HTTP/1.1\r\n${fields}` }
  },
  'in a tunnel with TLS': async (way) => {
    const raw = await dial(way.port)
    await tunnel(raw, way, way.tls)
    return { raw, wire: await secured(raw, hostOf(way.tls), way.ca), head: inside(way.tls) }
  },
  'in a tunnel without TLS': async (way) => {
    const raw = await dial(way.port)
    await tunnel(raw, way, way.cleartext)
    return { raw, wire: raw, head: inside(way.cleartext) }
  },
  'over SOCKS5': async (way) => {
    const raw = await dial(way.port)
    await socks(raw, way)
    return { raw, wire: await secured(raw, hostOf(way.tls), way.ca), head: inside(way.tls) }
  },
  'over TLS to the proxy': async (way) => {
    const raw = await dial(way.port)
    const wire = await secured(raw, 'localhost', way.ca)
    return { raw, wire, head: asProxy(way, `http://${way.cleartext}`, way.cleartext) }
  },
  'in a tunnel with TLS within TLS to the proxy': async (way) => {
    const raw = await dial(way.port)
    const outer = await secured(raw, 'localhost', way.ca)
    await tunnel(outer, way, way.tls)
    return { raw, wire: await secured(outer, hostOf(way.tls), way.ca), head: inside(way.tls) }
  },
}

/** A tunnel in which TLS agreed on HTTP/2. */
export async function openHttp2Tunnel(way: Way): Promise<{ readonly raw: Socket; readonly wire: Duplex }> {
  const raw = await dial(way.port)
  await tunnel(raw, way, way.tls)
  return { raw, wire: await secured(raw, hostOf(way.tls), way.ca, 'h2') }
}
