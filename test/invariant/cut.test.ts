/**
 * SECURITY.md 8: whatever outlasts its head is cut within a second after its grant has ended, on every replica, whoever ended it; what
 * was sent until then stays truncated, and the record says why.
 */
import { once } from 'node:events'
import { mkdir } from 'node:fs/promises'
import type { RequestListener } from 'node:http'
import { connect as connectHttp2 } from 'node:http2'
import { connect } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { WebSocket } from 'ws'
import type { IssuedView, OpenTaskBody } from '../../gateway/protocol/control.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { startRedis, type TestRedis } from '../rig/redis.ts'
import { stopwatch } from '../rig/stopwatch.ts'
import { closed, opened, said, shapes, startWebSockets, type WebSocketUpstream } from '../rig/websocket.ts'
import { entriesOf, type Site, writeSite } from './services.fixture.ts'

/** Between the answer to an end and the cut, at most. */
const AT_ONCE_MS = 1_000
const KEY = 'a-standing-key-of-some-length'
let upstream: WebSocketUpstream
let redis: TestRedis
let site: Site
/** Two on one Redis, and one that keeps its grants itself. */
let shared: readonly [TestGateway, TestGateway]
let alone: TestGateway
/** Requests that the upstream is still busy with. */
let busy = 0

const serve: RequestListener = (request, response) => {
  busy += 1
  response.once('close', () => {
    busy -= 1
  })
  if (request.url === '/hang') return
  if (request.url === '/sink') {
    request.resume()
    return
  }
  response.writeHead(200, { 'content-type': 'text/event-stream' })
  const timer = setInterval(() => response.write('data: tick\n\n'), 20)
  response.once('close', () => clearInterval(timer))
}

beforeAll(async () => {
  ;[upstream, redis] = await Promise.all([startWebSockets(['chat.keyless.test'], serve), startRedis()])
  site = await writeSite(
    { port: upstream.tlsPort, caPem: upstream.caPem },
    {
      services: [
        {
          name: 'chat',
          operations: {
            socket: { match: ['GET /echo'], access: 'write', websocket: true },
            events: { match: ['GET /events', 'GET /hang'], access: 'read' },
            upload: { match: ['POST /sink'], access: 'write' },
          },
        },
      ],
      credentials: { chat: KEY },
      settings: {
        agents: ['lead', 'mid'].map((name) => ({ id: `spiffe://test/agent/${name}`, owner: 'ana', purpose: 'test' })),
      },
    },
  )
  const keys = join(site.dir, 'keys')
  await mkdir(keys, { mode: 0o700 })
  const yaml = `${site.yaml}keys_dir: ${keys}\npublic_url: http://gateway.keyless.test\nredis: { url: "${redis.url}" }\n`
  shared = [await startGateway(yaml), await startGateway(yaml)]
  alone = await startGateway(site.yaml)
}, 60_000)

afterAll(async () => {
  redis.resume?.()
  for (const gateway of [...(shared ?? []), alone]) await gateway?.stop()
  await Promise.all([upstream.stop(), redis.stop(), site.remove()])
})

const open = ({ control }: TestGateway, body: Partial<OpenTaskBody> = {}) =>
  control.openTask({ agent: 'spiffe://test/agent/lead', scope: 'chat:*', purpose: 'last', ...body })

/** A request that does not end by itself, once it is under way. */
async function request({ proxyPort }: TestGateway, { handle }: Pick<IssuedView, 'handle'>, head: string, body = '') {
  const socket = connect(proxyPort, '127.0.0.1')
  socket.on('error', () => {})
  const text = () => Buffer.concat(chunks).toString('latin1')
  const chunks: Buffer[] = []
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  const before = busy
  socket.write(`${head} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${handle}\r\n${body === '' ? '\r\n' : body}`)
  await expect.poll(() => busy).toBeGreaterThan(before)
  return { socket, text }
}

