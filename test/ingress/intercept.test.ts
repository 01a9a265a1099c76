import { once } from 'node:events'
import type { ConnectionOptions, TLSSocket } from 'node:tls'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { basic, type Echo, HANDLE, type OpenDoor, openDoor } from './door.fixture.ts'
import { openWire, type Wire } from './wire.fixture.ts'

let door: OpenDoor
beforeAll(async () => {
  door = await openDoor()
})
afterAll(() => door.close())

async function inside(place: string, options: ConnectionOptions = {}): Promise<Wire> {
  const wire = await openWire(door.port)
  wire.write(
    `CONNECT ${place} HTTP/1.1\r\nHost: ${place}\r\nUser-Agent: probe/1\r\nProxy-Authorization: ${basic('t', HANDLE)}\r\n\r\n`,
  )
  expect((await wire.answer()).status).toBe(200)
  return wire.secure({ servername: place.split(':')[0] ?? '', ca: door.authority.caPem, ...options })
}

test('a request inside TLS is one Inbound: mode, scheme and place of the tunnel, credential of the CONNECT', async () => {
  const wire = await inside('api.github.test:443')
  wire.write('GET /user?x=%2F HTTP/1.1\r\nHost: api.github.test\r\nUser-Agent: inner/2\r\n\r\n')
  expect((await wire.answer()).status).toBe(200)
  expect(door.calls.at(-1)).toMatchObject({
    mode: 'intercept',
    scheme: 'https',
    host: 'api.github.test',
    port: 443,
    rawPath: '/user?x=%2F',
    presented: { token: HANDLE, scheme: 'basic', user: 't' },
    client: { address: '127.0.0.1', userAgent: 'inner/2' },
  })
  wire.destroy()
})

test('leaf and root are sent, the leaf is for the host of the CONNECT and lives at most a day', async () => {
  const wire = await inside('api.github.test:443')
  const leaf = (wire.stream as TLSSocket).getPeerX509Certificate()
  expect(leaf?.subjectAltName).toBe('DNS:api.github.test')
  expect(Date.parse(leaf?.validTo ?? '') - Date.parse(leaf?.validFrom ?? '')).toBeLessThanOrEqual(24 * 3_600_000)
  expect(leaf?.issuerCertificate?.ca).toBe(true)
  wire.destroy()
})

test.each([
  [['http/1.1'], 'http/1.1'],
  [['http/1.1', 'h2'], 'h2'],
  [['h2'], 'h2'],
  [undefined, false],
])('a client that offers %s is spoken to in %s', async (offered, agreed) => {
  const wire = await inside('api.github.test:443', offered && { ALPNProtocols: offered })
  expect((wire.stream as TLSSocket).alpnProtocol).toBe(agreed)
  wire.destroy()
})

test('a client that offers only what nobody here speaks fails in the handshake and is reported', async () => {
  await expect(inside('h3only.test:443', { ALPNProtocols: ['h3'] })).rejects.toThrow()
  expect(door.complaints.some(({ host }) => host === 'h3only.test')).toBe(true)
})

test('a second connection resumes the TLS session', async () => {
  const first = await inside('api.github.test:443', { maxVersion: 'TLSv1.2' })
  const session = (first.stream as TLSSocket).getSession()
  first.destroy()
  const second = await inside('api.github.test:443', { maxVersion: 'TLSv1.2', session: session as Buffer })
  expect((second.stream as TLSSocket).isSessionReused()).toBe(true)
  second.destroy()
})

test.each([
  ['another host', 'evil.test'],
  ['the host under another port', 'api.github.test:444'],
])('an inner Host that names %s is refused with 421, on a connection that stays open', async (_what, host) => {
  const wire = await inside('api.github.test:443')
  wire.write(`GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`)
  const answer = await wire.answer()
  expect(answer.status).toBe(421)
  expect(door.refused.at(-1)).toMatchObject({ code: 'target_mismatch', id: JSON.parse(answer.body).instance })
  wire.write('GET / HTTP/1.1\r\nHost: api.github.test\r\n\r\n')
  expect((await wire.answer()).status).toBe(200)
  wire.destroy()
})

