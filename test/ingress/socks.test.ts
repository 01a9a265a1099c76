import { once } from 'node:events'
import { connect as connectTls } from 'node:tls'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it, test } from 'vitest'
import { serverNameIn } from '../../gateway/ingress/server-name.ts'
import { run } from '../rig/process.ts'
import { type Echo, HANDLE, type OpenDoor, openDoor } from './door.fixture.ts'
import { openWire, type Wire } from './wire.fixture.ts'

let door: OpenDoor
beforeAll(async () => {
  door = await openDoor()
})
afterAll(() => door.close())

const GREETING = Buffer.from([5, 1, 2])
const login = (user: string, password: string) => {
  const [name, secret] = [Buffer.from(user), Buffer.from(password)]
  return Buffer.concat([Buffer.from([1, name.length]), name, Buffer.from([secret.length]), secret])
}
const port = (number: number) => Buffer.from([number >> 8, number & 0xff])
const name = (host: string) => Buffer.concat([Buffer.from([3, host.length]), Buffer.from(host, 'latin1')])
const v4 = (...bytes: number[]) => Buffer.from([1, ...bytes])
const ask = (address: Buffer, to = 443, command = 1) => Buffer.concat([Buffer.from([5, command, 0]), address, port(to)])

const CHOSEN = '0502'
const WELCOME = '0100'
const DONE = '05000001000000000000'

/** Reads exact counts of raw bytes off a wire. */
async function bytesOf(wire: Wire, count: number): Promise<string> {
  let seen = Buffer.alloc(0)
  while (seen.length < count) {
    const [chunk] = await once(wire.stream, 'data')
    seen = Buffer.concat([seen, chunk])
  }
  return seen.toString('hex')
}

async function opened(address: Buffer, to = 443): Promise<Wire> {
  const wire = await openWire(door.port)
  for (const [sent, expected] of [
    [GREETING, CHOSEN],
    [login('task', HANDLE), WELCOME],
    [ask(address, to), DONE],
  ] as const) {
    wire.write(sent)
    expect(await bytesOf(wire, expected.length / 2)).toBe(expected)
  }
  wire.stream.removeAllListeners('data')
  return wire
}

async function secureOn(wire: Wire, options: { servername: string } | { host: string }) {
  const socket = connectTls({ socket: wire.stream as never, ca: door.authority.caPem, ...options })
  await once(socket, 'secureConnect')
  return socket
}

