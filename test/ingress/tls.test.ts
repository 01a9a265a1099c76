import { createHash, X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect as connectTcp } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls'
import { afterAll, beforeAll, describe, expect, it, test } from 'vitest'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { trustDomain } from '../identity/svid.fixture.ts'
import { run } from '../rig/process.ts'
import { makeAuthority } from '../upstream/certificate.fixture.ts'
import { basic, type Echo, HANDLE, type OpenDoor, openDoor } from './door.fixture.ts'
import { openWire, type Wire, wireOn } from './wire.fixture.ts'

const AUTH = `Proxy-Authorization: ${basic('task', HANDLE)}\r\n`
const GET = `GET http://shop.test/x HTTP/1.1\r\nHost: shop.test\r\n${AUTH}\r\n`
const TUNNEL = `CONNECT api.github.test:443 HTTP/1.1\r\nHost: api.github.test:443\r\n${AUTH}\r\n`

let dir: string
let door: OpenDoor
let strict: OpenDoor
let root: string
let own: { cert: string; key: string }
const at = (name: string) => join(dir, name)

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'kl-proxy-tls-'))
  const authority = await makeAuthority()
  root = authority.pem
  const leaf = await authority.issue(['localhost', '127.0.0.1'])
  const acme = await trustDomain('acme.test', Date.now())
  const svid = await acme.issue('/agents/triage')
  own = { cert: svid.pem, key: svid.key }
  const files = {
    'door.pem': leaf.cert,
    'door.key': leaf.key,
    'root.pem': root,
    'svid.pem': svid.pem,
    'svid.key': svid.key,
  }
  for (const [name, text] of Object.entries(files)) writeFileSync(at(name), text)
  const tls = { cert: at('door.pem'), key: at('door.key'), clientCa: [] }
  const announcedBy = ['127.0.0.2/32']
  door = await openDoor({ tls, announcedBy })
  strict = await openDoor({ tls: { ...tls, require: 'svid' }, verifyClient })
})

afterAll(async () => {
  await Promise.all([door.close(), strict.close()])
  rmSync(dir, { recursive: true })
})

async function verifyClient({ certificates }: { certificates: readonly Buffer[] }): Promise<unknown> {
  const [leaf] = certificates
  if (leaf && new X509Certificate(leaf).subjectAltName?.includes('acme.test')) return { id: 'known' }
  throw new GatewayError('client_invalid', 'The client certificate is not one of ours.')
}

async function openTls(to: OpenDoor, options: ConnectionOptions = {}): Promise<{ wire: Wire; socket: TLSSocket }> {
  const socket = connectTls({ port: to.port, host: '127.0.0.1', ca: root, servername: 'localhost', ...options })
  await new Promise<void>((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject))
  return { wire: wireOn(socket), socket }
}

describe('TLS to the proxy', () => {
  it('serves absolute form, keeps the connection, and tells a missing grant as without TLS', async () => {
    const { wire, socket } = await openTls(door, { ALPNProtocols: ['h2', 'http/1.1'] })
    expect(socket.alpnProtocol).toBe('http/1.1')
    wire.write(GET.replace(AUTH, ''))
    const refused = await wire.answer()
    expect([refused.status, refused.headers.get('proxy-authenticate')]).toEqual([407, 'Basic realm="keyless"'])
    wire.write(GET)
    expect((await wire.answer()).status).toBe(200)
    wire.destroy()
  })

  it('opens a tunnel after a 407 on the same connection, with TLS inside TLS', async () => {
    const { wire } = await openTls(door)
    wire.write(TUNNEL.replace(AUTH, ''))
    expect((await wire.answer()).status).toBe(407)
    wire.write(TUNNEL)
    expect((await wire.answer()).status).toBe(200)
    const inside = await wire.secure({ ca: door.authority.caPem, servername: 'api.github.test' })
    inside.write('GET /user HTTP/1.1\r\nHost: api.github.test\r\n\r\n')
    expect(JSON.parse((await inside.answer()).body)).toMatchObject({ url: '/user' })
    inside.destroy()
  })

  it('answers HTTP/1.0 and `Connection: close` by closing', async () => {
    for (const head of [
      'GET http://shop.test/x HTTP/1.0\r\n',
      'GET http://shop.test/x HTTP/1.1\r\nConnection: close\r\n',
    ]) {
      const { wire } = await openTls(door)
      wire.write(`${head}Host: shop.test\r\n${AUTH}\r\n`)
      expect((await wire.answer()).status).toBe(200)
      expect(await wire.closed()).toBe('')
    }
  })

  it('gives the certificate of the connection to every request on it, and to those in its tunnels', async () => {
    const proof = { 'x5t#S256': createHash('sha256').update(new X509Certificate(own.cert).raw).digest('base64url') }
    const { wire } = await openTls(door, own)
    wire.write(GET)
    await wire.answer()
    expect(door.calls.at(-1)).toMatchObject({ mode: 'forward', proof })
    wire.write(TUNNEL)
    await wire.answer()
    const inside = await wire.secure({ ca: door.authority.caPem, servername: 'api.github.test' })
    inside.write('GET /one HTTP/1.1\r\nHost: api.github.test\r\n\r\n')
    await inside.answer()
    expect(door.calls.at(-1)).toMatchObject({ mode: 'intercept', rawPath: '/one', proof })
    inside.destroy()
  })

  it('gives none where none was shown', async () => {
    const { wire } = await openTls(door)
    wire.write(GET)
    await wire.answer()
    expect(door.calls.at(-1)?.proof).toBeUndefined()
    wire.destroy()
  })
})

