/**
 * An upstream that gives the credential back in every way an upstream can: `/leak/<carrier>/<spelling>`. It takes the credential
 * from wherever it was put, and keeps what arrived, so that a test can show that it did arrive.
 */
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { createServer, type TLSSocket } from 'node:tls'
import { brotliCompressSync, deflateRawSync, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { throwAwayTls } from '../../deploy/demo/certificate.ts'
import { readRequest } from '../rig/wire.ts'

export interface LeakyUpstream {
  readonly port: number
  readonly caPem: string
  /** Request heads in the order they arrived. */
  readonly heads: string[]
  stop(): Promise<void>
}

export const SPELLINGS: Readonly<Record<string, (secret: string) => string>> = {
  raw: (secret) => secret,
  base64: (secret) => Buffer.from(secret).toString('base64'),
  'base64-1': (secret) => Buffer.from(`x${secret}yz`).toString('base64'),
  'base64-2': (secret) => Buffer.from(`xy${secret}z`).toString('base64'),
  base64url: (secret) => Buffer.from(secret).toString('base64url'),
  hex: (secret) => Buffer.from(secret).toString('hex'),
  'hex-upper': (secret) => Buffer.from(secret).toString('hex').toUpperCase(),
  percent: (secret) => encodeURIComponent(secret),
  'percent-all': (secret) => Buffer.from(secret).toString('hex').replaceAll(/../g, '%$&'),
  json: (secret) => JSON.stringify(secret),
  'json-slash': (secret) => JSON.stringify(secret).replaceAll('/', '\\/'),
  'json-unicode': (secret) =>
    secret.replaceAll(/[\s\S]/g, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, '0')}`),
  html: (secret) => secret.replaceAll('&', '&amp;').replaceAll('"', '&quot;'),
}

interface Leak {
  readonly socket: TLSSocket
  /** The credential, spelled as asked. */
  readonly text: string
  readonly body: Buffer
  readonly query: URLSearchParams
}

type Carrier = (leak: Leak) => void | Promise<void>

const packed =
  (coding: string, pack: (bytes: Buffer) => Buffer): Carrier =>
  ({ socket, body }) => {
    const bytes = pack(body)
    socket.write(head(200, [`content-encoding: ${coding}`, `content-length: ${bytes.length}`]))
    socket.write(bytes)
  }

const field =
  (status: number, name: string, before = ''): Carrier =>
  ({ socket, text, body }) => {
    socket.write(head(status, [`${name}: ${before}${text}`, `content-length: ${body.length}`]))
    socket.write(body)
  }

export const CARRIERS: Readonly<Record<string, Carrier>> = {
  body: field(200, 'x-nothing', 'and '),
  error: field(500, 'x-request-failed', 'with '),
  'error-page': ({ socket, text }) => {
    const page = `<html><body><h1>500</h1><pre>Authorization: ${text}</pre></body></html>`
    socket.write(head(500, ['content-type: text/html', `content-length: ${page.length}`]) + page)
  },
  refusal: field(401, 'www-authenticate', 'Bearer error="'),
  forbidden: field(403, 'x-denied'),
  location: field(302, 'location', 'https://elsewhere.example/?token='),
  'content-location': field(201, 'content-location', '/'),
  refresh: field(200, 'refresh', '0; url=https://elsewhere.example/#'),
  'set-cookie': field(200, 'set-cookie', 'session='),
  etag: field(200, 'etag', '"'),
  link: field(200, 'link', '<https://elsewhere.example/'),
  gzip: packed('gzip', gzipSync),
  'gzip-shouted': packed('GZIP', gzipSync),
  'x-gzip': packed('x-gzip', gzipSync),
  deflate: packed('deflate', deflateSync),
  'deflate-raw': packed('deflate', deflateRawSync),
  br: packed('br', brotliCompressSync),
  zstd: packed('zstd', zstdCompressSync),
  'gzip-twice': packed('gzip, gzip', (bytes) => gzipSync(gzipSync(bytes))),
  unknown: packed('compress', (bytes) => bytes),
  'gzip-cut': ({ socket, body }) => {
    const bytes = gzipSync(body)
    socket.end(Buffer.concat([Buffer.from(head(200, ['content-encoding: gzip'])), bytes.subarray(0, bytes.length - 9)]))
  },
  reason: ({ socket, text }) => {
    socket.write(`HTTP/1.1 200 You sent ${text}\r\ncontent-length: 0\r\n\r\n`)
  },
  informational: ({ socket, text, body }) => {
    socket.write(`HTTP/1.1 103 Early Hints\r\nlink: <https://elsewhere.example/${text}>\r\n\r\n`)
    socket.write(head(200, [`content-length: ${body.length}`]))
    socket.write(body)
  },
  trailers: ({ socket, text, body }) => {
    socket.write(head(200, ['transfer-encoding: chunked', 'trailer: x-checksum, x-note']))
    socket.write(`${body.length.toString(16)}\r\n`)
    socket.write(body)
    socket.write(`\r\n0\r\nx-checksum: 1\r\nx-note: ${text}\r\n\r\n`)
  },
  'chunk-extension': ({ socket, text, body }) => {
    socket.write(head(200, ['transfer-encoding: chunked']))
    socket.write(`${body.length.toString(16)};note="${text.replaceAll(/["\\]/g, '')}"\r\n`)
    socket.write(body)
    socket.write('\r\n0\r\n\r\n')
  },
  events: async ({ socket, text }) => {
    socket.write(head(200, ['content-type: text/event-stream', 'transfer-encoding: chunked']))
    for (let n = 0; n < 3; n++) await flush(socket, chunk(Buffer.from(`id: ${n}\ndata: {"seen":${text}}\n\n`)))
    socket.write('0\r\n\r\n')
  },
  'by-byte': async ({ socket, body }) => {
    socket.write(head(200, ['transfer-encoding: chunked']))
    for (const byte of body) await flush(socket, chunk(Buffer.from([byte])))
    socket.write('0\r\n\r\n')
  },
  /** Two chunks, the border at `?at=`. */
  halves: async ({ socket, body, query }) => {
    const at = Number(query.get('at') ?? 1)
    socket.write(head(200, ['transfer-encoding: chunked']))
    await flush(socket, chunk(body.subarray(0, at)))
    await flush(socket, chunk(body.subarray(at)))
    socket.write('0\r\n\r\n')
  },
  'until-close': ({ socket, body }) => {
    socket.write(head(200, ['connection: close']))
    socket.end(body)
  },
  truncated: ({ socket, body }) => {
    socket.write(head(200, [`content-length: ${body.length + 1000}`]))
    socket.end(body)
  },
  'truncated-chunks': ({ socket, body }) => {
    socket.write(head(200, ['transfer-encoding: chunked']))
    socket.end(chunk(body))
  },
  unasked: ({ socket, body }) => {
    socket.write(head(200, ['content-length: 2']))
    socket.write('{}')
    socket.write(head(200, [`content-length: ${body.length}`]))
    socket.write(body)
  },
}

