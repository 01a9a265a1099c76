/** SECURITY.md 2: a connection that was opened to one place leads to no other, whatever is said on it, in it, or around it. */
import { once } from 'node:events'
import { connect as connectHttp2, createSecureServer, type Http2ServerRequest } from 'node:http2'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { throwAwayTls } from '../../deploy/demo/certificate.ts'
import { basic } from './agent.fixture.ts'
import { type OpenSite, openSite } from './services.fixture.ts'

let site: OpenSite
let handle: string
let ca: string
/** Of the upstream, which serves all names. */
let port: number
let close: () => void
/** What arrived: the place as the request named it, its path, its credential; and the connection that it came on. */
const arrived: { readonly place: string; readonly path: string; readonly key: string; readonly on: object }[] = []

const MINE = 'one-key-of-some-length'
const OTHERS = 'two-key-of-some-length'

beforeAll(async () => {
  const tls = await throwAwayTls(['one.keyless.test', 'two.keyless.test'])
  const server = createSecureServer({ key: tls.key, cert: tls.cert, allowHTTP1: true }, (request, response) => {
    note(request)
    response.end('ok')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  port = (server.address() as AddressInfo).port
  close = () => void server.close()
  const operations = { read: { match: ['GET /{path**}'], access: 'read' } } as never
  site = await openSite(
    { port, caPem: tls.caPem },
    { services: ['one', 'two'].map((name) => ({ name, operations })), credentials: { one: MINE, two: OTHERS } },
  )
  ca = (await site.gateway.control.status()).ca_pem
}, 60_000)

beforeEach(async () => {
  arrived.length = 0
  handle = (await site.gateway.openTask('one:*')).handle
})

afterAll(async () => {
  await site?.stop()
  close?.()
})

function note(request: Http2ServerRequest): void {
  const { headers, url, httpVersionMajor, socket } = request
  const place = String(headers[':authority'] ?? headers.host)
  const on = httpVersionMajor === 2 ? (request.stream.session as object) : socket
  arrived.push({ place, path: url, key: String(headers.authorization), on })
}

const at = (name: string) => `${name.includes('.') ? name : `${name}.keyless.test`}:${port}`

async function said(socket: Socket, text: string | Buffer): Promise<Buffer> {
  socket.write(text)
  const [answer] = (await once(socket, 'data')) as [Buffer]
  return answer
}

async function connected(place: string): Promise<Socket> {
  const raw = connect(site.gateway.proxyPort, '127.0.0.1')
  const answer = await said(
    raw,
    `CONNECT ${place} HTTP/1.1\r\nHost: ${place}\r\nProxy-Authorization: ${basic(handle)}\r\n\r\n`,
  )
  expect(answer.toString()).toContain(' 200 ')
  return raw
}

/** By name, or by the address of the upstream, as a client asks that resolves names itself. */
async function bySocks(name: string | undefined): Promise<Socket> {
  const raw = connect(site.gateway.proxyPort, '127.0.0.1')
  await said(raw, Buffer.from([5, 1, 2]))
  await said(raw, Buffer.concat([Buffer.from([1, 1, 0x74, handle.length]), Buffer.from(handle)]))
  const address =
    name === undefined
      ? Buffer.from([1, 127, 0, 0, 1])
      : Buffer.concat([Buffer.from([3, name.length]), Buffer.from(name)])
  const asked = Buffer.concat([Buffer.from([5, 1, 0]), address, Buffer.from([port >> 8, port & 255])])
  expect((await said(raw, asked))[1]).toBe(0)
  return raw
}

async function secured(raw: Socket, servername: string, alpn: string): Promise<TLSSocket> {
  const secure = connectTls({
    socket: raw,
    servername,
    ca,
    ALPNProtocols: [alpn],
    checkServerIdentity: () => undefined,
  })
  secure.on('error', () => {})
  await once(secure, 'secureConnect')
  return secure
}

/** Status, or 0 for a connection that is closed or a stream that is reset. */
async function overHttp1(secure: TLSSocket, head: string): Promise<number> {
  const chunks: Buffer[] = []
  secure.on('data', (chunk: Buffer) => chunks.push(chunk))
  secure.write(`${head}\r\nConnection: close\r\n\r\n`)
  await new Promise((resolve) => secure.once('close', resolve))
  return Number(/^HTTP\/1\.1 (\d+)/.exec(Buffer.concat(chunks).toString('latin1'))?.[1] ?? 0)
}

async function overHttp2(secure: TLSSocket, ...requests: Record<string, string>[]): Promise<number[]> {
  const session = connectHttp2(`https://${at('one')}`, { createConnection: () => secure })
  session.on('error', () => {})
  const ask = async (headers: Record<string, string>) => {
    let status = 0
    const stream = session.request(headers)
    stream.on('response', (head) => {
      status = Number(head[':status'])
    })
    stream.on('error', () => {}).resume()
    await new Promise((resolve) => stream.once('close', resolve))
    return status
  }
  const statuses: number[] = []
  for (const headers of requests) statuses.push(await ask(headers))
  session.destroy()
  return statuses
}

const viaConnect = async (alpn: string, servername = 'one.keyless.test') =>
  secured(await connected(at('one')), servername, alpn)

describe('a tunnel to one host', () => {
  it('serves that host, over one connection of its own (or this test could not fail)', async () => {
    expect(await overHttp1(await viaConnect('http/1.1'), `GET /a HTTP/1.1\r\nHost: ${at('one')}`)).toBe(200)
    expect(await overHttp2(await viaConnect('h2'), { ':path': '/b', ':authority': at('one') })).toEqual([200])
    expect(arrived.map(({ place, path, key }) => [place, path, key])).toEqual([
      [at('one'), '/a', `Bearer ${MINE}`],
      [at('one'), '/b', `Bearer ${MINE}`],
    ])
  })

  it.each<[string, (two: string) => string]>([
    ['another Host', (two) => `GET /x HTTP/1.1\r\nHost: ${two}`],
    ['another Host, after its own', (two) => `GET /x HTTP/1.1\r\nHost: ${at('one')}\r\nHost: ${two}`],
    ['another host in absolute form', (two) => `GET https://${two}/x HTTP/1.1\r\nHost: ${at('one')}`],
    ['another host in absolute form and Host', (two) => `GET https://${two}/x HTTP/1.1\r\nHost: ${two}`],
    ['a CONNECT inside', (two) => `CONNECT ${two} HTTP/1.1\r\nHost: ${two}`],
    ['a reverse route inside', () => `GET /two/x HTTP/1.1\r\nHost: 127.0.0.1:${site.gateway.proxyPort}`],
    ['another user in the authority', (two) => `GET https://${at('one')}@${two}/x HTTP/1.1\r\nHost: ${two}`],
  ])('refuses %s', async (_, head) => {
    const status = await overHttp1(await viaConnect('http/1.1'), head(at('two')))
    expect([400, 403, 405, 421]).toContain(status)
    expect(arrived).toEqual([])
  })

  it.each<[string, (two: string) => Record<string, string>]>([
    ['another :authority', (two) => ({ ':path': '/x', ':authority': two })],
    ['another Host', (two) => ({ ':path': '/x', ':authority': at('one'), host: two })],
    ['another host in :path', (two) => ({ ':path': `https://${two}/x`, ':authority': at('one') })],
    ['another scheme', () => ({ ':path': '/x', ':authority': at('one'), ':scheme': 'http' })],
    ['a CONNECT inside', (two) => ({ ':method': 'CONNECT', ':authority': two })],
  ])('refuses %s over HTTP/2, and goes on with what is right', async (_, headers) => {
    const right = { ':path': '/right', ':authority': at('one') }
    const [status = 0, next] = await overHttp2(await viaConnect('h2'), headers(at('two')), right)
    expect([0, 400, 403, 405, 421]).toContain(status)
    expect(next).toBe(200)
    expect(arrived.map(({ place, path }) => [place, path])).toEqual([[at('one'), '/right']])
  })

  it.each([
    ['X-Forwarded-Host', () => at('two')],
    ['Forwarded', () => `host="${at('two')}"`],
    ['X-Original-URL', () => '/admin'],
    ['X-Rewrite-URL', () => '/admin'],
    ['X-Host', () => at('two')],
  ])('takes no %s for a place', async (name, value) => {
    await overHttp2(await viaConnect('h2'), { ':path': '/x', ':authority': at('one'), [name.toLowerCase()]: value() })
    expect(arrived.map(({ place, key }) => [place, key])).toEqual([[at('one'), `Bearer ${MINE}`]])
  })

  it('refuses every request where TLS named another host, over both', async () => {
    const one = `GET /x HTTP/1.1\r\nHost: ${at('one')}`
    expect(await overHttp1(await viaConnect('http/1.1', 'two.keyless.test'), one)).toBe(421)
    expect(
      await overHttp2(await viaConnect('h2', 'two.keyless.test'), { ':path': '/x', ':authority': at('one') }),
    ).toEqual([421])
    expect(arrived).toEqual([])
  })
})

describe('a tunnel by SOCKS5', () => {
  const get = (name: string) => `GET /x HTTP/1.1\r\nHost: ${at(name)}`

  it.each<[string, string | undefined, string, string, number]>([
    ['a name, and the same in TLS', 'one.keyless.test', 'one.keyless.test', 'one', 200],
    ['an address, and a name in TLS', undefined, 'one.keyless.test', 'one', 200],
    ['a name, and another in TLS', 'one.keyless.test', 'two.keyless.test', 'one', 421],
    ['a name, and another in Host', 'one.keyless.test', 'one.keyless.test', 'two', 421],
    ['an address, and another name in Host than in TLS', undefined, 'one.keyless.test', 'two', 421],
    ['an address, and a name in TLS that the grant does not cover', undefined, 'two.keyless.test', 'two', 403],
    [
      'an address, and a metadata service in TLS',
      undefined,
      'metadata.google.internal',
      'metadata.google.internal',
      403,
    ],
  ])('for %s', async (_, asked, servername, host, expected) => {
    const secure = await secured(await bySocks(asked), servername, 'http/1.1')
    expect(await overHttp1(secure, get(host))).toBe(expected)
    expect(arrived.map(({ place, key }) => [place, key])).toEqual(
      expected === 200 ? [[at('one'), `Bearer ${MINE}`]] : [],
    )
  })
})

it('never asks one upstream connection for two hosts, nor for two grants', async () => {
  const both = [
    (await site.gateway.openTask('one:* two:*')).handle,
    (await site.gateway.openTask('one:* two:*')).handle,
  ]
  for (const one of both) {
    handle = one
    for (const name of ['one', 'two', 'one', 'two']) {
      const secure = await secured(await connected(at(name)), `${name}.keyless.test`, 'h2')
      expect(await overHttp2(secure, { ':path': `/${both.indexOf(one)}`, ':authority': at(name) })).toEqual([200])
    }
  }
  const uses = new Map<object, Set<string>>()
  for (const { on, place, path } of arrived) uses.set(on, (uses.get(on) ?? new Set()).add(`${place}${path}`))
  expect([...uses.values()].map((used) => used.size)).toEqual([1, 1, 1, 1])
})