describe('a door that requires SVIDs', () => {
  it('serves whoever shows one that is believed', async () => {
    const { wire } = await openTls(strict, own)
    wire.write(GET)
    expect((await wire.answer()).status).toBe(200)
    wire.destroy()
  })

  it('says to anybody else what is missing, on requests and on tunnels', async () => {
    const other = await (await trustDomain('other.test', Date.now())).issue('/x')
    for (const shown of [{}, { cert: other.pem, key: other.key }]) {
      const { wire } = await openTls(strict, shown)
      for (const request of [GET, TUNNEL]) {
        wire.write(request)
        const refused = await wire.answer()
        expect([refused.status, refused.headers.get('keyless-error')]).toEqual([407, 'client_invalid'])
      }
      wire.destroy()
    }
  })

  it('takes no plain HTTP, not from this machine either', async () => {
    const wire = await openWire(strict.port)
    wire.write(GET)
    expect((await wire.answer()).body).toContain('This door speaks TLS: use https://')
  })
})

describe('a door with TLS', () => {
  it('takes plain HTTP from this machine', async () => {
    const wire = await openWire(door.port)
    wire.write(GET)
    expect((await wire.answer()).status).toBe(200)
    wire.destroy()
  })

  const remote = async (bytes: string | Buffer) => {
    const socket = connectTcp({ port: door.port, host: '127.0.0.1', localAddress: '127.0.0.2' })
    socket.write('PROXY TCP4 198.51.100.7 192.0.2.1 1 2\r\n')
    socket.write(bytes)
    return wireOn(socket)
  }

  it('says to other machines that it speaks TLS, and shows SOCKS no way in', async () => {
    const refused = await (await remote(GET)).answer()
    expect([refused.status, refused.body]).toEqual([400, expect.stringContaining('use https:// in the proxy URL')])
    expect(await (await remote(Buffer.from([5, 1, 2]))).closed()).toBe('\x05\xff')
  })
})

test('a plain door says to TLS clients what it speaks, and to the operator once', async () => {
  const plain = await openDoor()
  for (let i = 0; i < 2; i++) {
    const wire = await openWire(plain.port)
    wire.write(Buffer.from('16030100050100000103', 'hex'))
    expect((await wire.answer()).body).toContain('This door speaks plain HTTP: use http:// in the proxy URL.')
  }
  expect(plain.complaints.filter(({ code }) => code === 'NO_TLS')).toHaveLength(1)
  await plain.close()
})

describe('garbage on a door with TLS', () => {
  it.each([
    '-bad-.test',
    'a_b.test',
    `${'x'.repeat(63)}.${'y'.repeat(63)}.${'z'.repeat(63)}.test`,
    '..',
    'ünï.test',
    'a b',
  ])('the server name %j does no harm', async (servername) => {
    const wire = await openTls(door, { servername, checkServerIdentity: () => undefined }).catch(
      (cause: Error) => cause,
    )
    if (!(wire instanceof Error)) wire.socket.destroy()
    await isAlive()
  })

  it.each([
    [
      'an oversized ClientHello',
      Buffer.concat([Buffer.from('1603014000010fffff0303', 'hex'), Buffer.alloc(200_000, 0x41)]),
    ],
    ['a record of nothing', Buffer.from('1603010000', 'hex')],
    ['noise', Buffer.concat([Buffer.from([0x16]), Buffer.alloc(4_000, 0xee)])],
    ['half a ClientHello and an end', Buffer.from('160301020001', 'hex')],
  ])('%s is closed', async (_what, bytes) => {
    const wire = await openWire(door.port)
    wire.write(bytes)
    wire.stream.end()
    await wire.closed()
    await isAlive()
  })
})

async function isAlive(): Promise<void> {
  const { wire } = await openTls(door)
  wire.write(GET)
  expect((await wire.answer()).status).toBe(200)
  wire.destroy()
}

describe('real clients', () => {
  const proxy = () => `https://task:${HANDLE}@localhost:${door.port}` // Node takes no address here

  it.each(['https://api.github.test/user', 'http://shop.test/x'])(
    'curl reaches %s, with a certificate',
    async (url) => {
      const shown = ['--proxy-cacert', at('root.pem'), '--proxy-cert', at('svid.pem'), '--proxy-key', at('svid.key')]
      const { stdout } = await run('curl', ['-sS', '--cacert', door.caFile, ...shown, '-x', proxy(), url])
      expect((JSON.parse(stdout) as Echo).method).toBe('GET')
      expect(door.calls.at(-1)?.proof).toHaveProperty('x5t#S256')
    },
  )

  it('Node fetch is served', async () => {
    const script = `for (const url of ['https://api.github.test/user', 'http://shop.test/x']) console.log((await fetch(url)).status)`
    writeFileSync(at('both.pem'), door.authority.caPem + root)
    const { stdout, stderr } = await run(process.execPath, ['--input-type=module', '-e', script], {
      env: {
        ...process.env,
        NODE_USE_ENV_PROXY: '1',
        HTTPS_PROXY: proxy(),
        HTTP_PROXY: proxy(),
        NODE_EXTRA_CA_CERTS: at('both.pem'),
        NO_PROXY: '',
      },
    })
    expect(stdout, stderr).toBe('200\n200\n')
  })
})