test.each(['api.github.test', 'API.GitHub.test', 'api.github.test:443', 'api.github.test.'])(
  'an inner Host %s names the same place',
  async (host) => {
    const wire = await inside('api.github.test:443')
    wire.write(`GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`)
    expect((await wire.answer()).status).toBe(200)
    wire.destroy()
  },
)

test('SNI that differs from the CONNECT host is refused with 421 inside', async () => {
  const wire = await inside('api.github.test:443', { servername: 'evil.test', rejectUnauthorized: false })
  wire.write('GET / HTTP/1.1\r\nHost: api.github.test\r\n\r\n')
  const answer = await wire.answer()
  expect(answer.status).toBe(421)
  expect(JSON.parse(answer.body).detail).toContain('evil.test')
  wire.destroy()
})

test('no SNI at all is served', async () => {
  const wire = await inside('api.github.test:443', { servername: '', checkServerIdentity: () => undefined })
  wire.write('GET / HTTP/1.1\r\nHost: api.github.test\r\n\r\n')
  expect((await wire.answer()).status).toBe(200)
  wire.destroy()
})

test('an absolute-form target inside must name the place of the tunnel', async () => {
  const wire = await inside('api.github.test:443')
  wire.write('GET https://api.github.test/a%2Fb HTTP/1.1\r\nHost: api.github.test\r\n\r\n')
  expect(JSON.parse((await wire.answer()).body).url).toBe('/a%2Fb')
  wire.write('GET https://evil.test/ HTTP/1.1\r\nHost: api.github.test\r\n\r\n')
  expect((await wire.answer()).status).toBe(421)
  wire.write('GET http://api.github.test/ HTTP/1.1\r\nHost: api.github.test\r\n\r\n')
  expect((await wire.answer()).status).toBe(421)
  wire.destroy()
})

test("an inner Proxy-Authorization, Deno's leak, neither counts nor goes on", async () => {
  const wire = await inside('api.github.test:443')
  wire.write(`GET / HTTP/1.1\r\nHost: api.github.test\r\nProxy-Authorization: ${basic('t', 'kh_wrong')}\r\n\r\n`)
  const answer = await wire.answer()
  expect(answer.status).toBe(200)
  const { headers } = JSON.parse(answer.body) as Echo
  expect(headers.map((text) => text.toLowerCase())).not.toContain('proxy-authorization')
  wire.destroy()
})

test('refusals inside are 403, never 401 or 407, and stay on the connection', async () => {
  const wire = await inside('api.openai.test:443')
  wire.write('GET /denied HTTP/1.1\r\nHost: api.openai.test\r\n\r\n')
  const answer = await wire.answer()
  expect(answer.status).toBe(403)
  expect(answer.headers.get('x-should-retry')).toBe('false')
  expect(JSON.parse(answer.body).error).toMatchObject({ code: 'policy_denied', type: 'permission_error' })
  wire.write('GET /ok HTTP/1.1\r\nHost: api.openai.test\r\n\r\n')
  expect((await wire.answer()).status).toBe(200)
  wire.destroy()
})

test('a revoked grant is refused on the next request of an open tunnel', async () => {
  const own = await openDoor()
  const wire = await openWire(own.port)
  wire.write(
    `CONNECT api.github.test:443 HTTP/1.1\r\nHost: api.github.test:443\r\nProxy-Authorization: ${basic('t', HANDLE)}\r\n\r\n`,
  )
  await wire.answer()
  const tls = await wire.secure({ servername: 'api.github.test', ca: own.authority.caPem })
  tls.write('GET / HTTP/1.1\r\nHost: api.github.test\r\n\r\n')
  expect((await tls.answer()).status).toBe(200)
  own.revoke()
  tls.write('GET / HTTP/1.1\r\nHost: api.github.test\r\n\r\n')
  const answer = await tls.answer()
  expect(answer.status).toBe(403)
  expect(answer.headers.get('keyless-error')).toBe('grant_revoked')
  tls.destroy()
  await own.close()
})

