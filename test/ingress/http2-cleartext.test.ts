/** HTTP/2 is spoken inside TLS alone, after ALPN. Whoever begins with it elsewhere is told so, or gets HTTP/1.1. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { basic, HANDLE, type OpenDoor, openDoor } from './door.fixture.ts'
import { secured } from './http2.fixture.ts'
import { FRAME, frame } from './http2-frames.fixture.ts'
import { openWire, type Wire, wireOn } from './wire.fixture.ts'

let door: OpenDoor
beforeAll(async () => {
  door = await openDoor()
})
afterAll(() => door.close())

const PREFACE = Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frame(FRAME.SETTINGS, 0, 0)])
const AUTH = `Proxy-Authorization: ${basic('t', HANDLE)}\r\n`

async function tunnel(place: string): Promise<Wire> {
  const wire = await openWire(door.port)
  wire.write(`CONNECT ${place} HTTP/1.1\r\nHost: ${place}\r\n${AUTH}\r\n`)
  expect((await wire.answer()).status).toBe(200)
  return wire
}

test.each<[string, () => Promise<Wire>]>([
  ['on the port itself', () => openWire(door.port)],
  ['inside a cleartext tunnel', () => tunnel('shop.example:80')],
  [
    'inside TLS in which ALPN chose http/1.1',
    async () =>
      (await tunnel('api.github.test:443')).secure({
        servername: 'api.github.test',
        ca: door.authority.caPem,
        ALPNProtocols: ['http/1.1'],
      }),
  ],
])('the preface of HTTP/2 %s is answered with 400 that says where it is spoken', async (_where, open) => {
  const wire = await open()
  wire.write(PREFACE)
  const answer = await wire.answer()
  expect(answer.status).toBe(400)
  expect(JSON.parse(answer.body).detail).toMatch(/HTTP\/2 is spoken inside TLS/)
  await wire.closed()
})

test('HTTP/1.1 where ALPN chose h2 is an error of HTTP/2, and nothing is served', async () => {
  const before = door.calls.length
  const wire = wireOn(await secured(door))
  wire.stream.resume()
  wire.write('GET / HTTP/1.1\r\nHost: api.github.test\r\n\r\n')
  expect(await wire.closed()).not.toContain('HTTP/1.1')
  expect(door.calls.length).toBe(before)
})

test.each(['shop.example', 'api.github.test'])('an offer to upgrade to h2c at %s is passed over', async (host) => {
  const wire = await openWire(door.port)
  wire.write(
    `GET http://${host}/ HTTP/1.1\r\nHost: ${host}\r\n${AUTH}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n`,
  )
  const answer = await wire.answer()
  expect(answer.status).toBe(200)
  const sent = (JSON.parse(answer.body) as { headers: string[] }).headers.map((text) => text.toLowerCase())
  expect(sent).not.toContain('upgrade')
  expect(sent).not.toContain('http2-settings')
  wire.destroy()
})
