import { once } from 'node:events'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { basic, HANDLE, type OpenDoor, openDoor } from './door.fixture.ts'
import { openWire, type Wire } from './wire.fixture.ts'

let door: OpenDoor
beforeAll(async () => {
  door = await openDoor()
})
afterAll(() => door.close())

const AUTH = `Proxy-Authorization: ${basic('task', HANDLE)}\r\n`

async function tunnel(
  place: string,
  head = `CONNECT ${place} HTTP/1.1\r\nHost: ${place}\r\n${AUTH}\r\n`,
): Promise<Wire> {
  const wire = await openWire(door.port)
  wire.write(head)
  const answer = await wire.answer()
  expect(answer.status).toBe(200)
  expect(answer.headers.size).toBe(0) // RFC 9110 §9.3.6: no framing on a 2xx to CONNECT
  return wire
}

test('a CONNECT without credentials gets 407 on a connection on which the retry succeeds', async () => {
  const wire = await openWire(door.port)
  wire.write('CONNECT api.github.test:443 HTTP/1.1\r\nHost: api.github.test:443\r\n\r\n')
  const first = await wire.answer()
  expect(first.status).toBe(407)
  expect(first.reason).toBe('No grant was presented (keyless grant_missing)')
  expect(first.headers.get('proxy-authenticate')).toBe('Basic realm="keyless"')
  expect(first.headers.get('connection')).toBe('keep-alive')
  expect(door.refused.at(-1)).toEqual({ id: JSON.parse(first.body).instance, code: 'grant_missing' })
  wire.write(
    `CONNECT api.github.test:443 HTTP/1.1\r\nHost: api.github.test:443\r\nProxy-Authorization: ${basic('t', 'kh_wrong')}\r\n\r\n`,
  )
  expect((await wire.answer()).status).toBe(407)
  wire.write(`CONNECT api.github.test:443 HTTP/1.1\r\nHost: api.github.test:443\r\n${AUTH}\r\n`)
  expect((await wire.answer()).status).toBe(200)
  const inside = await wire.secure({ servername: 'api.github.test', ca: door.authority.caPem })
  inside.write('GET /user HTTP/1.1\r\nHost: api.github.test\r\n\r\n')
  expect((await inside.answer()).status).toBe(200)
  inside.destroy()
})

test('after a refused CONNECT the same connection also serves an ordinary request', async () => {
  const wire = await openWire(door.port)
  wire.write('CONNECT api.github.test:443 HTTP/1.1\r\nHost: api.github.test:443\r\n\r\n')
  expect((await wire.answer()).status).toBe(407)
  wire.write(`GET http://shop.example/ HTTP/1.1\r\nHost: shop.example\r\n${AUTH}\r\n`)
  expect((await wire.answer()).status).toBe(200)
  wire.destroy()
})

test.each([
  ['HTTP/1.0 without Host', 'CONNECT api.github.test:443 HTTP/1.0\r\n\r\n'],
  [
    'Connection: close',
    'CONNECT api.github.test:443 HTTP/1.1\r\nHost: api.github.test:443\r\nConnection: close\r\n\r\n',
  ],
])('a refused CONNECT with %s is answered and closed', async (_what, head) => {
  const wire = await openWire(door.port)
  wire.write(head)
  const answer = await wire.answer()
  expect(answer.status).toBe(407)
  expect(answer.headers.get('connection')).toBe('close')
  expect(await wire.closed()).toBe('')
})

test('HTTP/1.0 CONNECT without Host opens a tunnel, as Python sends it', async () => {
  const wire = await tunnel('', `CONNECT api.github.test:443 HTTP/1.0\r\n${AUTH}\r\n`)
  const inside = await wire.secure({ servername: 'api.github.test', ca: door.authority.caPem })
  inside.write('GET /x HTTP/1.1\r\nHost: api.github.test\r\n\r\n')
  expect((await inside.answer()).status).toBe(200)
  inside.destroy()
})

test('cleartext HTTP inside a tunnel is served, with keep-alive', async () => {
  const wire = await tunnel('shop.example:80')
  for (const path of ['/1', '/2']) {
    wire.write(`GET ${path} HTTP/1.1\r\nHost: shop.example\r\n\r\n`)
    expect(JSON.parse((await wire.answer()).body).url).toBe(path)
  }
  expect(door.calls.at(-1)).toMatchObject({ mode: 'intercept', scheme: 'http', host: 'shop.example', port: 80 })
  wire.destroy()
})

