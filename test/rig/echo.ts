/**
 * An upstream written on bare sockets, so that tests see the exact bytes that arrived and can answer in ways no decent HTTP
 * library would. The first path segment says how it answers; `moods` below is the list.
 */
import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { createServer as createTlsServer } from 'node:tls'
import { gzipSync } from 'node:zlib'
import { type ThrowAwayTls, throwAwayTls } from '../../deploy/demo/certificate.ts'
import { readRequest } from './wire.ts'

export interface EchoRequest {
  readonly method: string
  readonly path: string
  /** Request line and headers as they arrived, with the empty line. */
  readonly head: Buffer
  /** Body without its framing. */
  readonly body: Buffer
  readonly isTls: boolean
  /** Counts connections from 1; equal numbers came over the same one. */
  readonly connection: number
}

export interface EchoUpstream {
  readonly tlsPort: number
  readonly cleartextPort: number
  readonly caPem: string
  /** In the order they arrived. */
  readonly requests: EchoRequest[]
  /** Connections that are open now. */
  readonly open: number
  /** Connections ever made. */
  readonly connections: number
  stop(): Promise<void>
}

export interface EchoOptions {
  /** Host names and addresses of the certificate. Default localhost, 127.0.0.1 and `echo.keyless.test`. */
  readonly names?: readonly string[]
  readonly tls?: ThrowAwayTls
}

interface Asked {
  readonly request: EchoRequest
  readonly socket: Socket
  readonly query: URLSearchParams
  /** What `/echo` answers: the request as JSON. */
  readonly echo: Buffer
}

/** First path segment → how it answers. True when the connection can carry another request. */
const moods: Readonly<Record<string, (asked: Asked) => boolean | Promise<boolean>>> = {
  /** 200 with the request as JSON: `{method, path, head, body, connection}`, head and body as latin1. */
  echo: ({ socket, echo }) =>
    say(socket, head(200, { 'content-type': 'application/json', 'content-length': echo.length }), echo),
  /** The same, compressed. */
  gzip({ socket, echo }) {
    const packed = gzipSync(echo)
    return say(socket, head(200, { 'content-encoding': 'gzip', 'content-length': packed.length }), packed)
  },
  /** The same, chunked into `?size=` bytes (default 1), each chunk written by itself. */
  async split({ socket, query, echo }) {
    const size = Number(query.get('size') ?? 1)
    socket.setNoDelay(true)
    say(socket, head(200, { 'transfer-encoding': 'chunked' }))
    for (let at = 0; at < echo.length; at += size) await flush(socket, chunk(echo.subarray(at, at + size)))
    return say(socket, '0\r\n\r\n')
  },
  /** `?bytes=` of `x`, no faster than they are read. */
  async stream({ socket, query }) {
    let left = Number(query.get('bytes') ?? 1024)
    say(socket, head(200, { 'content-length': left }))
    const piece = Buffer.alloc(65_536, 'x')
    for (; left > 0 && !socket.destroyed; left -= piece.length) await flush(socket, piece.subarray(0, left))
    return true
  },
  /** Chunked, with the trailer `x-checksum`, and whatever `?trailer=` says as `x-note`. */
  trailers({ socket, query, echo }) {
    const note = query.get('trailer')
    const trailers = `x-checksum: ${echo.length}\r\n${note === null ? '' : `x-note: ${note}\r\n`}`
    say(socket, head(200, { 'transfer-encoding': 'chunked', trailer: 'x-checksum, x-note' }), chunk(echo))
    return say(socket, `0\r\n${trailers}\r\n`)
  },
  /** Neither a length nor chunks: the end of the connection ends the body. */
  'close-delimited': ({ socket, echo }) => !say(socket, head(200, { connection: 'close' }), echo),
  /** Announces more than it sends. */
  truncate: ({ socket, echo }) => !say(socket, head(200, { 'content-length': echo.length + 1000 }), echo),
  /** Ends a chunked body without its last chunk. */
  'truncate-chunked': ({ socket, echo }) => !say(socket, head(200, { 'transfer-encoding': 'chunked' }), chunk(echo)),
  /** Cuts the connection instead of answering. */
  reset({ socket }) {
    socket.resetAndDestroy()
    return false
  },
  /** Never answers. */
  hang: () => true,
  /** Sends a head and half a body, and no more. */
  'hang-body': ({ socket, echo }) => say(socket, head(200, { 'content-length': echo.length * 2 }), echo),
  /** Answers, then sends a second answer that nobody asked for. */
  unasked({ socket, echo }) {
    say(socket, head(200, { 'content-length': echo.length }), echo)
    return say(socket, head(200, { 'content-length': 7 }), 'unasked')
  },
  /** 103 first, then the echo. */
  informational({ socket, echo }) {
    say(socket, 'HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n')
    return say(socket, head(200, { 'content-length': echo.length }), echo)
  },
  /** `/status/404?location=…&www-authenticate=…`: that status, the query as headers. */
  status({ request, socket, query, echo }) {
    const status = Number(/^\/status\/(\d{3})/.exec(request.path)?.[1] ?? 200)
    const bare = status === 204 || status === 304
    return say(
      socket,
      head(status, { ...Object.fromEntries(query), ...(bare ? {} : { 'content-length': echo.length }) }),
      bare ? '' : echo,
    )
  },
  /** Exactly the bytes of `?bytes=` (latin1), and the end. */
  raw: ({ socket, query }) => !say(socket, Buffer.from(query.get('bytes') ?? '', 'latin1')),
}