async function webSocket({ proxyPort }: TestGateway, { handle = '' }: Pick<IssuedView, 'handle'>): Promise<WebSocket> {
  const connectBy = shapes['reverse route'] as NonNullable<(typeof shapes)[string]>
  const authority = `chat.keyless.test:${upstream.tlsPort}`
  const ws = await connectBy({ port: proxyPort, handle, authority, path: '/echo' })
  expect((await opened(ws)).status).toBe(101)
  ws.send('hello')
  expect(await said(ws)).toBe('hello')
  return ws
}

/** Of the last call of a task. */
async function outcomeOf({ settings }: TestGateway, task: string) {
  const find = async () =>
    (await entriesOf(settings.dataDir)).findLast((entry) => entry.kind === 'call.outcome' && entry.task?.id === task)
  await expect.poll(find).toBeDefined()
  return JSON.stringify((await find())?.outcome)
}

const UPLOAD = 'Content-Length: 10000000\r\n\r\nonly the beginning'
const lasting = {
  'an event stream': (gateway: TestGateway, grant: IssuedView) => request(gateway, grant, 'GET /chat/events'),
  'a call without an answer yet': (gateway: TestGateway, grant: IssuedView) =>
    request(gateway, grant, 'GET /chat/hang'),
  'an upload': (gateway: TestGateway, grant: IssuedView) => request(gateway, grant, 'POST /chat/sink', UPLOAD),
} as const

describe.each(Object.entries(lasting))('%s', (what, begin) => {
  it.each([
    ['in the process that ends it', () => [alone, alone] as const],
    ['on another replica', () => shared],
  ] as const)('is cut %s, and the upstream with it', async (_, where) => {
    const [there, ender] = where()
    const task = await open(there)
    const { socket, text } = await begin(there, task)
    const ended = once(socket, 'close')
    await ender.control.completeTask(task.task)
    using watch = stopwatch()
    if (what === 'an event stream') {
      await ended
      expect(text()).toContain('data: tick')
      expect(text().endsWith('0\r\n\r\n'), 'it must not look complete').toBe(false)
    } else await expect.poll(text).toMatch(/^HTTP\/1\.1 401 [\s\S]*keyless-error: grant_revoked/)
    await expect.poll(() => busy).toBe(0)
    expect(watch.ms).toBeLessThan(AT_ONCE_MS)
    socket.destroy()
    expect(await outcomeOf(there, task.task)).toContain('grant_revoked')
  })
})

describe('a stream over HTTP/2', () => {
  it('is reset within a second, and the upstream is cut', async () => {
    const [{ control }, there] = shared
    const [task, other] = [await open(there), await open(there)]
    const authority = `chat.keyless.test:${upstream.tlsPort}`
    const ca = (await there.control.status()).ca_pem
    const streams = await Promise.all(
      [task, other].map(async ({ handle }) => {
        const raw = connect(there.proxyPort, '127.0.0.1')
        const credentials = Buffer.from(`task:${handle}`).toString('base64')
        raw.write(
          `CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\nProxy-Authorization: Basic ${credentials}\r\n\r\n`,
        )
        await once(raw, 'data')
        const secure = connectTls({ socket: raw, servername: 'chat.keyless.test', ca, ALPNProtocols: ['h2'] })
        const session = connectHttp2(`https://${authority}`, { createConnection: () => secure })
        const stream = session.request({ ':path': '/events' })
        stream.on('error', () => {})
        await once(stream, 'data')
        return { session, stream }
      }),
    )
    const [cut, kept] = streams as [(typeof streams)[0], (typeof streams)[0]]
    const ended = new Promise((resolve) => cut.stream.once('close', resolve))
    await control.completeTask(task.task)
    using watch = stopwatch()
    await ended
    expect(watch.ms).toBeLessThan(AT_ONCE_MS)
    expect(cut.stream.rstCode).not.toBe(0)
    expect(kept.stream.closed).toBe(false)
    for (const { session } of streams) session.destroy()
    await expect.poll(() => busy).toBe(0)
    expect(await outcomeOf(there, task.task)).toContain('grant_revoked')
  })
})

