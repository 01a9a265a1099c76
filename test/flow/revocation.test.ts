/**
 * Access ends by whatever it hangs on: a grant, a task, an agent, a human, the policies of then, a service, a credential, everything. On
 * the next request and in calls that are open, on every replica; and what is blocked stays out, whoever asks, until it is lifted.
 */
import { once } from 'node:events'
import { mkdir } from 'node:fs/promises'
import type { RequestListener } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { WebSocket } from 'ws'
import type { IssuedView, OpenedTask, OpenTaskBody } from '../../gateway/protocol/control.ts'
import type { TargetBody } from '../../gateway/protocol/control-revocation.ts'
import { codeOf, openTunnel } from '../invariant/agent.fixture.ts'
import { entriesOf, type Operations, type Site, writeSite } from '../invariant/services.fixture.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { startRedis, type TestRedis } from '../rig/redis.ts'
import { stopwatch } from '../rig/stopwatch.ts'
import { closed, opened, shapes, startWebSockets, type WebSocketUpstream } from '../rig/websocket.ts'

/** Between the order and its effect on another replica, at most. */
const AT_ONCE_MS = 1_000
const LEAD = 'spiffe://test/agent/lead'
const MID = 'spiffe://test/agent/mid'

let upstream: WebSocketUpstream
let redis: TestRedis
let site: Site
let yaml: string
let replicas: [TestGateway, TestGateway]
/** Streams that the upstream is still serving. */
let streams = 0

const serve: RequestListener = (request, response) => {
  if (request.url !== '/events') return void response.end(`{"ok":true}`)
  streams += 1
  response.writeHead(200, { 'content-type': 'text/event-stream' })
  const timer = setInterval(() => response.write('data: tick\n\n'), 20)
  response.once('close', () => {
    streams -= 1
    clearInterval(timer)
  })
}

const operations = {
  socket: { match: ['GET /echo'], access: 'write', websocket: true },
  events: { match: ['GET /events', 'GET /notes'], access: 'read' },
} satisfies Operations

beforeAll(async () => {
  ;[upstream, redis] = await Promise.all([
    startWebSockets(['chat.keyless.test', 'mail.keyless.test'], serve),
    startRedis(),
  ])
  site = await writeSite(
    { port: upstream.tlsPort, caPem: upstream.caPem },
    {
      services: ['chat', 'mail'].map((name) => ({ name, operations })),
      credentials: { chat: 'a-standing-key-of-chat', mail: 'a-standing-key-of-mail' },
      settings: { agents: [LEAD, MID].map((id) => ({ id, owner: 'ana', purpose: 'test' })) },
    },
  )
  const keys = join(site.dir, 'keys')
  await mkdir(keys, { mode: 0o700 })
  yaml = `${site.yaml}keys_dir: ${keys}\npublic_url: http://gateway.keyless.test\nredis: { url: "${redis.url}" }\n`
  replicas = [await startGateway(yaml), await startGateway(yaml)]
}, 60_000)

afterAll(async () => {
  for (const replica of replicas ?? []) await replica.stop()
  await Promise.all([upstream.stop(), redis.stop(), site.remove()])
})

afterEach(async () => {
  const [{ control }] = replicas
  for (const { target } of await control.blocks()) await control.lift({ target })
})

const open = ({ control }: TestGateway, body: Partial<OpenTaskBody> = {}) =>
  control.openTask({ agent: LEAD, scope: 'chat:* mail:*', purpose: 'be revoked', ...body })

const end = ({ control }: TestGateway, target: TargetBody, more: { readonly until?: number | null } = {}) =>
  control.endAccess({ target, reason: 'an incident', ...more })

/** Code of the refusal, or the status of the answer. */
async function call({ proxyPort }: TestGateway, { handle }: Pick<IssuedView, 'handle'>, service = 'chat') {
  const response = await fetch(`http://127.0.0.1:${proxyPort}/${service}/notes`, {
    headers: { authorization: `Bearer ${handle}` },
  })
  await response.arrayBuffer()
  return response.headers.get('keyless-error') ?? String(response.status)
}

/** @returns milliseconds until a call through `replica` is refused, and how. */
async function refusedWithin(replica: TestGateway, grant: Pick<IssuedView, 'handle'>, service = 'chat') {
  using watch = stopwatch()
  let code = '200'
  while (code === '200' && watch.ms < 2 * AT_ONCE_MS) code = await call(replica, grant, service)
  return { code, ms: watch.ms }
}

async function webSocket({ proxyPort }: TestGateway, { handle = '' }: Pick<IssuedView, 'handle'>, service = 'chat') {
  const connectBy = shapes['reverse route'] as NonNullable<(typeof shapes)[string]>
  const authority = `${service}.keyless.test:${upstream.tlsPort}`
  const ws = await connectBy({ port: proxyPort, handle, authority, path: '/echo' })
  expect((await opened(ws)).status).toBe(101)
  return ws
}

