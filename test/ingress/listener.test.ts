import { once } from 'node:events'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { basic, type Echo, HANDLE, type OpenDoor, openDoor } from './door.fixture.ts'
import { openWire, type Wire } from './wire.fixture.ts'

let door: OpenDoor
beforeAll(async () => {
  door = await openDoor()
})
afterAll(() => door.close())

const AUTH = `Proxy-Authorization: ${basic('task', HANDLE)}\r\n`
const POST = `POST http://shop.example/x HTTP/1.1\r\nHost: shop.example\r\n${AUTH}`

async function isAlive(): Promise<void> {
  const wire = await openWire(door.port)
  wire.write(`GET http://shop.example/alive HTTP/1.1\r\nHost: shop.example\r\n${AUTH}\r\n`)
  expect((await wire.answer()).status).toBe(200)
  wire.destroy()
}

test.each([
  ['Content-Length and Transfer-Encoding', `${POST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
  ['Transfer-Encoding and Content-Length', `${POST}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n`],
  ['two equal Content-Lengths', `${POST}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello`],
  ['two different Content-Lengths', `${POST}Content-Length: 5\r\ncontent-length: 6\r\n\r\nhello!`],
  ['a list as Content-Length', `${POST}Content-Length: 5, 5\r\n\r\nhello`],
  ['a signed Content-Length', `${POST}Content-Length: +5\r\n\r\nhello`],
  ['Transfer-Encoding: chunkedx', `${POST}Transfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n`],
  ['Transfer-Encoding: xchunked', `${POST}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n`],
  ['Transfer-Encoding: gzip, chunked', `${POST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`],
  ['two Transfer-Encodings', `${POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
  ['chunked before another coding', `${POST}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n`],
  ['a folded header', `${POST}X-A: 1\r\n 2\r\n\r\n`],
  ['a bare LF', `GET http://shop.example/ HTTP/1.1\nHost: shop.example\n${AUTH}\n\n`],
  ['a space before the colon', `${POST}X-A : 1\r\n\r\n`],
  ['a space before the colon of Content-Length', `${POST}Content-Length : 5\r\n\r\nhello`],
  ['a NUL in a value', `${POST}X-A: 1\0 2\r\n\r\n`],
  ['a NUL in a name', `${POST}X\0A: 1\r\n\r\n`],
  ['a NUL in the target', `GET http://shop.example/\0 HTTP/1.1\r\nHost: shop.example\r\n\r\n`],
  ['a bare CR', `${POST}X-A: 1\rX-B: 2\r\n\r\n`],
  ['no Host in HTTP/1.1', `GET http://shop.example/ HTTP/1.1\r\n${AUTH}\r\n`],
  ['an empty header name', `${POST}: 1\r\n\r\n`],
  ['an unknown version', `GET http://shop.example/ HTTP/3.7\r\nHost: shop.example\r\n\r\n`],
  ['an HTTP/2 preface', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
  ['a TLS ClientHello on the port itself', Buffer.from('16030100050100000103', 'hex')],
  ['binary noise', Buffer.from(Array.from({ length: 512 }, (_, i) => (i * 37) % 256))],
])('%s is answered with 400 or closed, and reaches nobody', async (_what, bytes) => {
  const before = door.upstream.received
  const wire = await openWire(door.port)
  wire.write(bytes)
  wire.stream.end()
  const said = await wire.closed()
  if (said !== '') expect(said).toMatch(/^HTTP\/1\.1 400 /)
  expect(door.upstream.received).toBe(before)
  await isAlive()
})

test.each([
  ['another coding than chunked', `${POST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`],
  [
    'chunks in HTTP/1.0',
    `${POST.replace('1.1', '1.0')}Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
  ],
])('what is sent along behind %s is no request, and the connection ends', async (_what, bytes) => {
  const before = door.calls.length
  const wire = await openWire(door.port)
  wire.write(`${bytes}GET http://shop.example/behind HTTP/1.1\r\nHost: shop.example\r\n${AUTH}\r\n`)
  const said = await wire.closed()
  expect(said.match(/^HTTP\/1\.1 \d\d\d /gm)).toEqual(['HTTP/1.1 400 '])
  expect(door.calls.length).toBe(before + 1)
})

test('no bytes, random or a request with random damage, reach the upstream twice or kill the listener', async () => {
  const request = Buffer.from(`${POST}Content-Length: 5\r\nX-A: 1\r\n\r\nhello`)
  const damaged = fc
    .tuple(fc.nat(request.length - 1), fc.uint8Array({ maxLength: 4 }), fc.nat(3))
    .map(([at, bytes, cut]) => Buffer.concat([request.subarray(0, at), bytes, request.subarray(at + cut)]))
  await fc.assert(
    fc.asyncProperty(fc.oneof(fc.uint8Array({ maxLength: 300 }), damaged), async (bytes) => {
      await isAlive() // by its answer, what the run before sent on has arrived too
      const before = door.upstream.received
      const wire = await openWire(door.port)
      wire.write(Buffer.from(bytes))
      wire.stream.end()
      const said = await wire.closed()
      if (said !== '' && !said.startsWith('\x05')) expect(said).toMatch(/^HTTP\/1\.[01] [1-5]\d\d /) // 5 is SOCKS
      expect(door.upstream.received - before).toBeLessThanOrEqual(1)
    }),
    { numRuns: 300 },
  )
  await isAlive()
})

test('what the parser refuses is explained as a problem document, and the connection closed', async () => {
  const wire = await openWire(door.port)
  wire.write(`${POST}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello`)
  const answer = await wire.answer()
  expect(answer.status).toBe(400)
  expect(answer.headers.get('content-type')).toBe('application/problem+json')
  expect(answer.headers.get('connection')).toBe('close')
  expect(JSON.parse(answer.body)).toMatchObject({ code: 'request_malformed', remedy: 'fix_request' })
  await wire.closed()
})

test('a head above 64 KiB is refused with a reason', async () => {
  const wire = await openWire(door.port)
  wire.write(`GET http://shop.example/ HTTP/1.1\r\nHost: shop.example\r\nX-Big: ${'x'.repeat(200_000)}\r\n\r\n`)
  const answer = await wire.answer()
  expect(answer.status).toBe(400)
  expect(JSON.parse(answer.body).detail).toContain('65536')
  wire.destroy()
})

test('40 KB of header pass', async () => {
  const wire = await openWire(door.port)
  wire.write(`GET http://shop.example/ HTTP/1.1\r\nHost: shop.example\r\n${AUTH}X-Big: ${'x'.repeat(40_000)}\r\n\r\n`)
  expect((await wire.answer()).status).toBe(200)
  wire.destroy()
})

test('an offer of h2c is ignored: the request is served as HTTP/1.1', async () => {
  const wire = await openWire(door.port)
  wire.write(
    `${POST}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nContent-Length: 5\r\n\r\nhello`,
  )
  const answer = await wire.answer()
  expect(answer.status).toBe(200)
  expect((JSON.parse(answer.body) as Echo).bytes).toBe(5)
  expect((JSON.parse(answer.body) as Echo).headers.map((text) => text.toLowerCase())).not.toContain('upgrade')
  wire.destroy()
})

test.each(['http://shop.example/ws', 'ws://shop.example/ws'])(
  'a WebSocket handshake to %s is refused and recorded',
  async (target) => {
    const wire = await openWire(door.port)
    wire.write(
      `GET ${target} HTTP/1.1\r\nHost: shop.example\r\n${AUTH}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n`,
    )
    const answer = await wire.answer()
    expect(answer.headers.get('keyless-error')).toBe('upgrade_refused')
    expect(door.refused.at(-1)?.code).toBe('upgrade_refused')
    wire.destroy()
  },
)

test('100 Continue is sent when the call is allowed, then the body passes', async () => {
  const wire = await openWire(door.port)
  wire.write(`${POST}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n`)
  expect((await wire.answer()).status).toBe(100)
  wire.write('hello')
  const answer = await wire.answer()
  expect(answer.status).toBe(200)
  expect((JSON.parse(answer.body) as Echo).bytes).toBe(5)
  wire.destroy()
})

test('a refused call is never told to continue, and the connection closes', async () => {
  const wire = await openWire(door.port)
  wire.write(
    `POST http://shop.example/denied HTTP/1.1\r\nHost: shop.example\r\n${AUTH}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n`,
  )
  const answer = await wire.answer()
  expect(answer.status).toBe(403)
  expect(answer.headers.get('connection')).toBe('close')
  wire.stream.end()
  expect(await wire.closed()).toBe('')
})

test('a body sent at once in spite of Expect is accepted', async () => {
  const wire = await openWire(door.port)
  wire.write(`${POST}Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello`)
  let answer = await wire.answer()
  if (answer.status === 100) answer = await wire.answer()
  expect((JSON.parse(answer.body) as Echo).bytes).toBe(5)
  wire.destroy()
})

test('a small unread body does not break the connection after a refusal', async () => {
  const wire = await openWire(door.port)
  const body = 'x'.repeat(100_000)
  wire.write(
    `POST http://shop.example/denied HTTP/1.1\r\nHost: shop.example\r\n${AUTH}Content-Length: ${body.length}\r\n\r\n${body}`,
  )
  expect((await wire.answer()).status).toBe(403)
  wire.write(`${POST}Content-Length: 2\r\n\r\nok`)
  const answer = await wire.answer()
  expect((JSON.parse(answer.body) as Echo).bytes).toBe(2)
  wire.destroy()
})

test.each(['Content-Length: 8388608', 'Transfer-Encoding: chunked'])(
  'a client that reads only after writing 8 MB (%s) still gets its refusal',
  async (framing) => {
    const wire = await openWire(door.port)
    wire.write(`POST http://shop.example/denied HTTP/1.1\r\nHost: shop.example\r\n${AUTH}${framing}\r\n\r\n`)
    const size = Buffer.from(framing.includes('chunked') ? '100000\r\n' : '')
    const end = framing.includes('chunked') ? '\r\n' : ''
    for (let i = 0; i < 8; i++) {
      const hasRoom = wire.stream.write(Buffer.concat([size, Buffer.alloc(1 << 20, 'x'), Buffer.from(end)]))
      if (!hasRoom) await once(wire.stream, 'drain')
    }
    if (framing.includes('chunked')) wire.write('0\r\n\r\n')
    const answer = await wire.answer()
    expect(answer.status).toBe(403)
    expect(answer.headers.get('connection')).toBe('close')
    expect(await wire.closed()).toBe('')
  },
)

test('HEAD gets the head of a refusal without its body, and the connection goes on', async () => {
  const wire = await openWire(door.port)
  wire.write(`HEAD http://shop.example/denied HTTP/1.1\r\nHost: shop.example\r\n${AUTH}\r\n`)
  expect((await wire.answer({ head: true })).status).toBe(403)
  wire.write(`GET http://shop.example/after HTTP/1.1\r\nHost: shop.example\r\n${AUTH}\r\n`)
  expect((await wire.answer()).status).toBe(200)
  wire.destroy()
})

test('an empty body is no body', async () => {
  const wire = await openWire(door.port)
  wire.write(`${POST}Content-Length: 0\r\n\r\n`)
  expect((await wire.answer()).status).toBe(200)
  expect(door.calls.at(-1)?.body).toBeNull()
  wire.destroy()
})

test('a client that half-closes before its answer harms nobody', async () => {
  const wire = await openWire(door.port)
  wire.write(`GET http://shop.example/slow HTTP/1.1\r\nHost: shop.example\r\n${AUTH}\r\n`)
  wire.stream.end()
  await wire.closed()
  await isAlive()
})

test('200 clients that leave before the head, mid-answer and mid-upload leave nothing behind', async () => {
  const leave = async (i: number): Promise<void> => {
    const wire = await openWire(door.port)
    const heads = [
      `GET http://shop.example/slow HTTP/1.1\r\nHost: shop.example\r\n${AUTH}\r\n`,
      `GET http://shop.example/endless HTTP/1.1\r\nHost: shop.example\r\n${AUTH}\r\n`,
      `${POST}Content-Length: 1000000\r\n\r\nsome`,
      `GET http://shop.exam`,
    ]
    wire.write(heads[i % 4] as string)
    if (i % 4 === 1) await once(wire.stream, 'data')
    else await new Promise(setImmediate)
    wire.destroy()
    await once(wire.stream, 'close')
  }
  await Promise.all(Array.from({ length: 200 }, (_, i) => leave(i)))
  await Promise.all(Array.from({ length: 50 }, isAlive))
})

test('a draining door refuses new requests, finishes those in flight, and closes idle connections at once', async () => {
  const own = await openDoor()
  const idle = await openWire(own.port)
  idle.write(`GET http://shop.example/ HTTP/1.1\r\nHost: shop.example\r\n${AUTH}\r\n`)
  await idle.answer()
  const waiting = await openWire(own.port) // a tunnel in which nothing was said yet
  waiting.write(`CONNECT shop.example:80 HTTP/1.1\r\nHost: shop.example:80\r\n${AUTH}\r\n`)
  await waiting.answer()
  const busy = await openWire(own.port)
  busy.write(`GET http://shop.example/slow HTTP/1.1\r\nHost: shop.example\r\n${AUTH}\r\n`)
  while (own.upstream.received < 2) await new Promise(setImmediate)
  const drained = own.door.drain(5_000)
  await idle.closed()
  await waiting.closed()
  await expect(openWire(own.port)).rejects.toThrow()
  busy.write(`GET http://shop.example/late HTTP/1.1\r\nHost: shop.example\r\n${AUTH}\r\n`)
  expect((await busy.answer()).status).toBe(200)
  const late = await busy.answer()
  expect(late.status).toBe(503)
  expect(late.headers.get('keyless-error')).toBe('draining')
  await busy.closed()
  await drained
  await own.close()
})

test('what does not finish within the grace is cut, visibly', async () => {
  const own = await openDoor()
  const wire = await openWire(own.port)
  wire.write(`GET http://shop.example/endless HTTP/1.1\r\nHost: shop.example\r\n${AUTH}\r\n`)
  await once(wire.stream, 'data')
  await own.door.drain(50)
  expect(await wire.closed()).not.toMatch(/\r\n0\r\n\r\n$/)
  await own.close()
})

test('a port that is taken is an error, not a crash', async () => {
  await expect(
    import('../../gateway/ingress/listener.ts').then(({ openProxyDoor }) =>
      openProxyDoor({
        host: '127.0.0.1',
        port: door.port,
        tenant: 'default',
        rooms: {} as never,
        route: () => undefined,
        authority: door.authority,
        clock: { nowMs: Date.now, elapsedMs: Date.now },
      }),
    ),
  ).rejects.toThrow(/EADDRINUSE.+listen\.proxy/)
})

test('a flood of connections that ask nothing keeps nobody out: the oldest idle one makes room', async () => {
  const small = await openDoor({ maxConnections: 16 })
  const busy = await openWire(small.port)
  busy.write(`GET http://shop.example/endless HTTP/1.1\r\nHost: shop.example\r\n${AUTH}\r\n`)
  await once(busy.stream, 'data')
  const flood: Wire[] = []
  for (let i = 0; i < 64; i++) flood.push(await openWire(small.port))
  await Promise.all(flood.slice(0, 48).map((wire) => wire.closed()))
  const late = await openWire(small.port)
  late.write(`GET http://shop.example/x HTTP/1.1\r\nHost: shop.example\r\n${AUTH}\r\n`)
  expect((await late.answer()).status).toBe(200)
  await once(busy.stream, 'data') // what was under way goes on
  for (const wire of [busy, late, ...flood]) wire.destroy()
  await small.close()
})
