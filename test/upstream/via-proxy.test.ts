import { once } from 'node:events'
import { createServer as createTcpServer } from 'node:net'
import { createServer } from 'node:tls'
import { afterEach, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../gateway/protocol/clock.ts'
import { createDial, type DialOptions, type DialTarget } from '../../gateway/upstream/dial.ts'
import { createFetch } from '../../gateway/upstream/fetch.ts'
import { goesDirect, type UpstreamProxy } from '../../gateway/upstream/via-proxy.ts'
import { type CorporateProxy, type CorporateProxyOptions, startCorporateProxy } from '../rig/corporate-proxy.ts'
import { type Authority, makeAuthority } from './certificate.fixture.ts'
import { HOST, listen, openOrigin, shut } from './upstream.fixture.ts'

const CREDENTIALS = 'gateway:p%40ss-canary'

let authority: Authority
beforeAll(async () => {
  authority = await makeAuthority()
})

const closing: (() => Promise<void> | void)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

async function proxied(o: CorporateProxyOptions = {}): Promise<CorporateProxy> {
  const proxy = await startCorporateProxy(o)
  closing.push(() => proxy.stop())
  return proxy
}

function via(port: number, change: Partial<UpstreamProxy> = {}): UpstreamProxy {
  return { scheme: 'http', host: '127.0.0.1', port, authorization: undefined, noProxy: [], ca: [], ...change }
}

function dialer(proxy: UpstreamProxy, change: Partial<DialOptions> = {}) {
  const resolve = () => Promise.reject(new Error('looked up'))
  const rest = { connectTimeoutMs: 1_000, ca: [authority.pem], hosts: new Map<string, string>(), resolve }
  return createDial({ ...rest, clock: systemClock, proxy, ...change })
}

const target = (change: Partial<DialTarget> = {}): DialTarget => ({
  scheme: 'http',
  host: HOST,
  port: 443,
  allowed: [],
  ...change,
})
const never = new AbortController().signal

async function tlsUpstream(names: readonly string[] = [HOST]): Promise<number> {
  const { cert, key } = await authority.issue(names)
  const server = createServer({ cert, key }, (socket) => void socket.on('error', () => {}).end('from upstream'))
  server.on('tlsClientError', () => {})
  closing.push(() => shut(server))
  return listen(server)
}

async function saysOn(proxy: UpstreamProxy, port: number): Promise<string> {
  const { socket, address } = await dialer(proxy)(target({ scheme: 'https', port }), never)
  expect(address).toBe('127.0.0.1')
  let said = ''
  for await (const chunk of socket) said += chunk
  return said
}

describe('through a proxy, an upstream', () => {
  it('is asked for by its name, which nobody here looks up, and verified end to end', async () => {
    const port = await tlsUpstream()
    const proxy = await proxied()
    expect(await saysOn(via(proxy.port), port)).toBe('from upstream')
    expect(proxy.asked).toEqual([`${HOST}:${port}`])
    expect(Buffer.concat(proxy.seen).includes('from upstream')).toBe(false)
  })

  it('is verified against the name that was asked for: a proxy cannot put another in its place', async () => {
    const port = await tlsUpstream(['evil.test'])
    const proxy = await proxied()
    const dialled = dialer(via(proxy.port))(target({ scheme: 'https', port }), never)
    await expect(dialled).rejects.toMatchObject({ code: 'upstream_tls', detail: expect.stringContaining(HOST) })
  })

  it('is reached by TLS inside TLS where the proxy has TLS', async () => {
    const port = await tlsUpstream()
    const proxy = await proxied({ tls: await authority.issue(['127.0.0.1']) })
    expect(await saysOn(via(proxy.port, { scheme: 'https', ca: [authority.pem] }), port)).toBe('from upstream')
    const distrusted = dialer(via(proxy.port, { scheme: 'https' }))(target({ scheme: 'https', port }), never)
    await expect(distrusted).rejects.toMatchObject({
      code: 'upstream_tls',
      detail: expect.stringMatching(/^The proxy on the way out .* upstream\.proxy\.ca/),
    })
  })

  it('gets every byte, also one that the proxy sent with its answer', async () => {
    const answer = 'HTTP/1.0 200 OK\r\nX: y\r\n\r\nfirst words'
    const proxy = await proxied({ answer: () => answer })
    const { socket } = await dialer(via(proxy.port))(target(), never)
    expect(String((await once(socket, 'data'))[0])).toBe('first words')
  })

  it('and so does an issuer of credentials', async () => {
    const origin = await openOrigin((request, response) => void response.end(request.headers.host))
    closing.push(() => origin.close())
    const proxy = await proxied({ credentials: 'gateway:p@ss' })
    const authorization = `Basic ${Buffer.from('gateway:p@ss').toString('base64')}`
    const { fetch, close } = createFetch(dialer(via(proxy.port, { authorization })), [])
    closing.push(close)
    const answer = await fetch(`http://issuer.test:${origin.port}/token`)
    expect([await answer.text(), proxy.asked]).toEqual([`issuer.test:${origin.port}`, [`issuer.test:${origin.port}`]])
  })
})

describe('what a proxy refuses', () => {
  it.each([
    ['407', 'HTTP/1.1 407 No\r\n\r\n', 'upstream_proxy', /credentials of upstream\.proxy\.url/],
    ['403', 'HTTP/1.1 403 Forbidden\r\n\r\n<h1>CORP POLICY</h1>', 'upstream_proxy', /no_proxy/],
    ['405', 'HTTP/1.0 405\r\n\r\n', 'upstream_proxy', /allow CONNECT/],
    ['502', 'HTTP/1.1 502 Bad Gateway\r\n\r\n', 'upstream_refused', /could not reach api\.example\.test:443 \(502\)/],
    ['503', 'HTTP/1.1 503 Unavailable\r\n\r\n', 'upstream_refused', /\(503\)/],
    ['504', 'HTTP/1.1 504 Timeout\r\n\r\n', 'upstream_timeout', /in time/],
    [
      'a redirect',
      'HTTP/1.1 302 Found\r\nLocation: http://login.corp/\r\n\r\n',
      'upstream_proxy',
      /did not answer CONNECT/,
    ],
    ['nonsense', 'SSH-2.0-OpenSSH\r\n\r\n', 'upstream_proxy', /did not answer CONNECT/],
    ['an endless head', `HTTP/1.1 200 OK\r\n${'a: b\r\n'.repeat(20_000)}`, 'upstream_proxy', /did not answer CONNECT/],
    ['a head cut short', 'HTTP/1.1 200', 'upstream_refused', /could not be reached/],
  ])('with %s is a refusal in our words, without its own or its credentials', async (_what, answer, code, detail) => {
    const proxy = await proxied({ answer: () => answer })
    const authorization = `Basic ${Buffer.from(CREDENTIALS).toString('base64')}`
    const refused = await dialer(via(proxy.port, { authorization }))(target(), never).catch((cause) => cause)
    expect(refused).toMatchObject({ code, detail: expect.stringMatching(detail) })
    expect(proxy.authorizations).toEqual([authorization])
    for (const secret of ['CORP', 'login.corp', authorization, 'canary', String(proxy.port)])
      expect(refused.detail).not.toContain(secret)
  })

  it('by being away, late, or nowhere, is said of the proxy and not of the upstream', async () => {
    const silent = createTcpServer((socket) => void socket.on('error', () => {}).resume())
    closing.push(() => shut(silent))
    const port = await listen(silent)
    const gone = await listen(createTcpServer()).then(async (free) => free)
    const cases: [UpstreamProxy, string][] = [
      [via(port), 'upstream_timeout'],
      [via(gone, { host: '127.0.0.77' }), 'upstream_refused'],
      [via(port, { host: 'proxy.test' }), 'upstream_unresolved'],
      [via(port, { host: '169.254.169.254' }), 'address_forbidden'],
    ]
    for (const [proxy, code] of cases)
      await expect(dialer(proxy, { connectTimeoutMs: 200 })(target(), never)).rejects.toMatchObject({
        code,
        detail: expect.stringMatching(/^The proxy on the way out/),
      })
  })

  it('is not waited for when the agent has left', async () => {
    const silent = createTcpServer((socket) => void socket.on('error', () => {}).resume())
    closing.push(() => shut(silent))
    const leaving = new AbortController()
    const dialled = dialer(via(await listen(silent)))(target(), leaving.signal)
    leaving.abort(new Error('left'))
    await expect(dialled).rejects.toThrow()
  })
})

describe('what no proxy is asked for', () => {
  it.each([
    '169.254.169.254',
    '10.0.0.1',
    '::ffff:169.254.169.254',
    '2130706433',
    '0x7f.1',
    '0251.0376.0251.0376',
    'metadata.google.internal',
    'metadata.google.internal.',
    'instance-data.ec2.internal',
    'metadata',
  ])('%s', async (host) => {
    const proxy = await proxied()
    await expect(dialer(via(proxy.port))(target({ host }), never)).rejects.toMatchObject({ code: 'address_forbidden' })
    expect(proxy.asked).toEqual([])
  })

  it('the control door, by address or by name', async () => {
    const proxy = await proxied()
    const isClosed = (host: string, port: number) => port === 8081 && ['gateway.test', '198.51.100.7'].includes(host)
    const dial = dialer(via(proxy.port), { isClosed })
    for (const host of ['gateway.test', '198.51.100.7'])
      await expect(dial(target({ host, port: 8081 }), never)).rejects.toMatchObject({ code: 'address_forbidden' })
    expect(proxy.asked).toEqual([])
  })

  it('an address that settings gave to a name, when it is forbidden; else that address is asked for', async () => {
    const proxy = await proxied({ answer: () => 'HTTP/1.1 200 OK\r\n\r\n' })
    const hosts = new Map([
      [HOST, '10.0.0.7'],
      ['good.test', '198.51.100.7'],
    ])
    const dial = dialer(via(proxy.port), { hosts })
    await expect(dial(target(), never)).rejects.toMatchObject({ code: 'address_forbidden' })
    const { socket } = await dial(target({ host: 'good.test', allowed: ['198.51.100.0/24'] }), never)
    socket.destroy()
    expect(proxy.asked).toEqual(['198.51.100.7:443'])
  })

  it('this machine, and what no_proxy lists: they are reached and judged here', async () => {
    const origin = await openOrigin((_, response) => void response.end('direct'))
    closing.push(() => origin.close())
    const proxy = await proxied()
    const noProxy = ['.corp.test', 'api.test', '198.51.100.0/24']
    const resolve = async () => ['127.0.0.1']
    const dial = dialer(via(proxy.port, { noProxy }), { resolve })
    for (const host of ['a.b.corp.test', 'api.test', 'localhost', 'x.localhost', '127.0.0.1']) {
      const place = target({ host, port: origin.port })
      await expect(dial(place, never)).rejects.toMatchObject({ code: 'address_forbidden' })
      const { socket } = await dial({ ...place, allowed: ['127.0.0.0/8'] }, never)
      socket.destroy()
    }
    expect(proxy.asked).toEqual([])
  })
})

it('no_proxy means what it says', () => {
  const list = ['.corp.test', 'api.test', '198.51.100.0/24', '2001:db8::/32', '203.0.113.9']
  const direct = ['a.corp.test', 'api.test', '198.51.100.255', '2001:db8::1', '203.0.113.9', '127.9.9.9', '::1']
  const proxied = [
    'corp.test',
    'xcorp.test',
    'b.api.test',
    'api.test.evil',
    '198.51.101.0',
    '2001:db9::1',
    '203.0.113.90',
  ]
  expect(direct.filter((host) => !goesDirect(host, list))).toEqual([])
  expect(proxied.filter((host) => goesDirect(host, list))).toEqual([])
})
