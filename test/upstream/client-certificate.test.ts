/** Who is shown which client certificate, over which connection: real TLS servers that demand one and say whom they saw. */
import { spawn } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import { createSecureServer, type ServerHttp2Stream } from 'node:http2'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { createSecureContext, type TLSSocket } from 'node:tls'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { WebSocketServer } from 'ws'
import { systemClock } from '../../gateway/protocol/clock.ts'
import type { ClientCertificate, Outbound, Reply } from '../../gateway/protocol/message.ts'
import type { GatewayError } from '../../gateway/protocol/problem.ts'
import { Secret } from '../../gateway/protocol/secret.ts'
import { createUpstream } from '../../gateway/upstream/forward.ts'
import { permitted } from '../rig/permitted.ts'
import { type Authority, makeAuthority } from './certificate.fixture.ts'
import { endpoint, grant, HOST, listen, service } from './upstream.fixture.ts'

interface Seen {
  /** Of the certificate that was shown. */
  readonly cn: string | undefined
  readonly connection: number
  readonly isResumed: boolean
  readonly path: string
}

let authority: Authority
let port = 0
let upstream: ReturnType<typeof createUpstream>
let connections = 0
const seen: Seen[] = []
const sockets = new Set<TLSSocket>()
const ids = new WeakMap<object, number>()
const certificates = new Map<string, ClientCertificate>()
const closing: (() => unknown)[] = []

async function certificateOf(name: string): Promise<ClientCertificate> {
  const known = certificates.get(name)
  if (known !== undefined) return known
  const { cert, key } = await authority.issue([name])
  const { fingerprint256: id } = new X509Certificate(cert)
  const made = { id, secureContext: (base: object) => createSecureContext({ ...base, cert, key }) }
  certificates.set(name, made)
  return made
}

beforeAll(async () => {
  authority = await makeAuthority()
  const { cert, key } = await authority.issue([HOST])
  const server = createSecureServer({
    cert,
    key,
    ca: authority.pem,
    requestCert: true,
    rejectUnauthorized: false,
    allowHTTP1: true,
  })
  server.on('secureConnection', (socket: TLSSocket) => {
    connections += 1
    ids.set(socket, connections)
    sockets.add(socket)
    socket.on('error', () => {}).on('close', () => sockets.delete(socket))
  })
  const see = (socket: TLSSocket, path: string): Seen => {
    const peer = socket.getPeerCertificate()
    const cn = peer.subject === undefined ? undefined : String(peer.subject.CN)
    const one = { cn, connection: ids.get(socket) ?? 0, isResumed: socket.isSessionReused(), path }
    seen.push(one)
    return one
  }
  server.on('session', (session) => session.on('error', () => {}))
  server.on('stream', (stream, headers) => {
    const path = String(headers[':path'])
    // The session's socket is a proxy of the real one, which alone is known here.
    const socket = [...sockets].find((one) => one.remotePort === stream.session?.socket.remotePort)
    stream.on('error', () => {})
    ;(stream as ServerHttp2Stream).respond({ ':status': 200 })
    stream.end(see(socket as TLSSocket, path).cn ?? 'nobody')
  })
  server.on('request', (request, response) => {
    if (request.httpVersion === '2.0') return
    const socket = (request as unknown as IncomingMessage).socket as TLSSocket
    response.end(see(socket, request.url).cn ?? 'nobody')
  })
  const wss = new WebSocketServer({ noServer: true })
  server.on('upgrade', (request: IncomingMessage, socket, head) => {
    const { cn } = see(request.socket as TLSSocket, request.url ?? '')
    wss.handleUpgrade(request, socket, head, (ws) => ws.close(1000, cn))
  })
  port = await listen(server as never)
  upstream = createUpstream({
    connectTimeoutMs: 2_000,
    headersTimeoutMs: 2_000,
    bodyTimeoutMs: 2_000,
    ca: [authority.pem],
    hosts: new Map([[HOST, '127.0.0.1']]),
    clock: systemClock,
  })
  closing.push(upstream.close, () => {
    for (const socket of sockets) socket.destroy()
    return new Promise((resolve) => server.close(resolve))
  })
})
afterAll(async () => {
  for (const close of closing) await close()
})

