/**
 * The ways in which the bytes of one HTTP/1.1 request reach the flow, over raw sockets. A message is put together once; what
 * differs is the connection it is written to, how its target is written, and where the credential goes.
 */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { connect as connectTls } from 'node:tls'
import { basic } from '../invariant/agent.fixture.ts'

/** Where the doors are and what is behind them. */
export interface Site {
  /** The proxy door: plain HTTP, SOCKS and TLS, and behind a balancer whoever comes from `BALANCER`. */
  readonly port: number
  readonly handle: string
  /** Of the certificate with which the door speaks TLS. */
  readonly doorCa: string
  /** The gateway's own CA. */
  readonly ca: string
  /** Ports of `safe.keyless.test` and `plain.keyless.test`. */
  readonly tlsPort: number
  readonly cleartextPort: number
}

export const BALANCER = '127.0.0.9'

export interface Shape {
  readonly name: string
  /** Another way to the door: what is read there is one of the other shapes. */
  readonly isDoor?: boolean
  open(site: Site): Promise<Duplex>
  target(path: string, site: Site): string
  /** Host, and the credential where it goes with every request. */
  fields(site: Site): string
}

export interface Message {
  readonly method?: string
  /** Path and query. Default `/x`. */
  readonly path?: string
  /** In place of the target that the shape would write. */
  readonly target?: (site: Site) => string
  readonly version?: string
  /** Raw lines, each with its end. */
  readonly fields?: string
  /** In place of the Host line of the shape. */
  readonly host?: string
  readonly body?: string
  /** More would have to come: nobody answers before, or closes. */
  readonly isOpen?: boolean
}

const safe = ({ tlsPort }: Site) => `safe.keyless.test:${tlsPort}`
const plain = ({ cleartextPort }: Site) => `plain.keyless.test:${cleartextPort}`
const proxyAuth = ({ handle }: Site) => `Proxy-Authorization: ${basic(handle)}\r\n`
const origin = (path: string) => path

export const SHAPES: readonly Shape[] = [
  {
    name: 'absolute form, http',
    open: ({ port }) => dial(port),
    target: (path, site) => `http://${plain(site)}${path}`,
    fields: (site) => `Host: ${plain(site)}\r\n${proxyAuth(site)}`,
  },
  {
    name: 'absolute form, https',
    open: ({ port }) => dial(port),
    target: (path, site) => `https://${safe(site)}${path}`,
    fields: (site) => `Host: ${safe(site)}\r\n${proxyAuth(site)}`,
  },
  {
    name: 'reverse route',
    open: ({ port }) => dial(port),
    target: (path) => `/safe${path}`,
    fields: (site) => `Host: 127.0.0.1:${site.port}\r\n${proxyAuth(site)}`,
  },
  {
    name: 'CONNECT and TLS',
    open: async (site) => within(await tunnelled(site, safe(site)), 'safe.keyless.test', site.ca),
    target: origin,
    fields: (site) => `Host: ${safe(site)}\r\n`,
  },
  {
    name: 'CONNECT in the clear',
    open: (site) => tunnelled(site, plain(site)),
    target: origin,
    fields: (site) => `Host: ${plain(site)}\r\n`,
  },
  {
    name: 'SOCKS5',
    isDoor: true,
    open: (site) => socks(site, 'plain.keyless.test', site.cleartextPort),
    target: origin,
    fields: (site) => `Host: ${plain(site)}\r\n`,
  },
  {
    name: 'TLS to the proxy',
    isDoor: true,
    open: async ({ port, doorCa }) => within(await dial(port), 'localhost', doorCa),
    target: (path, site) => `http://${plain(site)}${path}`,
    fields: (site) => `Host: ${plain(site)}\r\n${proxyAuth(site)}`,
  },
  {
    name: 'PROXY protocol',
    isDoor: true,
    async open({ port }) {
      const socket = await dial(port, BALANCER)
      socket.write('PROXY TCP4 127.0.0.5 127.0.0.1 40000 8080\r\n')
      return socket
    },
    target: (path, site) => `http://${plain(site)}${path}`,
    fields: (site) => `Host: ${plain(site)}\r\n${proxyAuth(site)}`,
  },
]

export function bytesOf(message: Message, shape: Shape, site: Site): string {
  const { method = 'GET', path = '/x', version = 'HTTP/1.1', fields = '', body = '' } = message
  const target = message.target?.(site) ?? shape.target(path, site)
  const own = shape.fields(site)
  const lines = message.host === undefined ? own : own.replace(/^Host: .*\r\n/, message.host)
  return `${method} ${target} ${version}\r\n${lines}${fields}\r\n${body}`
}

/** Everything that comes back after `bytes`, until the other side closes or `patienceMs` pass without a byte. */
export async function converse(stream: Duplex, bytes: string, patienceMs: number): Promise<string> {
  let said = ''
  const { promise, resolve } = Promise.withResolvers<void>()
  let timer = setTimeout(resolve, patienceMs)
  stream.on('data', (chunk: Buffer) => {
    said += chunk.toString('latin1')
    clearTimeout(timer)
    timer = setTimeout(resolve, patienceMs)
  })
  stream
    .on('error', () => {})
    .on('close', resolve)
    .on('end', resolve)
  stream.write(Buffer.from(bytes, 'latin1'))
  await promise
  clearTimeout(timer)
  stream.destroy()
  return said
}

export async function dial(port: number, localAddress = '127.0.0.1'): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1', localAddress, noDelay: true })
  socket.on('error', () => {})
  await once(socket, 'connect')
  return socket
}

async function within(socket: Socket, servername: string, ca: string): Promise<Duplex> {
  const secure = connectTls({ socket, servername, ca, ALPNProtocols: ['http/1.1'] })
  await once(secure, 'secureConnect')
  return secure
}

export async function tunnelled(site: Site, authority: string): Promise<Socket> {
  const socket = await dial(site.port)
  socket.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n${proxyAuth(site)}\r\n`)
  const [first] = (await once(socket, 'data')) as [Buffer]
  if (!first.toString('latin1').startsWith('HTTP/1.1 200 ')) throw new Error(first.toString('latin1'))
  return socket
}

async function socks({ port, handle }: Site, host: string, to: number): Promise<Socket> {
  const socket = await dial(port)
  const counted = (text: string) => Buffer.concat([Buffer.from([text.length]), Buffer.from(text)])
  const end = Buffer.from([to >> 8, to & 0xff])
  const steps = [
    Buffer.from([5, 1, 2]),
    Buffer.concat([Buffer.from([1]), counted('t'), counted(handle)]),
    Buffer.concat([Buffer.from([5, 1, 0, 3]), counted(host), end]),
  ]
  for (const step of steps) {
    socket.write(step)
    const [answer] = (await once(socket, 'data')) as [Buffer]
    if (answer[1] !== 0 && answer[1] !== 2) throw new Error(`SOCKS said ${answer.toString('hex')}`)
  }
  return socket
}
