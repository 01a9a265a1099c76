/** An upstream that speaks WebSocket by the `ws` library, and clients of that library in every shape in which they reach a gateway. */
import { once } from 'node:events'
import { createServer as createHttpServer, type IncomingMessage, type RequestListener } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import { type AddressInfo, connect, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { connect as connectTls } from 'node:tls'
import { WebSocket, WebSocketServer } from 'ws'
import { throwAwayTls } from '../../deploy/demo/certificate.ts'

export interface Handshake {
  readonly path: string
  readonly headers: IncomingMessage['headers']
  readonly rawHeaders: readonly string[]
}

export interface WebSocketUpstream {
  readonly tlsPort: number
  readonly cleartextPort: number
  readonly caPem: string
  readonly handshakes: Handshake[]
  /** Accepted, in order; `/raw` ones are not among them. */
  readonly sockets: WebSocket[]
  /** Close codes in the order of their connections' ends. */
  readonly closes: { readonly code: number; readonly reason: string }[]
  /** Connections that asked to be a WebSocket and are open now. */
  readonly open: number
  /** Handshake and connection of the next `/raw`, of which the test speaks every byte. */
  nextRaw(): Promise<{ readonly socket: Duplex; readonly handshake: Handshake; readonly head: Buffer }>
  stop(): Promise<void>
}

/**
 * `/echo` sends messages back as they came; `/silent` says nothing; `/refuse/STATUS` does not upgrade. `/leak` sends the
 * credential of its handshake in the way it is asked for (`leak` below).
 * @param serve answers what is no handshake
 */
export async function startWebSockets(
  names: readonly string[],
  serve: RequestListener = (request, response) => void response.end(`plain ${request.method}`),
): Promise<WebSocketUpstream> {
  const tls = await throwAwayTls(names)
  const handshakes: Handshake[] = []
  const sockets: WebSocket[] = []
  const closes: { code: number; reason: string }[] = []
  const connections = new Set<Socket>()
  const upgraded = new Set<Duplex>()
  const waiting: ((raw: { socket: Duplex; handshake: Handshake; head: Buffer }) => void)[] = []
  const wss = new WebSocketServer({
    noServer: true,
    perMessageDeflate: true,
    handleProtocols: (offered) => [...offered][0] ?? false,
  })
  const servers = [createHttpsServer({ key: tls.key, cert: tls.cert }), createHttpServer()] as const
  for (const server of servers) {
    server.on(server === servers[0] ? 'secureConnection' : 'connection', (socket: Socket) => {
      connections.add(socket)
      socket.on('error', () => {}).once('close', () => connections.delete(socket))
    })
    server.on('request', serve)
    server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      const { url: path = '', headers, rawHeaders } = request
      const handshake = { path, headers, rawHeaders }
      handshakes.push(handshake)
      upgraded.add(socket)
      socket.once('close', () => upgraded.delete(socket))
      if (path.startsWith('/raw')) return waiting.shift()?.({ socket, handshake, head })
      const [, status] = /^\/refuse\/(\d+)/.exec(path) ?? []
      if (status !== undefined) {
        const body = JSON.stringify({ refused: status, authorization: headers.authorization })
        socket.end(
          `HTTP/1.1 ${status} No\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
        )
        return
      }
      wss.handleUpgrade(request, socket, head, (ws) => {
        sockets.push(ws)
        ws.on('error', () => {})
        ws.on('close', (code, reason) => closes.push({ code, reason: reason.toString() }))
        if (path.startsWith('/echo')) ws.on('message', (message, isBinary) => ws.send(message, { binary: isBinary }))
        if (path.startsWith('/leak'))
          ws.on('message', (message) => leak(ws, headers.authorization ?? '', String(message)))
      })
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
  }
  const [tlsPort, cleartextPort] = servers.map((server) => (server.address() as AddressInfo).port)
  return {
    tlsPort: tlsPort as number,
    cleartextPort: cleartextPort as number,
    caPem: tls.caPem,
    handshakes,
    sockets,
    closes,
    get open() {
      return upgraded.size
    },
    nextRaw: () => new Promise((resolve) => waiting.push(resolve)),
    async stop() {
      for (const socket of connections) socket.destroy()
      await Promise.all(servers.map((server) => once(server.close(), 'close')))
    },
  }
}

/** `text`, `binary`, `ping` or `close`; `N` sends it in fragments of N bytes. */
function leak(ws: WebSocket, authorization: string, asked: string): void {
  const secret = authorization.replace(/^Bearer /, '')
  const [how, size] = asked.split(' ')
  if (how === 'ping') ws.ping(secret)
  else if (how === 'close') ws.close(3000, secret)
  else {
    const bytes = Buffer.from(
      how === 'base64' ? Buffer.from(authorization).toString('base64') : `it is ${secret}, is it not`,
    )
    const step = size === undefined ? bytes.length : Number(size)
    for (let at = 0; at < bytes.length; at += step)
      ws.send(bytes.subarray(at, at + step), {
        binary: how === 'binary',
        fin: at + step >= bytes.length,
        compress: false,
      })
  }
}

export interface Through {
  readonly port: number
  readonly handle: string
  /** `host:port` of the upstream. */
  readonly authority: string
  readonly path: string
  /** Of the gateway. */
  readonly ca?: string
  readonly protocols?: string[]
  readonly headers?: Record<string, string>
  /** Offer permessage-deflate, as browsers do. Default true. */
  readonly deflate?: boolean
}

const basic = (handle: string) => `Basic ${Buffer.from(`task:${handle}`).toString('base64')}`

/** A socket that a CONNECT has opened. */
async function tunnel({ port, handle, authority }: Through): Promise<Socket> {
  const raw = connect(port, '127.0.0.1')
  raw.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\nProxy-Authorization: ${basic(handle)}\r\n\r\n`)
  const [first] = (await once(raw, 'data')) as [Buffer]
  const line = first.toString('latin1').split('\r\n', 1)[0] ?? ''
  if (!line.includes(' 200 ')) throw new Error(line)
  return raw
}

const optionsOf = ({ headers = {}, deflate = true }: Through) => ({ headers, perMessageDeflate: deflate })

/** Every shape of clients.md §0.6 in which a handshake arrives. */
export const shapes: Readonly<Record<string, (through: Through) => Promise<WebSocket>>> = {
  'CONNECT and TLS': async (through) => {
    const raw = await tunnel(through)
    const servername = through.authority.replace(/:\d+$/, '')
    const secure = connectTls({ socket: raw, servername, ca: through.ca ?? '', ALPNProtocols: ['http/1.1'] })
    await once(secure, 'secureConnect')
    const options = { ...optionsOf(through), createConnection: () => secure }
    return new WebSocket(`ws://${through.authority}${through.path}`, through.protocols ?? [], options)
  },
  'CONNECT and cleartext': async (through) => {
    const raw = await tunnel(through)
    const options = { ...optionsOf(through), createConnection: () => raw }
    return new WebSocket(`ws://${through.authority}${through.path}`, through.protocols ?? [], options)
  },
  'absolute form': async (through) => absolute(through, 'ws'),
  'absolute form, http': async (through) => absolute(through, 'http'),
  'reverse route': async (through) => {
    const { authority, handle, port, path, protocols = [] } = through
    const { headers, ...rest } = optionsOf(through)
    const route = authority.split('.')[0]
    return new WebSocket(`ws://127.0.0.1:${port}/${route}${path}`, protocols, {
      ...rest,
      headers: { authorization: `Bearer ${handle}`, ...headers },
    })
  },
}

function absolute(through: Through, scheme: 'ws' | 'http' | 'wss' | 'https'): WebSocket {
  const { port, handle, authority, path, protocols = [] } = through
  const { headers, ...rest } = optionsOf(through)
  return new WebSocket(`ws://${authority}${path}`, protocols, {
    ...rest,
    headers: { 'proxy-authorization': basic(handle), ...headers },
    createConnection: () => connect(port, '127.0.0.1'),
    finishRequest(request) {
      request.path = `${scheme}://${authority}${path}`
      request.end()
    },
  })
}

/** Opened, or what it was answered instead: status, and the body. */
export async function opened(
  ws: WebSocket,
): Promise<{ readonly status: number; readonly body: string; readonly headers: IncomingMessage['headers'] }> {
  const { promise, resolve, reject } = Promise.withResolvers<{
    status: number
    body: string
    headers: IncomingMessage['headers']
  }>()
  let headers: IncomingMessage['headers'] = {}
  ws.once('upgrade', (response) => {
    headers = response.headers
  })
  ws.once('open', () => resolve({ status: 101, body: '', headers }))
  ws.once('unexpected-response', (_, response) => {
    const chunks: Buffer[] = []
    response.on('data', (chunk: Buffer) => chunks.push(chunk))
    response.on('end', () =>
      resolve({ status: response.statusCode ?? 0, body: String(Buffer.concat(chunks)), headers: response.headers }),
    )
  })
  ws.on('error', reject)
  return promise
}

/** The next message, as text. */
export async function said(ws: WebSocket): Promise<string> {
  const [message] = (await once(ws, 'message')) as [Buffer]
  return message.toString()
}

export async function closed(ws: WebSocket): Promise<{ readonly code: number; readonly reason: string }> {
  ws.on('error', () => {})
  const [code, reason] = (await once(ws, 'close')) as [number, Buffer]
  return { code, reason: reason.toString() }
}