function outbound(path: string, change: Partial<Outbound> = {}): Outbound {
  return {
    method: 'GET',
    service: service({ scheme: 'https' }),
    scheme: 'https',
    host: HOST,
    port,
    path,
    headers: ['Host', HOST],
    body: null,
    grant: grant(),
    standing: permitted({ grant: grant(), endpoint: endpoint() }),
    isolation: 'default\ngrant-1',
    secrets: [new Secret('certificates-travel-in-no-field')],
    ...change,
  }
}

/** A reply that keeps what it is given. */
function reply() {
  const stream = new PassThrough()
  const chunks: Buffer[] = []
  stream.on('data', (chunk: Buffer) => chunks.push(chunk))
  let status = 0
  const own = Object.assign(stream, {
    headersSent: false,
    writeHead: (given: number) => {
      status = given
    },
    flushHeaders: () => {},
    addTrailers: () => {},
  })
  return { reply: own as unknown as Reply, text: () => Buffer.concat(chunks).toString(), status: () => status }
}

async function send(path: string, change: Partial<Outbound> = {}): Promise<string> {
  const answer = reply()
  await upstream.forward(
    outbound(path, change),
    answer.reply,
    async () => null,
    () => {},
  )
  return answer.text()
}

describe('a client certificate', () => {
  it.each([
    ['HTTP/1.1', false],
    ['HTTP/2', true],
  ])('is shown to an upstream over %s, and nothing is shown without one', async (_, isHttp2) => {
    const certificate = await certificateOf('ana')
    expect(await send('/', { isHttp2, certificate })).toBe('ana')
    expect(await send('/', { isHttp2 })).toBe('nobody')
    expect(await send('/', { isHttp2, certificate: await certificateOf('ben') })).toBe('ben')
    expect(await send('/', { isHttp2, certificate })).toBe('ana')
  })

  it('opens a WebSocket', async () => {
    const wire = new PassThrough()
    const closed = once(wire, 'data')
    const upgrade = { protocol: 'websocket', accept: () => wire } as const
    const headers = ['Host', HOST, 'Sec-WebSocket-Key', 'AAAAAAAAAAAAAAAAAAAAAA==', 'Sec-WebSocket-Version', '13']
    const call = upstream.forward(
      outbound('/socket', { upgrade, headers, certificate: await certificateOf('cyd') }),
      reply().reply,
      async () => null,
      () => {},
    )
    await closed
    wire.destroy()
    await call
    expect(seen.at(-1)).toMatchObject({ path: '/socket', cn: 'cyd' })
  })

  it('never shares a connection or a TLS session with another one or with none, whatever comes in whatever order', async () => {
    const names = [undefined, 'ana', 'ben', 'cyd']
    for (const name of names) if (name !== undefined) await certificateOf(name)
    const step = fc.record({
      name: fc.constantFrom(...names),
      isHttp2: fc.boolean(),
      waits: fc.boolean(),
      isolation: fc.constantFrom('default\n1', 'default\n2'),
    })
    /** connection → who was seen on it */
    const shown = new Map<number, Set<string>>()
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 2, maxLength: 10 }), async (steps) => {
        seen.length = 0
        const calls: Promise<void>[] = []
        for (const { name, isHttp2, waits, isolation } of steps) {
          const certificate = name === undefined ? {} : { certificate: certificates.get(name) as ClientCertificate }
          const call = send('/', { isHttp2, isolation, ...certificate }).then((text) => {
            expect(text).toBe(name ?? 'nobody')
          })
          if (waits) await call
          else calls.push(call)
        }
        await Promise.all(calls)
        for (const { connection, cn } of seen)
          shown.set(connection, (shown.get(connection) ?? new Set()).add(cn ?? 'nobody'))
      }),
      { numRuns: 15 },
    )
    expect([...shown.values()].filter((names) => names.size > 1)).toEqual([])
    expect(shown.size).toBeGreaterThan(4)
  })

  it('is made ready once, however often it is shown', async () => {
    let made = 0
    const inner = await certificateOf('dan')
    const certificate: ClientCertificate = {
      id: 'counted',
      secureContext: (base) => {
        made += 1
        return inner.secureContext(base)
      },
    }
    await Promise.all(Array.from({ length: 5 }, () => send('/', { certificate })))
    expect([await send('/', { certificate, isHttp2: true }), made]).toEqual(['dan', 1])
  })

  it('is shown by the fetch of providers, on connections of its own', async () => {
    const url = `https://${HOST}:${port}/token`
    const [ana, ben] = [await certificateOf('ana'), await certificateOf('ben')]
    const plain = upstream.fetchFor(['127.0.0.0/8'])
    const ask = async (certificate?: ClientCertificate) =>
      (await (certificate === undefined ? plain : upstream.fetchFor(['127.0.0.0/8'], certificate))(url)).text()
    expect(await Promise.all([ask(ana), ask(ben), ask()])).toEqual(['ana', 'ben', 'nobody'])
    expect([await ask(ana), await ask(ben), await ask()]).toEqual(['ana', 'ben', 'nobody'])
    expect(upstream.fetchFor(['127.0.0.0/8'], ana)).toBe(upstream.fetchFor(['127.0.0.0/8'], ana))
    await expect(upstream.fetchFor(['127.0.0.0/8'], ana)(`http://${HOST}:${port}/token`)).rejects.toMatchObject({
      code: 'target_mismatch',
    })
  })
})