describe('a WebSocket', () => {
  it.each([
    [
      'its task is completed here',
      () => [alone, alone] as const,
      (gateway: TestGateway, { task }: { task: string }) => gateway.control.completeTask(task),
      'grant_revoked',
    ],
    [
      'its task is completed elsewhere',
      () => shared,
      (gateway: TestGateway, { task }: { task: string }) => gateway.control.completeTask(task),
      'grant_revoked',
    ],
    [
      'its grant is revoked elsewhere',
      () => [shared[1], shared[0]] as const,
      (gateway: TestGateway, { grant }: IssuedView) => gateway.control.revoke(grant),
      'grant_revoked',
    ],
    [
      'its task is suspended here',
      () => [alone, alone] as const,
      (gateway: TestGateway, { task }: { task: string }) => gateway.control.suspendTask(task),
      'task_suspended',
    ],
    [
      'its task is suspended elsewhere',
      () => shared,
      (gateway: TestGateway, { task }: { task: string }) => gateway.control.suspendTask(task),
      'task_suspended',
    ],
  ] as const)('is closed with 1008 and the reason when %s', async (_, where, end, reason) => {
    const [there, ender] = where()
    const task = await open(there)
    const ws = await webSocket(there, task)
    const ending = closed(ws)
    await end(ender, task)
    using watch = stopwatch()
    expect(await ending).toEqual({ code: 1008, reason })
    expect(watch.ms).toBeLessThan(AT_ONCE_MS)
    await expect.poll(() => upstream.closes.at(-1)?.code).toBe(1001)
    expect(await outcomeOf(there, task.task)).toContain(reason)
  })

  it('of a descendant is closed when a grant above it ends, and of a sibling is not', async () => {
    const root = await open(shared[0])
    const agent = 'spiffe://test/agent/mid'
    const [child, sibling] = await Promise.all(
      [0, 1].map(() => shared[0].control.delegate({ parent: root.handle, agent })),
    )
    const [cut, kept] = await Promise.all([
      webSocket(shared[1], child as IssuedView),
      webSocket(shared[1], sibling as IssuedView),
    ])
    await shared[0].control.revoke((child as IssuedView).grant)
    expect(await closed(cut as WebSocket)).toEqual({ code: 1008, reason: 'grant_revoked' })
    kept?.send('still there')
    expect(await said(kept as WebSocket)).toBe('still there')
    await shared[0].control.completeTask(root.task)
    expect((await closed(kept as WebSocket)).code).toBe(1008)
  })

  it('is closed when its grant expires', async () => {
    const task = await open(alone, { ttl_s: 2 })
    const ws = await webSocket(alone, task)
    using watch = stopwatch()
    const leftMs = task.expires_at * 1000 - Date.now()
    expect(await closed(ws)).toEqual({ code: 1008, reason: 'grant_expired' })
    expect(watch.ms).toBeLessThan(leftMs + AT_ONCE_MS)
  })
})

describe('while the store is away', () => {
  it('everything that lasts is cut after five seconds, because nobody can say whether it may', {
    timeout: 30_000,
  }, async () => {
    if (redis.pause === undefined) return // a server that is not ours to stop
    const task = await open(shared[0])
    const ws = await webSocket(shared[0], task)
    const { socket } = await request(shared[0], task, 'GET /chat/events')
    const startMs = performance.now()
    using watch = stopwatch()
    const ending = closed(ws)
    const cut = once(socket, 'close')
    redis.pause()
    try {
      const [how] = await Promise.all([ending, cut])
      expect(how).toEqual({ code: 1013, reason: 'store_unavailable' })
      expect(performance.now() - startMs).toBeGreaterThan(4_000)
      expect(watch.ms).toBeLessThan(8_000)
    } finally {
      redis.resume?.()
    }
  })
})
