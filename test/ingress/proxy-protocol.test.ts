import { connect } from 'node:net'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it, test } from 'vitest'
import { createAnnouncers } from '../../gateway/ingress/proxy-protocol.ts'
import { basic, HANDLE, type OpenDoor, openDoor } from './door.fixture.ts'
import { type Wire, wireOn } from './wire.fixture.ts'

const AUTH = `Proxy-Authorization: ${basic('task', HANDLE)}\r\n`
const GET = `GET http://shop.test/x HTTP/1.1\r\nHost: shop.test\r\n${AUTH}\r\n`
const BALANCER = '127.0.0.9'

let door: OpenDoor
beforeAll(async () => {
  door = await openDoor({ announcedBy: [`${BALANCER}/32`, '2001:db8::/32'] })
})
afterAll(() => door.close())

function from(address: string, ...writes: (string | Buffer)[]): Wire {
  const socket = connect({ port: door.port, host: '127.0.0.1', localAddress: address, noDelay: true })
  for (const bytes of writes) socket.write(bytes)
  return wireOn(socket)
}

/** The address that the record has of a request behind this announcement. */
async function announced(...announcement: (string | Buffer)[]): Promise<string | undefined> {
  const wire = from(BALANCER, ...announcement, GET)
  expect((await wire.answer()).status).toBe(200)
  wire.destroy()
  return door.calls.at(-1)?.client.address
}

/** Version 2: command, family and transport, then addresses and whatever follows them. */
function binary(command: number, transport: number, body: Buffer): Buffer {
  const head = Buffer.from('\r\n\r\n\0\r\nQUIT\n\0\0\0\0', 'latin1')
  head[12] = command
  head[13] = transport
  head.writeUInt16BE(body.length, 14)
  return Buffer.concat([head, body])
}

const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex')
const OVER_IPV4 = hex('c6336407 c0000201 1000 0050')
const OVER_IPV6 = hex('20010db8 00000000 00000000 00000007 20010db8 00000000 00000000 00000001 1000 01bb')
const TLV = hex('04 0003 aabbcc')

describe('behind a balancer, the caller has the address that was announced', () => {
  it.each([
    ['version 1', 'PROXY TCP4 198.51.100.7 192.0.2.1 4096 80\r\n', '198.51.100.7'],
    ['version 1, IPv6', 'PROXY TCP6 2001:db8::7 2001:db8::1 4096 443\r\n', '2001:db8::7'],
    ['version 1, IPv4 written as IPv6', 'PROXY TCP6 ::ffff:198.51.100.7 ::1 1 2\r\n', '198.51.100.7'],
    ['version 2', binary(0x21, 0x11, OVER_IPV4), '198.51.100.7'],
    ['version 2, IPv6', binary(0x21, 0x21, OVER_IPV6), '2001:db8::7'],
    ['version 2 with more than addresses', binary(0x21, 0x11, Buffer.concat([OVER_IPV4, TLV])), '198.51.100.7'],
  ])('%s', async (_what, bytes, address) => {
    expect(await announced(bytes)).toBe(address)
  })

  it('however it is cut', async () => {
    for (const bytes of [Buffer.from('PROXY TCP4 198.51.100.7 192.0.2.1 1 2\r\n'), binary(0x21, 0x11, OVER_IPV4)]) {
      const wire = from(BALANCER)
      for (const byte of bytes) {
        await new Promise<void>((resolve) => wire.stream.write(Buffer.from([byte]), () => resolve()))
        await new Promise(setImmediate)
      }
      wire.write(GET)
      expect((await wire.answer()).status).toBe(200)
      expect(door.calls.at(-1)?.client.address).toBe('198.51.100.7')
      wire.destroy()
    }
  })

  it('and every request and tunnel of the connection has it', async () => {
    const wire = from(BALANCER, 'PROXY TCP4 198.51.100.7 192.0.2.1 1 2\r\n')
    const connecting = `CONNECT api.github.test:443 HTTP/1.1\r\nHost: api.github.test:443\r\n`
    wire.write(`${connecting}\r\n`)
    expect((await wire.answer()).status).toBe(407)
    expect(door.calls.at(-1)?.client.address).toBe('198.51.100.7')
    wire.write(`${connecting}${AUTH}\r\n`)
    await wire.answer()
    const inside = await wire.secure({ ca: door.authority.caPem, servername: 'api.github.test' })
    inside.write('GET /user HTTP/1.1\r\nHost: api.github.test\r\n\r\n')
    await inside.answer()
    expect(door.calls.at(-1)).toMatchObject({ mode: 'intercept', client: { address: '198.51.100.7' } })
    inside.destroy()
  })

  it('or of the balancer, where it speaks for itself or knows none', async () => {
    expect(await announced(binary(0x20, 0x00, Buffer.alloc(0)))).toBe(BALANCER)
    expect(await announced(binary(0x20, 0x11, OVER_IPV4))).toBe(BALANCER)
    expect(await announced(binary(0x21, 0x00, TLV))).toBe(BALANCER)
    expect(await announced(binary(0x21, 0x31, Buffer.alloc(216, 0x2f)))).toBe(BALANCER)
    expect(await announced('PROXY UNKNOWN\r\n')).toBe(BALANCER)
    expect(await announced('PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n')).toBe(BALANCER)
  })
})