/** Real alerts: Node's own servers close the connection without one. */
describe.each(['tls1_2', 'tls1_3'])('an upstream of OpenSSL that demands a certificate over %s', (version) => {
  let strict = 0
  beforeAll(async () => {
    const dir = await mkdtemp(join(tmpdir(), 'keyless-openssl-'))
    closing.push(() => rm(dir, { recursive: true }))
    const { cert, key } = await authority.issue([HOST])
    for (const [name, text] of Object.entries({ cert, key, ca: authority.pem })) await writeFile(join(dir, name), text)
    const terms = ['-accept', '127.0.0.1:0', '-cert', 'cert', '-key', 'key', '-CAfile', 'ca', `-${version}`, '-www']
    const server = spawn('openssl', ['s_server', ...terms, '-Verify', '1', '-verify_return_error'], { cwd: dir })
    closing.unshift(() => server.kill())
    let printed = ''
    strict = await new Promise((resolve) => {
      server.stdout.on('data', (chunk) => {
        printed += chunk
        const found = /ACCEPT 127\.0\.0\.1:(\d+)/.exec(printed)
        if (found !== null) resolve(Number(found[1]))
      })
    })
  })

  it('says that it is missing, and what gives one', async () => {
    const refusal = await send('/', { port: strict }).catch((cause: GatewayError) => cause)
    expect(refusal).toMatchObject({ code: 'upstream_tls', detail: expect.stringMatching(/in: certificate/) })
  })

  it('says that ours is not taken when another authority made it', async () => {
    const { cert, key } = await (await makeAuthority()).issue(['eve'])
    const certificate = { id: 'eve', secureContext: (base: object) => createSecureContext({ ...base, cert, key }) }
    for (const isHttp2 of [false, true]) {
      const refusal = await send('/', { port: strict, certificate, isHttp2 }).catch((cause: GatewayError) => cause)
      expect(refusal).toMatchObject({ code: 'upstream_tls', detail: expect.stringMatching(/client certificate/) })
    }
  })
})

it('trusts the roots of settings besides those of the runtime, which keep being trusted', async () => {
  const script = `
    import { createServer, connect } from 'node:tls'
    import { createContexts } from ${JSON.stringify(new URL('../../gateway/upstream/secure-contexts.ts', import.meta.url).href)}
    const { first, second } = JSON.parse(process.env.PARTS)
    const ask = (part, contextFor) => new Promise((resolve) => {
      const server = createServer(part, (socket) => socket.end()).listen(0, '127.0.0.1', () => {
        const socket = connect({ port: server.address().port, host: '127.0.0.1', servername: ${JSON.stringify(HOST)}, secureContext: contextFor() })
        const end = (text) => { socket.destroy(); server.close(); resolve(text) }
        socket.on('secureConnect', () => end('trusted')).on('error', (cause) => end(cause.code))
      })
    })
    const both = createContexts([second.ca])
    console.log(await ask(first, both), await ask(second, both), await ask(second, createContexts([])))
  `
  const parts: Record<string, object> = {}
  for (const name of ['first', 'second']) {
    const made = await makeAuthority(name)
    parts[name] = { ...(await made.issue([HOST])), ca: made.pem }
  }
  const dir = await mkdtemp(join(tmpdir(), 'keyless-roots-'))
  await writeFile(join(dir, 'extra.pem'), (parts.first as { ca: string }).ca)
  const env = { ...process.env, NODE_EXTRA_CA_CERTS: join(dir, 'extra.pem'), PARTS: JSON.stringify(parts) }
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const printed = String(await child.stdout.toArray())
  await rm(dir, { recursive: true })
  expect(printed).toMatch(/^trusted trusted (?!trusted)/)
})