test('bytes sent together with the CONNECT are not lost', async () => {
  const wire = await openWire(door.port)
  wire.write(
    `CONNECT shop.example:80 HTTP/1.1\r\nHost: shop.example:80\r\n${AUTH}\r\nGET /early HTTP/1.1\r\nHost: shop.example\r\n\r\n`,
  )
  expect((await wire.answer()).status).toBe(200)
  expect(JSON.parse((await wire.answer()).body).url).toBe('/early')
  wire.destroy()
})

test('a request inside a cleartext tunnel that arrives byte by byte is served', async () => {
  const wire = await tunnel('shop.example:80')
  for (const byte of 'GET /slowly HTTP/1.1\r\nHost: shop.example\r\n\r\n') {
    wire.write(byte)
    await new Promise(setImmediate)
  }
  expect(JSON.parse((await wire.answer()).body).url).toBe('/slowly')
  wire.destroy()
})

test('CONNECT to an IPv6 literal opens a tunnel with a certificate for the address', async () => {
  const wire = await tunnel('[2001:db8::1]:443')
  const inside = await wire.secure({ host: '2001:db8::1', ca: door.authority.caPem })
  inside.write('GET / HTTP/1.1\r\nHost: [2001:db8::1]\r\n\r\n')
  expect((await inside.answer()).status).toBe(200)
  expect(door.calls.at(-1)).toMatchObject({ host: '2001:db8::1', port: 443, scheme: 'https' })
  inside.destroy()
})

test.each(['api.github.test:0', 'user@api.github.test:443', 'a b:443', '*.test:443', ':443', '[::1:443', '0x7f.1:443'])(
  'CONNECT %s is refused and the listener lives on',
  async (place) => {
    const wire = await openWire(door.port)
    wire.write(`CONNECT ${place} HTTP/1.1\r\nHost: x\r\n${AUTH}\r\n`)
    expect((await wire.answer()).status).toBe(400)
    wire.destroy()
    ;(await tunnel('api.github.test:443')).destroy()
  },
)

test('a CONNECT with content is refused', async () => {
  const wire = await openWire(door.port)
  wire.write(
    `CONNECT api.github.test:443 HTTP/1.1\r\nHost: api.github.test:443\r\n${AUTH}Content-Length: 5\r\n\r\nhello`,
  )
  expect(await wire.closed()).not.toContain('200')
})

test('a CONNECT pipelined behind an unanswered request cuts the connection', async () => {
  const wire = await openWire(door.port)
  wire.write(
    `GET http://shop.example/slow HTTP/1.1\r\nHost: shop.example\r\n${AUTH}\r\nCONNECT shop.example:80 HTTP/1.1\r\nHost: shop.example:80\r\n${AUTH}\r\n`,
  )
  expect(await wire.closed()).toBe('')
})

test('CONNECT inside a tunnel is refused', async () => {
  const wire = await tunnel('shop.example:80')
  wire.write(`CONNECT api.github.test:443 HTTP/1.1\r\nHost: api.github.test:443\r\n${AUTH}\r\n`)
  const answer = await wire.answer()
  expect(answer.status).toBe(405)
  expect(answer.headers.get('allow')).toContain('GET')
  wire.destroy()
})

test('a client that closes right after the tunnel opened leaves nothing behind', async () => {
  const wire = await tunnel('api.github.test:443')
  wire.stream.end()
  await wire.closed()
})

test('a client that leaves while its CONNECT is being authenticated harms nobody', async () => {
  for (let i = 0; i < 20; i++) {
    const wire = await openWire(door.port)
    wire.write(`CONNECT api.github.test:443 HTTP/1.1\r\nHost: api.github.test:443\r\n${AUTH}\r\n`)
    wire.destroy()
    await once(wire.stream, 'close')
  }
  ;(await tunnel('api.github.test:443')).destroy()
})

test('garbage in a tunnel is answered with 400 and closed', async () => {
  const wire = await tunnel('shop.example:80')
  wire.write(Buffer.from([0x00, 0xff, 0x01, 0x0d, 0x0a, 0x0d, 0x0a]))
  expect((await wire.answer()).status).toBe(400)
  await wire.closed()
})