async function eventStream({ proxyPort }: TestGateway, { handle }: Pick<IssuedView, 'handle'>, service = 'chat') {
  const socket = connect(proxyPort, '127.0.0.1')
  socket.on('error', () => {})
  socket.write(`GET /${service}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${handle}\r\n\r\n`)
  await once(socket, 'data')
  return socket
}

const human = async ({ gateway }: TestGateway, task: OpenedTask) => {
  const { grants } = (await gateway.house.grants.task('default', task.task)) ?? {}
  const { iss, sub } = grants?.[0]?.human ?? { iss: '', sub: '' }
  return { iss, sub }
}

describe('whatever it hangs on', () => {
  const targets: Record<string, (task: OpenedTask) => Promise<TargetBody> | TargetBody> = {
    'its id': ({ grant }) => ({ grant }),
    'its handle': ({ handle = '' }) => ({ grant: handle }),
    'its task': ({ task }) => ({ task }),
    'its agent': () => ({ agent: LEAD }),
    'its human': async (task) => ({ human: await human(replicas[0], task) }),
    'the policies of its issue': () => ({ policy_set: replicas[0].gateway.house.policy.digest }),
  }

  it.each(Object.entries(targets))('a grant ends everywhere by %s, and a new one is good again', async (_, by) => {
    const task = await open(replicas[0])
    const child = await replicas[0].control.delegate({ parent: task.handle ?? '', agent: MID })
    expect(await call(replicas[1], task)).toBe('200')
    expect(await call(replicas[1], child)).toBe('200')
    const ended = await end(replicas[0], await by(task))
    expect(ended.grants).toBeGreaterThanOrEqual(2)
    expect(await call(replicas[0], task)).toBe('grant_revoked')
    for (const grant of [task, child]) {
      const { code, ms } = await refusedWithin(replicas[1], grant)
      expect(code).toBe('grant_revoked')
      expect(ms).toBeLessThan(AT_ONCE_MS)
    }
    const again = await open(replicas[0])
    expect(await call(replicas[0], again)).toBe('200')
    expect(await call(replicas[1], again)).toBe('200')
  })

  it('a grant of another agent, and of the agent above it, goes on', async () => {
    const task = await open(replicas[0])
    const child = await replicas[0].control.delegate({ parent: task.handle ?? '', agent: MID })
    const ended = await end(replicas[0], { agent: MID })
    expect(ended).toMatchObject({ grants: 1, tasks: 0 })
    expect((await refusedWithin(replicas[1], child)).code).toBe('grant_revoked')
    expect(await call(replicas[1], task)).toBe('200')
  })

  it('what ended is in the log, with who ended it and why', async () => {
    const task = await open(replicas[0])
    const { id, tasks, grants } = await end(replicas[0], { agent: LEAD })
    const find = async (kind: string) =>
      (await entriesOf(replicas[0].settings.dataDir)).find((entry) => entry.kind === kind && entry.facts?.order === id)
    await expect.poll(() => find('revocation.completed')).toBeDefined()
    const [ordered, completed] = [await find('revocation.ordered'), await find('revocation.completed')]
    expect(ordered?.facts).toMatchObject({ order: id, target: 'agent', name: LEAD, by: 'human', detail: 'an incident' })
    expect(ordered?.human).toBeDefined()
    expect(completed?.facts).toMatchObject({ order: id, tasks, grants })
    expect(await call(replicas[0], task)).toBe('grant_revoked')
  })
})