export async function startLeaky(names: readonly string[]): Promise<LeakyUpstream> {
  const tls = await throwAwayTls(names)
  const heads: string[] = []
  const sockets = new Set<TLSSocket>()
  const server = createServer({ key: tls.key, cert: tls.cert }, (socket) => {
    sockets.add(socket)
    socket.setNoDelay(true)
    socket.once('close', () => sockets.delete(socket)).on('error', () => {})
    converse(socket, heads).catch(() => socket.destroy())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    caPem: tls.caPem,
    heads,
    async stop() {
      const closed = once(server.close(), 'close')
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}

async function converse(socket: TLSSocket, heads: string[]): Promise<void> {
  const incoming = socket[Symbol.asyncIterator]() as AsyncIterator<Buffer>
  let rest: Buffer = Buffer.alloc(0)
  for (;;) {
    const arrived = await readRequest(incoming, rest, () => {})
    if (!arrived || socket.destroyed) break
    rest = arrived.rest
    const text = arrived.request.head.toString('latin1')
    heads.push(text)
    await answer(socket, text, arrived.request)
    if (socket.writableEnded) break
  }
}

/** `/token` is an issuer that repeats what it was sent; everything else leaks as its path says. */
async function answer(socket: TLSSocket, head_: string, request: { path: string; body: Buffer }): Promise<void> {
  const url = new URL(request.path, 'https://leaky')
  const [, place, carrier = '', spelling = ''] = url.pathname.split('/')
  if (place === 'token') {
    const body = JSON.stringify({ error: 'invalid_client', error_description: head_ + request.body.toString() })
    const status = url.searchParams.get('status') ?? '400'
    const text = url.searchParams.get('as') === 'text' ? head_ + request.body.toString() : body
    const type = url.searchParams.get('as') === 'text' ? 'text/html' : 'application/json'
    socket.write(head(Number(status), [`content-type: ${type}`, `content-length: ${Buffer.byteLength(text)}`]) + text)
    return
  }
  const secret = credentialOf(head_, url)
  const text = SPELLINGS[spelling]?.(secret) ?? secret
  const authorization = /^authorization: *(.*?)\r$/im.exec(head_)?.[1]
  const body = Buffer.from(`{"before":"and","credential":${text},"field":"${authorization ?? ''}"}`)
  await CARRIERS[carrier]?.({ socket, text, body, query: url.searchParams })
}

/** Wherever a service may take it: Bearer, the password of Basic, `?key=`, the cookie `session`. */
export function credentialOf(head_: string, url: URL): string {
  const authorization = /^authorization: *(.*?)\r$/im.exec(head_)?.[1] ?? ''
  const pair = /^Basic (.+)$/.exec(authorization)?.[1]
  if (pair !== undefined) return Buffer.from(pair, 'base64').toString().split(':').slice(1).join(':')
  const bearer = /^Bearer (.+)$/.exec(authorization)?.[1]
  return bearer ?? url.searchParams.get('key') ?? /[ ;]session=([^;\r]*)/.exec(head_)?.[1] ?? ''
}

function head(status: number, fields: readonly string[]): string {
  return `HTTP/1.1 ${status} Leaky\r\n${fields.map((one) => `${one}\r\n`).join('')}\r\n`
}

function chunk(bytes: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, Buffer.from('\r\n')])
}

/** One TLS record of its own, so that it arrives as a piece of its own. */
async function flush(socket: TLSSocket, bytes: Buffer): Promise<void> {
  if (!socket.write(bytes)) await once(socket, 'drain')
  await new Promise((resolve) => setImmediate(resolve))
}