describe('a listed balancer is refused', () => {
  it.each([
    ['that announces nothing', GET],
    ['that speaks TLS at once', hex('160301 0005 0100000103')],
    ['with another version', binary(0x11, 0x11, OVER_IPV4)],
    ['with an unknown command', binary(0x22, 0x11, OVER_IPV4)],
    ['about UDP', binary(0x21, 0x12, OVER_IPV4)],
    ['with addresses cut short', binary(0x21, 0x11, OVER_IPV4.subarray(0, 8))],
    ['with an IPv6 address as TCP4', 'PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n'],
    ['with an address that is none', 'PROXY TCP4 198.51.100.777 192.0.2.1 1 2\r\n'],
    ['with a port that is none', 'PROXY TCP4 198.51.100.7 192.0.2.1 1 65536\r\n'],
    ['with two spaces', 'PROXY TCP4  198.51.100.7 192.0.2.1 1 2\r\n'],
    ['with a bare line feed', 'PROXY TCP4 198.51.100.7 192.0.2.1 1 2\n'],
    ['with a line that does not end', `PROXY UNKNOWN ${'x'.repeat(200)}\r\n`],
  ])('%s', async (_what, bytes) => {
    const before = door.calls.length
    const refused = await from(BALANCER, bytes, GET).answer()
    expect([refused.status, refused.body]).toEqual([400, expect.stringContaining('listen.proxy_protocol')])
    expect(door.calls).toHaveLength(before)
  })
})

describe('anybody else', () => {
  it('is served without, by the address that it has', async () => {
    const wire = from('127.0.0.1', GET)
    expect((await wire.answer()).status).toBe(200)
    expect(door.calls.at(-1)?.client.address).toBe('127.0.0.1')
    wire.destroy()
  })

  it.each(['PROXY TCP4 198.51.100.7 192.0.2.1 1 2\r\n', binary(0x21, 0x11, OVER_IPV4)])(
    'is refused when it announces, and believed in nothing',
    async (bytes) => {
      const before = door.calls.length
      const refused = await from('127.0.0.1', bytes, GET).answer()
      expect(refused.status).toBe(400)
      expect(refused.body).toContain('listen.proxy_protocol.from')
      expect(door.calls).toHaveLength(before)
    },
  )
})

test('no bytes of a balancer make the door serve what was not announced, or end it', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 60 }), fc.nat(11), async (noise, at) => {
      const bytes = Buffer.concat([binary(0x21, 0x11, OVER_IPV4).subarray(0, at), noise])
      const wire = from(BALANCER, bytes)
      wire.stream.end()
      expect(await wire.closed()).not.toMatch(/^HTTP\/1\.1 200/)
    }),
    { numRuns: 60 },
  )
  expect(await announced('PROXY TCP4 198.51.100.7 192.0.2.1 1 2\r\n')).toBe('198.51.100.7')
})

test('who may announce is a list of ranges', () => {
  const announcers = createAnnouncers(['10.0.0.0/8', '192.0.2.7/32', '2001:db8::/32'])
  const isListed = ['10.255.0.1', '11.0.0.1', '192.0.2.7', '192.0.2.8', '2001:db8::1', '2001:db9::1', '', 'x']
  expect(isListed.map((address) => announcers.has(address))).toEqual([
    true,
    false,
    true,
    false,
    true,
    false,
    false,
    false,
  ])
})
