/** SECURITY.md 5: an answer in a form in which a credential could not be found is withheld, over HTTP/1.1 and HTTP/2; where it can be found, it is hidden. */

import { once } from 'node:events'
import {
  connect as connectHttp2,
  createSecureServer,
  type Http2ServerRequest,
  type Http2ServerResponse,
} from 'node:http2'
import { type AddressInfo, connect } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { brotliCompressSync, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { throwAwayTls } from '../../deploy/demo/certificate.ts'
import { findCanary, newCanary } from '../rig/canary.ts'
import { basic, say } from './agent.fixture.ts'
import { type OpenSite, openSite } from './services.fixture.ts'

interface Form {
  readonly status?: number
  readonly head: Readonly<Record<string, string>>
  readonly pack: (bytes: Buffer) => Buffer
  /** The head has left by then: the answer is cut. */
  readonly isFoundLate?: boolean
}

const asIs = (bytes: Buffer) => bytes
/** gRPC and Connect alike: a flag, four bytes of length, the message. */
const message = (flag: number, bytes: Buffer) => {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(bytes.length)
  return Buffer.concat([Buffer.from([flag]), length, bytes])
}
const packed = (bytes: Buffer) => message(1, gzipSync(bytes))
const skippable = Buffer.concat([Buffer.from([0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0]), Buffer.from('skip')])
/** A frame that asks for the dictionary 7: magic number, descriptor with one byte of dictionary id, window, id. */
const withDictionary = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x01, 0x58, 0x07, 0x01, 0x00, 0x00])

const HIDDEN: Readonly<Record<string, Form>> = {
  'packed gRPC messages': { head: { 'content-type': 'application/grpc', 'grpc-encoding': 'gzip' }, pack: packed },
  'gRPC messages of a coding that nobody knows': { head: { 'grpc-encoding': 'snappy' }, pack: packed },
  'packed gRPC-Web messages': {
    head: { 'content-type': 'application/grpc-web', 'Grpc-Encoding': 'gzip' },
    pack: packed,
  },
  'packed Connect messages': {
    head: { 'connect-content-encoding': 'br' },
    pack: (bytes) => message(1, brotliCompressSync(bytes)),
  },
  'a difference': { status: 226, head: { im: 'gzip' }, pack: gzipSync },
  'a part': { status: 206, head: { 'content-range': 'bytes 5-9/100' }, pack: asIs },
  'a part that says so nowhere but in a field': { head: { 'content-range': 'bytes 5-9/100' }, pack: asIs },
  parts: { head: { 'content-type': 'multipart/byteranges; boundary=x' }, pack: asIs },
  'two codings': { head: { 'content-encoding': 'gzip, br' }, pack: (bytes) => brotliCompressSync(gzipSync(bytes)) },
  'a coding by dictionary': { head: { 'content-encoding': 'dcz' }, pack: asIs },
  'zstd by dictionary': {
    head: { 'content-encoding': 'zstd' },
    pack: (bytes) => Buffer.concat([withDictionary, zstdCompressSync(bytes)]),
    isFoundLate: true,
  },
  EBCDIC: { head: { 'content-type': 'text/plain; charset=ibm037' }, pack: asIs },
  'UTF-7': { head: { 'content-type': 'text/plain; charset="utf-7"' }, pack: asIs },
  'gzip that is none': { head: { 'content-encoding': 'gzip' }, pack: asIs, isFoundLate: true },
}

const SEARCHED: Readonly<Record<string, Form>> = {
  'plain gRPC messages': {
    head: { 'content-type': 'application/grpc', 'grpc-encoding': 'identity' },
    pack: (bytes) => message(0, bytes),
  },
  'several members of gzip': {
    head: { 'content-encoding': 'gzip' },
    pack: (bytes) => Buffer.concat([gzipSync(bytes.subarray(0, 30)), gzipSync(bytes.subarray(30))]),
  },
  'gzip with zeros behind it': {
    head: { 'content-encoding': 'gzip' },
    pack: (bytes) => Buffer.concat([gzipSync(bytes), Buffer.alloc(100)]),
  },
  'deflate with more behind it': {
    head: { 'content-encoding': 'deflate' },
    pack: (bytes) => Buffer.concat([deflateSync(bytes), bytes]),
  },
  'brotli with more behind it': {
    head: { 'content-encoding': 'br' },
    pack: (bytes) => Buffer.concat([brotliCompressSync(bytes), bytes]),
  },
  'several frames of zstd': {
    head: { 'content-encoding': 'zstd' },
    pack: (bytes) =>
      Buffer.concat([
        skippable,
        zstdCompressSync(bytes.subarray(0, 30)),
        skippable,
        zstdCompressSync(bytes.subarray(30)),
      ]),
  },
  'UTF-16': {
    head: { 'content-type': 'text/plain; charset=utf-16' },
    pack: (bytes) => Buffer.from(bytes.toString(), 'utf16le'),
  },
}