export async function startEcho(options: EchoOptions = {}): Promise<EchoUpstream> {
  const tls = options.tls ?? (await throwAwayTls(options.names ?? ['echo.keyless.test', 'localhost', '127.0.0.1']))
  const requests: EchoRequest[] = []
  const sockets = new Set<Socket>()
  let connections = 0
  const accept = (isTls: boolean) => (socket: Socket) => {
    const connection = ++connections
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket)).on('error', () => {}) // clients that vanish are part of the tests
    converse({ socket, isTls, connection, requests }).catch(() => socket.destroy())
  }
  const servers = [
    createTlsServer({ key: tls.key, cert: tls.cert }, accept(true)),
    createServer(accept(false)),
  ] as const
  const [tlsPort, cleartextPort] = await Promise.all(servers.map(listen))
  return {
    tlsPort: tlsPort as number,
    cleartextPort: cleartextPort as number,
    caPem: tls.caPem,
    requests,
    get open() {
      return sockets.size
    },
    get connections() {
      return connections
    },
    async stop() {
      const closed = [
        ...servers.map((server) => once(server.close(), 'close')),
        ...[...sockets].map((socket) => once(socket, 'close')),
      ]
      for (const socket of sockets) socket.destroy()
      await Promise.all(closed)
    },
  }
}

interface Conversation {
  readonly socket: Socket
  readonly isTls: boolean
  readonly connection: number
  readonly requests: EchoRequest[]
}

async function converse({ socket, isTls, connection, requests }: Conversation): Promise<void> {
  const incoming = socket[Symbol.asyncIterator]() as AsyncIterator<Buffer>
  let rest: Buffer = Buffer.alloc(0)
  for (;;) {
    const arrived = await readRequest(incoming, rest, () => socket.write('HTTP/1.1 100 Continue\r\n\r\n'))
    if (!arrived) break
    rest = arrived.rest
    const request: EchoRequest = { ...arrived.request, isTls, connection }
    requests.push(request)
    const mood = moods[/^\/([a-z-]+)/.exec(request.path)?.[1] ?? 'echo'] ?? moods.echo
    const query = new URL(request.path, 'http://echo').searchParams
    if (!(await mood?.({ request, socket, query, echo: echoOf(request) }))) break
  }
  socket.end()
}

function echoOf({ method, path, head, body, connection }: EchoRequest): Buffer {
  return Buffer.from(
    JSON.stringify({ method, path, head: head.toString('latin1'), body: body.toString('latin1'), connection }),
  )
}

function head(status: number, headers: Readonly<Record<string, string | number>>): string {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  return `HTTP/1.1 ${status} Echo\r\n${lines.join('')}\r\n`
}

function chunk(bytes: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, Buffer.from('\r\n')])
}

/** Always true, so that a mood can end with it. */
function say(socket: Socket, ...parts: readonly (string | Buffer)[]): boolean {
  socket.write(Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part, 'latin1') : part))))
  return true
}

async function flush(socket: Socket, bytes: Buffer): Promise<void> {
  if (socket.destroyed || socket.write(bytes)) return
  const { promise, resolve } = Promise.withResolvers<void>()
  socket.once('drain', resolve).once('close', resolve)
  await promise
  socket.off('drain', resolve).off('close', resolve)
}

async function listen(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}
