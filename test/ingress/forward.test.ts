import { afterAll, beforeAll, expect, test } from 'vitest'
import { basic, type Echo, HANDLE, type OpenDoor, openDoor } from './door.fixture.ts'
import { openWire } from './wire.fixture.ts'

let door: OpenDoor
beforeAll(async () => {
  door = await openDoor()
})
afterAll(() => door.close())

const AUTH = `Proxy-Authorization: ${basic('task', HANDLE)}\r\n`

async function ask(head: string) {
  const wire = await openWire(door.port)
  wire.write(head)
  const answer = await wire.answer()
  wire.destroy()
  return answer
}

test('an absolute-form request reaches the upstream with its path and query byte for byte', async () => {
  const path = '/a%2Fb//c;d/%2e%2e/[x]|"<>?q=%00&r=&?'
  const { status, body } = await ask(`GET http://shop.example${path} HTTP/1.1\r\nHost: shop.example\r\n${AUTH}\r\n`)
  expect(status).toBe(200)
  expect((JSON.parse(body) as Echo).url).toBe(path)
  expect(door.calls.at(-1)).toMatchObject({
    mode: 'forward',
    scheme: 'http',
    host: 'shop.example',
    port: 80,
    rawPath: path,
    body: null,
  })
})

test.each([
  ['http://shop.example', '/'],
  ['http://shop.example?q=1', '/?q=1'],
  ['http://shop.example/', '/'],
  ['HTTP://Shop.Example./x', '/x'],
])('%s asks for %s', async (target, path) => {
  const { status } = await ask(`GET ${target} HTTP/1.1\r\nHost: shop.example\r\n${AUTH}\r\n`)
  expect(status).toBe(200)
  expect(door.calls.at(-1)).toMatchObject({ host: 'shop.example', port: 80, rawPath: path })
})

test('absolute-form https, which old axios sends instead of CONNECT, is served as https', async () => {
  const { status } = await ask(`GET https://api.github.test/user HTTP/1.1\r\nHost: api.github.test\r\n${AUTH}\r\n`)
  expect(status).toBe(200)
  expect(door.calls.at(-1)).toMatchObject({ mode: 'forward', scheme: 'https', host: 'api.github.test', port: 443 })
})

test('an IPv6 literal loses its brackets and keeps its port', async () => {
  const { status } = await ask(`GET http://[2001:DB8::1]:8080/x HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\n${AUTH}\r\n`)
  expect(status).toBe(200)
  expect(door.calls.at(-1)).toMatchObject({ host: '2001:db8::1', port: 8080 })
})

test('HTTP/1.0 without Host is served and the connection closed', async () => {
  const wire = await openWire(door.port)
  wire.write(`GET http://shop.example/x HTTP/1.0\r\n${AUTH}\r\n`)
  expect((await wire.answer()).status).toBe(200)
  expect(await wire.closed()).toBe('')
})

test('a Host that names another place is refused with 421', async () => {
  const answer = await ask(`GET http://shop.example/x HTTP/1.1\r\nHost: evil.example\r\n${AUTH}\r\n`)
  expect(answer.status).toBe(421)
  expect(answer.headers.get('keyless-error')).toBe('target_mismatch')
  expect(door.refused.at(-1)?.code).toBe('target_mismatch')
})

test.each([
  ['userinfo', 'http://user:pass@shop.example/'],
  ['a foreign scheme', 'ftp://shop.example/'],
  ['a fragment', 'http://shop.example/#x'],
  ['no host', 'http:///x'],
  ['a numeric host', 'http://2130706433/'],
  ['port 0', 'http://shop.example:0/'],
  ['port 65536', 'http://shop.example:65536/'],
])('a target with %s is malformed', async (_what, target) => {
  const answer = await ask(`GET ${target} HTTP/1.1\r\nHost: shop.example\r\n${AUTH}\r\n`)
  expect(answer.status).toBe(400)
  expect(answer.body).not.toContain('pass@')
})

test('two Host fields are refused and recorded', async () => {
  const answer = await ask(
    `GET http://shop.example/ HTTP/1.1\r\nHost: shop.example\r\nhost: shop.example\r\n${AUTH}\r\n`,
  )
  expect(answer.status).toBe(400)
  expect(door.refused.at(-1)).toEqual({ id: JSON.parse(answer.body).instance, code: 'request_malformed' })
})