test('a client that hangs up right after the handshake, as Node does when it does not trust the CA, is reported once', async () => {
  for (let i = 0; i < 3; i++) {
    await expect(inside('distrust.test:443', { ca: [] })).rejects.toThrow()
  }
  const found = (): typeof door.complaints => door.complaints.filter(({ host }) => host === 'distrust.test')
  while (found().length === 0) await new Promise(setImmediate)
  expect(found()).toHaveLength(1)
  expect(found()[0]?.text).toContain('The client "probe/1"')
  expect(found()[0]?.text).toContain('SSL_CERT_FILE')
})

test('what a client is called by itself cannot steer the terminal that shows its failure', async () => {
  const wire = await openWire(door.port)
  wire.write(
    Buffer.from(
      `CONNECT painted.test:443 HTTP/1.1\r\nHost: painted.test\r\nUser-Agent: x\x9b2J\x85y\r\nProxy-Authorization: ${basic('t', HANDLE)}\r\n\r\n`,
      'latin1',
    ),
  )
  await wire.answer()
  wire.write(Buffer.concat([Buffer.from([0x16]), Buffer.alloc(200, 0x41)]))
  wire.stream.end()
  await wire.closed()
  const found = (): typeof door.complaints => door.complaints.filter(({ host }) => host === 'painted.test')
  while (found().length === 0) await new Promise(setImmediate)
  expect(found()[0]?.text).toMatch(/^[\x20-\x7e]*"x\?2J\?y"[\x20-\x7e]*$/)
})

test.each([
  ['garbage after the first byte', Buffer.concat([Buffer.from([0x16]), Buffer.alloc(200, 0x41)])],
  ['a truncated ClientHello', Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00, 0x01])],
])('%s instead of TLS harms nobody else', async (_what, bytes) => {
  const wire = await openWire(door.port)
  wire.write(
    `CONNECT api.github.test:443 HTTP/1.1\r\nHost: api.github.test:443\r\nProxy-Authorization: ${basic('t', HANDLE)}\r\n\r\n`,
  )
  await wire.answer()
  wire.write(bytes)
  wire.stream.end()
  await wire.closed()
  const after = await inside('api.github.test:443')
  after.write('GET / HTTP/1.1\r\nHost: api.github.test\r\n\r\n')
  expect((await after.answer()).status).toBe(200)
  after.destroy()
})

test('an upstream answer that breaks off reaches the client as broken off', async () => {
  const wire = await inside('api.github.test:443')
  wire.write('GET /broken HTTP/1.1\r\nHost: api.github.test\r\n\r\n')
  await expect(wire.answer()).rejects.toThrow(/closed/)
})

test('a client that leaves mid-answer cancels the upstream request', async () => {
  const before = door.upstream.aborted
  const wire = await inside('api.github.test:443')
  wire.write('GET /endless HTTP/1.1\r\nHost: api.github.test\r\n\r\n')
  await once(wire.stream, 'data')
  wire.destroy()
  while (door.upstream.aborted === before) await new Promise(setImmediate)
})

test('a leaf that is due is replaced for new connections', async () => {
  let nowMs = Date.now()
  const own = await openDoor({ clock: { nowMs: () => nowMs, elapsedMs: () => performance.now() } })
  const serial = async (): Promise<string | undefined> => {
    const wire = await openWire(own.port)
    wire.write(
      `CONNECT api.github.test:443 HTTP/1.1\r\nHost: api.github.test:443\r\nProxy-Authorization: ${basic('t', HANDLE)}\r\n\r\n`,
    )
    await wire.answer()
    const tls = await wire.secure({ servername: 'api.github.test', ca: own.authority.caPem, rejectUnauthorized: false })
    const { serialNumber } = (tls.stream as TLSSocket).getPeerX509Certificate() ?? {}
    tls.destroy()
    return serialNumber
  }
  const first = await serial()
  expect(await serial()).toBe(first)
  nowMs += 18 * 3_600_000
  const [second, third] = await Promise.all([serial(), serial()])
  expect(second).not.toBe(first)
  expect(third).toBe(second) // made once, though both asked at the same time
  await own.close()
})