async function answerOn(socket: NodeJS.ReadWriteStream, host: string): Promise<string> {
  socket.write(`GET /user HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)
  let seen = ''
  for await (const chunk of socket) seen += chunk
  return seen
}

describe('a SOCKS5 tunnel', () => {
  it('leads to the name that was asked for, and what is inside is a request like any other', async () => {
    const socket = await secureOn(await opened(name('api.github.test')), { servername: 'api.github.test' })
    expect(await answerOn(socket, 'api.github.test')).toContain('"url":"/user"')
    expect(door.calls.at(-1)).toMatchObject({
      mode: 'intercept',
      scheme: 'https',
      host: 'api.github.test',
      port: 443,
      presented: { token: HANDLE, scheme: 'basic', user: 'task' },
      client: { address: '127.0.0.1' },
    })
  })

  it('carries cleartext HTTP too', async () => {
    const wire = await opened(name('shop.test'), 80)
    expect(await answerOn(wire.stream, 'shop.test')).toContain('"url":"/user"')
    expect(door.calls.at(-1)).toMatchObject({ scheme: 'http', host: 'shop.test', port: 80 })
  })

  it('has the certificate of the name that was asked for, whatever TLS names', async () => {
    const socket = await secureOn(await opened(name('api.github.test')), { servername: 'other.test' }).catch(
      (cause) => cause,
    )
    expect(socket).toMatchObject({ code: 'ERR_TLS_CERT_ALTNAME_INVALID' })
  })

  it('takes everything in one write, and every byte in a write of its own', async () => {
    const all = Buffer.concat([GREETING, login('task', HANDLE), ask(name('shop.test'), 80)])
    const request = 'GET /user HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n'
    const hasty = await openWire(door.port)
    hasty.write(Buffer.concat([all, Buffer.from(request)]))
    expect(await hasty.closed()).toContain('"url":"/user"')
    const slow = await openWire(door.port)
    for (const byte of [...all, ...Buffer.from(request)]) {
      await new Promise<void>((resolve) => slow.stream.write(Buffer.from([byte]), () => resolve()))
      await new Promise(setImmediate)
    }
    expect(await slow.closed()).toContain('"url":"/user"')
  })
})

describe('a client that resolved the name itself', () => {
  it('is served by the name of its TLS handshake, and the address it found counts for nothing', async () => {
    const socket = await secureOn(await opened(v4(169, 254, 169, 254)), { servername: 'api.github.test' })
    expect(await answerOn(socket, 'api.github.test')).toContain('"url":"/user"')
    expect(door.calls.at(-1)).toMatchObject({ host: 'api.github.test', port: 443 })
  })

  it('is held to that name by every request', async () => {
    const socket = await secureOn(await opened(v4(198, 51, 100, 7)), { servername: 'api.github.test' })
    expect(await answerOn(socket, 'api.openai.test')).toMatch(/^HTTP\/1\.1 421 [\s\S]*keyless-error: target_mismatch/)
  })

  it('asks for the address itself when it names nothing', async () => {
    const wire = await opened(
      Buffer.concat([Buffer.from([4]), Buffer.from('20010db8000000000000000000000001', 'hex')]),
      8443,
    )
    const socket = await secureOn(wire, { host: '2001:db8::1' })
    await answerOn(socket, '[2001:db8::1]:8443')
    expect(door.calls.at(-1)).toMatchObject({ host: '2001:db8::1', port: 8443 })
  })

  it('is told to leave names to the gateway when it speaks cleartext', async () => {
    const wire = await opened(v4(198, 51, 100, 7), 80)
    expect(await answerOn(wire.stream, 'shop.test')).toMatch(/^HTTP\/1\.1 421 [\s\S]*socks5h:/)
  })
})

describe('a SOCKS5 client that is not let in', () => {
  const refused = async (...writes: Buffer[]) => {
    const before = door.refused.length
    const wire = await openWire(door.port)
    for (const bytes of writes) wire.write(bytes)
    const said = Buffer.from(await wire.closed(), 'latin1').toString('hex')
    return { said, codes: door.refused.slice(before).map(({ code }) => code) }
  }

  it('without user name and password is told that no method is acceptable', async () => {
    expect(await refused(Buffer.from([5, 2, 0, 1]))).toEqual({ said: '05ff', codes: ['grant_missing'] })
    expect(await refused(Buffer.from([5, 0]))).toEqual({ said: '05ff', codes: ['grant_missing'] })
  })

  it('with a wrong or missing handle is rejected, and the reason is recorded', async () => {
    expect(await refused(GREETING, login('task', 'kh_wrong'))).toEqual({ said: '05020101', codes: ['grant_invalid'] })
    expect(await refused(GREETING, login('', ''))).toEqual({ said: '05020101', codes: ['grant_missing'] })
  })

  it('with a signed grant, cut at 255 bytes, is told to use the handle', async () => {
    expect(await refused(GREETING, login('task', 'e'.repeat(255)))).toEqual({
      said: '05020101',
      codes: ['grant_invalid'],
    })
  })

  it.each([
    ['BIND', ask(name('shop.test'), 80, 2), '05070001000000000000', 'method_refused'],
    ['UDP ASSOCIATE', ask(v4(0, 0, 0, 0), 53, 3), '05070001000000000000', 'method_refused'],
    ['a type of address that is none', Buffer.from([5, 1, 0, 9, 0, 0]), '05080001000000000000', 'request_malformed'],
    ['a name that is none', ask(name('a_b.test')), '05010001000000000000', 'request_malformed'],
    ['a name with a NUL', ask(name('shop.test\0.evil')), '05010001000000000000', 'request_malformed'],
    ['an address in disguise', ask(name('0x7f.1')), '05010001000000000000', 'request_malformed'],
    ['port 0', ask(name('shop.test'), 0), '05010001000000000000', 'request_malformed'],
  ])('%s is refused by its own code', async (_what, request, reply, code) => {
    expect(await refused(GREETING, login('task', HANDLE), request)).toEqual({
      said: CHOSEN + WELCOME + reply,
      codes: [code],
    })
  })

  it('is closed when it speaks something else', async () => {
    expect((await refused(GREETING, Buffer.from([2, 1, 65, 1, 65]))).said).toBe(CHOSEN)
    expect((await refused(GREETING, login('task', HANDLE), Buffer.from([4, 1, 0, 1]))).said).toBe(CHOSEN + WELCOME)
  })

  it('whatever it sends, the door stays open for others', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 80 }), fc.constantFrom(0, 3, 40), async (noise, kept) => {
        const good = Buffer.concat([GREETING, login('task', HANDLE), ask(name('shop.test'), 80)])
        const wire = await openWire(door.port)
        wire.write(Buffer.concat([kept === 0 ? Buffer.from([5]) : good.subarray(0, kept), noise]))
        wire.stream.end()
        await wire.closed()
      }),
      { numRuns: 100 },
    )
    await answerOn((await opened(name('shop.test'), 80)).stream, 'shop.test')
  })
})

test('a server name is found in a ClientHello, and never outside of it', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      const found = serverNameIn(Buffer.from([0x16, 3, 1, 0, bytes.length & 0xff, ...bytes]))
      expect(found === undefined || found.length <= bytes.length).toBe(true)
    }),
  )
})

describe('real clients', () => {
  const proxy = (scheme: string) => `${scheme}://task:${HANDLE}@127.0.0.1:${door.port}`

  it.each(['https://api.github.test/user', 'http://shop.test/x', 'https://[2001:db8::1]:8443/x'])(
    'curl reaches %s by socks5h',
    async (url) => {
      const { stdout, stderr } = await run('curl', ['-sS', '--cacert', door.caFile, '-x', proxy('socks5h'), url])
      expect((JSON.parse(stdout || '{}') as Echo).method, stderr).toBe('GET')
    },
  )

  it('curl reaches an API by socks5, having resolved its name itself', async () => {
    const resolved = ['--resolve', 'api.github.test:443:198.51.100.7']
    const args = ['-sS', '--cacert', door.caFile, ...resolved, '-x', proxy('socks5'), 'https://api.github.test/user']
    const { stdout, stderr } = await run('curl', args)
    expect((JSON.parse(stdout || '{}') as Echo).url, stderr).toBe('/user')
    expect(door.calls.at(-1)?.host).toBe('api.github.test')
  })

  it('curl says that a wrong handle was rejected', async () => {
    const wrong = `socks5h://task:kh_wrong@127.0.0.1:${door.port}`
    const { code, stderr } = await run('curl', ['-sS', '-x', wrong, 'https://api.github.test/user'])
    expect([code, stderr]).toEqual([97, expect.stringContaining('User was rejected by the SOCKS5 server')])
  })
})