test('missing credentials get a 407 challenge on a connection that stays usable', async () => {
  const wire = await openWire(door.port)
  wire.write('GET http://shop.example/x HTTP/1.1\r\nHost: shop.example\r\n\r\n')
  const first = await wire.answer()
  expect(first.status).toBe(407)
  expect(first.headers.get('proxy-authenticate')).toBe('Basic realm="keyless"')
  expect(first.headers.get('connection')).toBe('keep-alive')
  expect(first.headers.get('proxy-status')).toBe('keyless; error=http_request_denied; details="grant_missing"')
  expect(JSON.parse(first.body)).toMatchObject({
    type: 'urn:keyless:error:grant_missing',
    status: 407,
    code: 'grant_missing',
    remedy: 'renew_grant',
  })
  wire.write(`GET http://shop.example/x HTTP/1.1\r\nHost: shop.example\r\n${AUTH}\r\n`)
  expect((await wire.answer()).status).toBe(200)
  wire.destroy()
})

test.each([
  ['Basic, handle as password', basic('task', HANDLE), 200],
  ['Basic, password with colons', basic('task', `${HANDLE}:x`), 407],
  ['Basic, handle alone', basic(HANDLE, ''), 200],
  ['Bearer', `Bearer ${HANDLE}`, 200],
  ['bearer in lower case', `bearer ${HANDLE}`, 200],
  ['Basic without a colon', `Basic ${Buffer.from(HANDLE).toString('base64')}`, 407],
  ['Basic with foreign characters', 'Basic !!!', 407],
  ['Basic without a value', 'Basic', 407],
  ['an unknown scheme', `Digest ${HANDLE}`, 407],
  ['two tokens', `Bearer ${HANDLE} ${HANDLE}`, 407],
  ['nothing', '', 407],
])('Proxy-Authorization with %s', async (_what, value, status) => {
  const answer = await ask(
    `GET http://shop.example/ HTTP/1.1\r\nHost: shop.example\r\nProxy-Authorization: ${value}\r\n\r\n`,
  )
  expect(answer.status).toBe(status)
})

test('two Proxy-Authorization fields are refused', async () => {
  const answer = await ask(`GET http://shop.example/ HTTP/1.1\r\nHost: shop.example\r\n${AUTH}${AUTH}\r\n`)
  expect(answer.status).toBe(400)
})

test('a credential that changes on a kept-alive connection is read anew', async () => {
  const wire = await openWire(door.port)
  for (const [token, status] of [
    [HANDLE, 200],
    ['kh_other', 407],
    [HANDLE, 200],
  ] as const) {
    wire.write(
      `GET http://shop.example/ HTTP/1.1\r\nHost: shop.example\r\nProxy-Authorization: ${basic('t', token)}\r\n\r\n`,
    )
    expect((await wire.answer()).status).toBe(status)
  }
  wire.destroy()
})

test('pipelined requests are answered in order, also when a later one is faster', async () => {
  const wire = await openWire(door.port)
  const request = (path: string): string =>
    `GET http://shop.example${path} HTTP/1.1\r\nHost: shop.example\r\n${AUTH}\r\n`
  wire.write(request('/slow') + request('/2') + request('/denied') + request('/4'))
  expect(JSON.parse((await wire.answer()).body).url).toBe('/slow')
  expect(JSON.parse((await wire.answer()).body).url).toBe('/2')
  expect((await wire.answer()).status).toBe(403)
  expect(JSON.parse((await wire.answer()).body).url).toBe('/4')
  wire.destroy()
})

test('a request to our own port is a reverse route that came through the proxy setting', async () => {
  const { status } = await ask(
    `GET http://127.0.0.1:${door.port}/github/user HTTP/1.1\r\nHost: 127.0.0.1:${door.port}\r\n${AUTH}\r\n`,
  )
  expect(status).toBe(200)
  expect(door.calls.at(-1)).toMatchObject({
    mode: 'reverse',
    route: 'github',
    host: 'api.github.test',
    rawPath: '/user',
  })
})

test('a field named __proto__ and 60 KB of header pass', async () => {
  const big = 'x'.repeat(60_000)
  const { status, body } = await ask(
    `GET http://shop.example/ HTTP/1.1\r\nHost: shop.example\r\n__proto__: y\r\nconstructor: z\r\nX-Big: ${big}\r\n${AUTH}\r\n`,
  )
  expect(status).toBe(200)
  const { headers } = JSON.parse(body) as Echo
  expect(headers[headers.indexOf('__proto__') + 1]).toBe('y')
  expect(headers[headers.indexOf('X-Big') + 1]).toBe(big)
})

test('3,000 fields arrive as 3,000 fields', async () => {
  const many = Array.from({ length: 3000 }, (_, i) => `x-${i}: 1\r\n`).join('')
  await ask(`GET http://shop.example/ HTTP/1.1\r\nHost: shop.example\r\n${AUTH}${many}\r\n`)
  expect(door.calls.at(-1)?.rawHeaders).toHaveLength(2 * 3002)
})