describe('a block', () => {
  it('of an agent refuses its grants and new ones everywhere, until it is lifted', async () => {
    const task = await open(replicas[0])
    expect(await call(replicas[1], task)).toBe('200')
    await end(replicas[0], { agent: LEAD }, { until: null })
    expect((await refusedWithin(replicas[1], task)).code).toBe('access_blocked')
    for (const replica of replicas) await expect(open(replica)).rejects.toMatchObject({ code: 'access_blocked' })
    expect(await call(replicas[1], await open(replicas[1], { agent: MID }))).toBe('200')
    await replicas[1].control.lift({ target: { agent: LEAD } })
    expect(await call(replicas[1], task)).toBe('grant_revoked') // what was ended stays ended
    expect(await call(replicas[0], await open(replicas[0]))).toBe('200')
  })

  it('of a human refuses every task of theirs, whatever the agent', async () => {
    const task = await open(replicas[0])
    await end(replicas[0], { human: await human(replicas[0], task) }, { until: null })
    for (const agent of [LEAD, MID])
      await expect(open(replicas[1], { agent })).rejects.toMatchObject({ code: 'access_blocked' })
  })

  it.each(['service', 'credential'])('of a %s closes it for every grant, and leaves the grants alone', async (kind) => {
    const task = await open(replicas[0])
    expect(await call(replicas[1], task)).toBe('200')
    await end(replicas[0], { [kind]: 'chat' })
    expect(await call(replicas[0], task)).toBe('access_blocked')
    const { code, ms } = await refusedWithin(replicas[1], task)
    expect(code).toBe('access_blocked')
    expect(ms).toBeLessThan(AT_ONCE_MS)
    expect(await call(replicas[1], task, 'mail')).toBe('200')
    await replicas[0].control.lift({ target: { [kind]: 'chat' } })
    await expect.poll(() => call(replicas[1], task)).toBe('200')
  })

  it('for a time is over by itself', async () => {
    const until = Math.ceil(Date.now() / 1000) + 1
    expect(await end(replicas[0], { service: 'chat' }, { until })).toMatchObject({ until })
    const task = await open(replicas[0])
    expect(await call(replicas[0], task)).toBe('access_blocked')
    await expect.poll(() => call(replicas[0], task), { timeout: 3_000 }).toBe('200')
    expect(await replicas[0].control.blocks()).toEqual([])
  })

  it('is in force after a restart of every gateway, and after Redis has lost everything', async () => {
    await end(replicas[0], { agent: LEAD }, { until: null })
    const client = new Redis(redis.url)
    await client.flushall()
    client.disconnect()
    const third = await startGateway(yaml) // knows nothing yet but what the others put back
    try {
      await expect.poll(() => third.control.blocks()).toHaveLength(1)
      await expect(open(third)).rejects.toMatchObject({ code: 'access_blocked' })
    } finally {
      await third.stop()
    }
    const { dir } = replicas[1]
    await replicas[1].gateway.stop()
    const other = new Redis(redis.url)
    await replicas[0].gateway.stop()
    await other.flushall()
    other.disconnect()
    replicas = [await startGateway(yaml, { dir: replicas[0].dir }), await startGateway(yaml, { dir })]
    for (const replica of replicas) await expect(open(replica)).rejects.toMatchObject({ code: 'access_blocked' })
  })
})

describe('an idle tunnel', () => {
  const tunnelTo = async ({ proxyPort, gateway }: TestGateway, { handle = '' }: OpenedTask, name = 'chat') => {
    const authority = `${name}.keyless.test:${upstream.tlsPort}`
    const tunnel = await openTunnel(proxyPort, { handle, authority, ca: gateway.house.authority.caPem })
    expect((await tunnel.ask('GET', '/notes')).status).toBe(200)
    return tunnel
  }

  it.each([{ service: 'chat' }, { credential: 'chat' }, { everything: true }] as const)(
    'to what is blocked (%o) is cut on every replica within a second, and no other',
    async (target) => {
      const [here, there] = replicas
      const task = await open(there)
      const tunnels = [await tunnelTo(here, task), await tunnelTo(there, task)]
      const other = await tunnelTo(there, task, 'mail')
      await end(here, target, { until: null })
      using watch = stopwatch()
      await expect.poll(() => tunnels.filter(({ isOpen }) => isOpen), { interval: 10 }).toEqual([])
      expect(watch.ms).toBeLessThan(AT_ONCE_MS)
      if ('everything' in target) await expect.poll(() => other.isOpen).toBe(false)
      else expect((await other.ask('GET', '/notes')).status).toBe(200)
      other.close()
    },
  )

  it('stays open when an agent or a grant ends: the next request in it is told why', async () => {
    const [here, there] = replicas
    const tunnel = await tunnelTo(there, await open(there))
    await end(here, { agent: LEAD }, { until: null })
    await expect.poll(async () => codeOf(await tunnel.ask('GET', '/notes'))).toBe('access_blocked')
    tunnel.close()
  })
})

describe('the kill switch', () => {
  it('ends everything that is open on every replica within a second, and lets nothing in', async () => {
    const [here, there] = replicas
    const task = await open(there)
    const mid = await open(there, { agent: MID })
    const ws: WebSocket = await webSocket(there, task)
    const sse = await eventStream(there, mid, 'mail')
    const all = [closed(ws), once(sse, 'close')] as const
    await end(here, { everything: true })
    using watch = stopwatch()
    const [how] = await Promise.all(all)
    expect(watch.ms).toBeLessThan(AT_ONCE_MS)
    expect(how).toEqual({ code: 1008, reason: 'access_blocked' })
    await expect.poll(() => streams).toBe(0)
    for (const replica of replicas) {
      expect(await call(replica, mid)).toBe('access_blocked')
      await expect(open(replica)).rejects.toMatchObject({ code: 'access_blocked' })
    }
    await there.control.lift({ target: { everything: true } })
    await expect.poll(async () => call(here, await open(here))).toBe('200')
  })

  it.each(['service', 'credential'] as const)('of one %s cuts what goes there and nothing else', async (kind) => {
    const [here, there] = replicas
    const task = await open(there)
    const cut = await webSocket(there, task)
    const kept = await eventStream(there, task, 'mail')
    const ending = closed(cut)
    await end(here, { [kind]: 'chat' })
    using watch = stopwatch()
    expect(await ending).toEqual({ code: 1008, reason: 'access_blocked' })
    expect(watch.ms).toBeLessThan(AT_ONCE_MS)
    await once(kept, 'data')
    kept.destroy()
    await expect.poll(() => streams).toBe(0)
  })
})
