import { once } from 'node:events'
import { createServer as createTcpServer } from 'node:net'
import { createServer, type TLSSocket, type TlsOptions } from 'node:tls'
import { afterEach, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../gateway/protocol/clock.ts'
import { createDial, type DialOptions, type DialTarget } from '../../gateway/upstream/dial.ts'
import { type Authority, makeAuthority } from './certificate.fixture.ts'
import { HOST, listen, shut } from './upstream.fixture.ts'

let authority: Authority
beforeAll(async () => {
  authority = await makeAuthority()
})

const closing: (() => Promise<void> | void)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

function dialer(change: Partial<DialOptions> = {}) {
  return createDial({ connectTimeoutMs: 1_000, ca: [], hosts: new Map(), clock: systemClock, ...change })
}

function target(change: Partial<DialTarget> = {}): DialTarget {
  return { scheme: 'http', host: HOST, port: 1, allowed: ['127.0.0.0/8'], ...change }
}

const never = new AbortController().signal

async function open(dial: ReturnType<typeof createDial>, change: Partial<DialTarget> = {}) {
  const dialled = await dial(target(change), never)
  closing.push(() => {
    dialled.socket.destroy()
  })
  return dialled
}

async function tcp(host = '127.0.0.1'): Promise<number> {
  const server = createTcpServer((socket) => socket.on('error', () => {}).resume())
  await new Promise<void>((resolve) => server.listen(0, host, resolve))
  closing.push(() => shut(server))
  const address = server.address()
  return typeof address === 'object' && address !== null ? address.port : 0
}

async function tls(
  options: TlsOptions,
): Promise<{ port: number; names: (string | false | null)[]; reused: boolean[] }> {
  const names: (string | false | null)[] = []
  const reused: boolean[] = []
  const server = createServer(options, (socket) => {
    names.push(socket.servername ?? null)
    reused.push(socket.isSessionReused())
    socket.on('error', () => {})
    socket.write('hi')
    socket.resume()
  })
  server.on('tlsClientError', () => {})
  const port = await listen(server)
  closing.push(() => shut(server))
  return { port, names, reused }
}

describe('the addresses of a name', () => {
  it('are all judged: one forbidden among good ones refuses the name, and nothing is dialled', async () => {
    const port = await tcp()
    const dial = dialer({ resolve: async () => ['127.0.0.1', '169.254.169.254'] })
    await expect(open(dial, { port })).rejects.toMatchObject({
      code: 'address_forbidden',
      detail: expect.stringContaining('metadata'),
    })
    await expect(open(dialer({ resolve: async () => ['127.0.0.1', '10.0.0.1'] }), { port })).rejects.toMatchObject({
      code: 'address_forbidden',
    })
  })

  it('are refused when they are not public and no range names them', async () => {
    const dial = dialer({ resolve: async () => ['127.0.0.1'] })
    await expect(open(dial, { allowed: [] })).rejects.toMatchObject({ code: 'address_forbidden' })
    await expect(open(dialer(), { host: '127.0.0.1', allowed: [] })).rejects.toMatchObject({
      code: 'address_forbidden',
    })
    await expect(open(dialer(), { host: '::ffff:127.0.0.1', allowed: [] })).rejects.toMatchObject({
      code: 'address_forbidden',
    })
    await expect(open(dialer({ hosts: new Map([[HOST, '10.0.0.1']]) }))).rejects.toMatchObject({
      code: 'address_forbidden',
    })
    await expect(open(dialer({ hosts: new Map([[HOST, 'localhost']]) }))).rejects.toMatchObject({
      code: 'address_forbidden',
    })
  })

  it('are looked up once, and those judged are those dialled', async () => {
    const port = await tcp()
    let lookups = 0
    const dial = dialer({
      resolve: async () => {
        lookups += 1
        return [lookups === 1 ? '127.0.0.1' : '127.0.0.99']
      },
    })
    const { address, socket } = await open(dial, { port })
    expect([lookups, address, socket.remoteAddress]).toEqual([1, '127.0.0.1', '127.0.0.1'])
  })

  it('are tried in order until one answers', async () => {
    const port = await tcp('127.0.0.3')
    const { address } = await open(dialer({ resolve: async () => ['127.0.0.2', '127.0.0.3'] }), { port })
    expect(address).toBe('127.0.0.3')
  })

  it.each(['2130706433', '0x7f.1', '0177.0.0.1', '127.1', '1.2.3'])('are never looked up for %s', async (host) => {
    const dial = dialer({ resolve: () => Promise.reject(new Error('looked up')) })
    await expect(open(dial, { host, allowed: ['0.0.0.0/0'] })).rejects.toMatchObject({ code: 'address_forbidden' })
  })

  it('may be missing', async () => {
    await expect(open(dialer({ resolve: async () => [] }))).rejects.toMatchObject({ code: 'upstream_unresolved' })
    const missing = Object.assign(new Error('no'), { code: 'ENOTFOUND' })
    await expect(open(dialer({ resolve: () => Promise.reject(missing) }))).rejects.toMatchObject({
      code: 'upstream_unresolved',
      detail: expect.stringContaining('ENOTFOUND'),
    })
  })
})

describe('a dial', () => {
  it('says that nobody listens', async () => {
    const server = createTcpServer()
    const port = await listen(server)
    await shut(server)
    await expect(open(dialer({ resolve: async () => ['127.0.0.1'] }), { port })).rejects.toMatchObject({
      code: 'upstream_refused',
      detail: expect.stringContaining('ECONNREFUSED'),
    })
  })

  it('ends in time when the resolver or the handshake does not', async () => {
    const port = await tcp()
    await expect(open(dialer({ connectTimeoutMs: 50, resolve: () => new Promise(() => {}) }))).rejects.toMatchObject({
      code: 'upstream_timeout',
    })
    const dial = dialer({ connectTimeoutMs: 50, resolve: async () => ['127.0.0.1'] })
    await expect(open(dial, { port, scheme: 'https' })).rejects.toMatchObject({ code: 'upstream_timeout' })
  })

  it('stops when nobody wants it any more', async () => {
    const port = await tcp()
    const leaving = new AbortController()
    const dialling = dialer({ resolve: async () => ['127.0.0.1'] })(target({ port, scheme: 'https' }), leaving.signal)
    leaving.abort()
    await expect(dialling).rejects.toThrow()
  })
})

describe('TLS', () => {
  const local = () => ({ resolve: async () => ['127.0.0.1'], ca: [authority.pem] })

  it('is verified against the name asked for, with extra roots, by SNI', async () => {
    const { port, names } = await tls(await authority.issue([HOST]))
    const { socket } = await open(dialer(local()), { port, scheme: 'https' })
    await once(socket, 'data')
    expect((socket as TLSSocket).authorized).toBe(true)
    expect(names).toEqual([HOST])
  })

  it('sends no SNI for an address and verifies the address', async () => {
    const { port, names } = await tls(await authority.issue(['127.0.0.1']))
    const { socket } = await open(dialer(local()), { port, scheme: 'https', host: '127.0.0.1' })
    await once(socket, 'data')
    expect(names).toEqual([false])
    const other = await tls(await authority.issue(['127.0.0.9']))
    await expect(open(dialer(local()), { port: other.port, scheme: 'https', host: '127.0.0.1' })).rejects.toMatchObject(
      {
        code: 'upstream_tls',
      },
    )
  })

  it.each([
    ['of another name', { names: ['other.test'] }, 'other names'],
    ['that has expired', { names: [HOST], notAfter: new Date(Date.now() - 1000) }, 'expired'],
  ])('with a certificate %s is refused, and says so', async (_, { names, ...change }, words) => {
    const { port } = await tls(await authority.issue(names, change))
    await expect(open(dialer(local()), { port, scheme: 'https' })).rejects.toMatchObject({
      code: 'upstream_tls',
      detail: expect.stringContaining(words),
    })
  })

  it('with a certificate of an unknown authority is refused, and says what to set', async () => {
    const { port } = await tls(await authority.issue([HOST]))
    await expect(open(dialer({ ...local(), ca: [] }), { port, scheme: 'https' })).rejects.toMatchObject({
      code: 'upstream_tls',
      detail: expect.stringContaining('upstream.ca'),
    })
  })

  it('older than 1.2 is refused', async () => {
    const old = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' } as const
    const { port } = await tls({ ...(await authority.issue([HOST])), ...old })
    await expect(open(dialer(local()), { port, scheme: 'https' })).rejects.toMatchObject({
      code: 'upstream_tls',
      detail: expect.stringContaining('1.2'),
    })
  })

  it('on a port that speaks something else is refused', async () => {
    const server = createTcpServer((socket) =>
      socket
        .on('error', () => {})
        .resume()
        .end('HTTP/1.1 400 Bad Request\r\n\r\n'),
    )
    const port = await listen(server)
    closing.push(() => shut(server))
    await expect(open(dialer(local()), { port, scheme: 'https' })).rejects.toMatchObject({
      code: 'upstream_tls',
      detail: expect.stringContaining('does not speak TLS'),
    })
  })

  it('resumes a session that it was given', async () => {
    const { port, reused } = await tls(await authority.issue([HOST]))
    const dial = dialer(local())
    const { promise, resolve } = Promise.withResolvers<Buffer>()
    const first = await open(dial, { port, scheme: 'https', onSession: resolve })
    first.socket.resume()
    const session = await promise
    const second = await open(dial, { port, scheme: 'https', session })
    await once(second.socket, 'data')
    expect(reused).toEqual([false, true])
  })
})