const key = newCanary()
let site: OpenSite
let handle: string
let port: number
let upstreamPort: number
let close: () => Promise<void>
let ca: string
/** Heads as they arrived. */
const arrived: Record<string, unknown>[] = []

beforeAll(async () => {
  const tls = await throwAwayTls(['odd.keyless.test'])
  const server = createSecureServer({ key: tls.key, cert: tls.cert, allowHTTP1: true }, answer)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  upstreamPort = (server.address() as AddressInfo).port
  close = async () => {
    server.close()
  }
  const operations = { any: { match: ['GET /{path**}'], access: 'read' } } as const
  site = await openSite(
    { port: upstreamPort, caPem: tls.caPem },
    { services: [{ name: 'odd', operations: operations as never }], credentials: { odd: key } },
  )
  port = site.gateway.proxyPort
  handle = (await site.gateway.openTask('odd:*')).handle
  ca = (await site.gateway.control.status()).ca_pem
}, 60_000)

afterAll(async () => {
  await site?.stop()
  await close?.()
})

function answer(request: Http2ServerRequest, response: Http2ServerResponse): void {
  arrived.push(request.headers)
  const name = decodeURIComponent(request.url.slice(1))
  const { status = 200, head, pack } = { ...HIDDEN, ...SEARCHED }[name] as Form
  const secret = String(request.headers.authorization).replace('Bearer ', '')
  const body = pack(Buffer.from(`before it, and then ${secret}, and after it`))
  response.writeHead(status, { ...head, 'content-length': body.length })
  response.end(body)
}

interface Got {
  readonly code: string | undefined
  readonly bytes: Buffer
}

const overHttp1 = async (name: string): Promise<Got> => {
  const head = `GET https://odd.keyless.test:${upstreamPort}/${encodeURIComponent(name)} HTTP/1.1\r\nHost: odd.keyless.test:${upstreamPort}\r\n`
  const { bytes } = await say(port, `${head}Proxy-Authorization: ${basic(handle)}\r\n${ASKS}Connection: close\r\n\r\n`)
  return { code: /^keyless-error: *(\w+)/im.exec(bytes.toString('latin1'))?.[1], bytes }
}

/** Everything that asks for what cannot be searched. */
const ASKS =
  'grpc-accept-encoding: gzip\r\nconnect-accept-encoding: br\r\na-im: gzip\r\nrange: bytes=5-9\r\naccept-charset: ibm037\r\n'

const overHttp2 = async (name: string): Promise<Got> => {
  const authority = `odd.keyless.test:${upstreamPort}`
  const raw = connect(port, '127.0.0.1')
  raw.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\nProxy-Authorization: ${basic(handle)}\r\n\r\n`)
  await once(raw, 'data')
  const secure = connectTls({ socket: raw, servername: 'odd.keyless.test', ca, ALPNProtocols: ['h2'] })
  await once(secure, 'secureConnect')
  const session = connectHttp2(`https://${authority}`, { createConnection: () => secure })
  session.on('error', () => {})
  const asks = Object.fromEntries(
    ASKS.trim()
      .split('\r\n')
      .map((line) => line.split(': ')),
  )
  const stream = session.request({ ':path': `/${encodeURIComponent(name)}`, ...asks })
  const chunks: Buffer[] = []
  let head: Record<string, unknown> = {}
  stream.on('response', (headers) => {
    head = headers
  })
  stream.on('data', (chunk: Buffer) => chunks.push(chunk)).on('error', () => {})
  await new Promise<void>((resolve) => stream.once('close', resolve)) // `once` would reject where it is cut
  session.destroy()
  const bytes = Buffer.concat([Buffer.from(JSON.stringify(head)), ...chunks])
  return { code: head['keyless-error'] as string | undefined, bytes }
}

describe.each([
  ['HTTP/1.1', overHttp1],
  ['HTTP/2', overHttp2],
] as const)('over %s', (_, ask) => {
  it.each(Object.keys(HIDDEN))('%s: withheld', async (name) => {
    const before = arrived.length
    const { code, bytes } = await ask(name)
    expect(arrived.length).toBeGreaterThan(before)
    const form = HIDDEN[name] as Form
    if (!form.isFoundLate) expect(code, bytes.toString('latin1')).toBe('upstream_encoding')
    expect(bytes.toString('latin1')).not.toContain('before it')
    expect(bytes.includes(form.pack(Buffer.from(`before it, and then ${key}, and after it`)))).toBe(false)
    expect(findCanary(bytes, key)).toEqual([])
  })

  it.each(Object.keys(SEARCHED))('%s: searched', async (name) => {
    const { code, bytes } = await ask(name)
    expect(code).toBe(undefined)
    const text = bytes.toString('latin1').replaceAll('\0', '')
    expect(text).toContain('before it, and then ***')
    expect(text).toContain('**, and after it')
    expect(findCanary(text, key)).toEqual([])
  })

  it('and none of it is asked for', () => {
    for (const head of arrived) for (const name of ASKS.match(/^[\w-]+/gm) ?? []) expect(head).not.toHaveProperty(name)
  })
})
