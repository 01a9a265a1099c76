/**
 * Policies and agents that are read again reach what is under way: streams and WebSockets that would be refused now are cut within
 * a second, and a call that was decided before is not sent after.
 */
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import type { RequestListener } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest'
import type { IssuedView } from '../../gateway/protocol/control.ts'
import { codeOf, reverse } from '../invariant/agent.fixture.ts'
import { entriesOf, type Site, writeSite } from '../invariant/services.fixture.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { stopwatch } from '../rig/stopwatch.ts'
import { closed, opened, said, shapes, startWebSockets, type WebSocketUpstream } from '../rig/websocket.ts'

const AT_ONCE_MS = 1_000
const ALLOW = '@id("all") @owner("tests") permit (principal, action, resource);\n'
const forbid = (operation: string) =>
  `${ALLOW}@id("not") @owner("tests") forbid (principal, action == Action::"chat:${operation}", resource);\n`
const LEAD = 'spiffe://test/agent/lead'
const AGENTS = [LEAD, 'spiffe://test/agent/mid'].map((id) => ({ id, owner: 'ana', purpose: 'test' }))

let upstream: WebSocketUpstream
let site: Site
let at: TestGateway
/** Event streams that the upstream is still writing. */
let streams = 0
const asked: string[] = []

const serve: RequestListener = (request, response) => {
  asked.push(`${request.method} ${request.url}`)
  if (request.url !== '/events') return void response.end('done')
  streams += 1
  response.writeHead(200, { 'content-type': 'text/event-stream' })
  const timer = setInterval(() => response.write('data: tick\n\n'), 20)
  response.once('close', () => {
    streams -= 1
    clearInterval(timer)
  })
}

beforeAll(async () => {
  upstream = await startWebSockets(['chat.keyless.test'], serve)
  site = await writeSite(
    { port: upstream.tlsPort, caPem: upstream.caPem },
    {
      services: [
        {
          name: 'chat',
          operations: {
            socket: { match: ['GET /echo'], access: 'write', websocket: true },
            events: { match: ['GET /events'], access: 'read' },
            read: { match: ['GET /read'], access: 'read' },
          },
        },
      ],
      credentials: { chat: 'a-standing-key-of-some-length' },
      policies: { text: ALLOW, only: true },
      settings: { agents: AGENTS },
    },
  )
  at = await startGateway(site.yaml)
})

afterEach(async () => {
  await policies(ALLOW)
  await at.control.reloadPolicy()
})

afterAll(async () => {
  await at?.stop()
  await Promise.all([upstream.stop(), site.remove()])
})

const policies = (text: string) => writeFile(join(site.dir, 'test.cedar'), text)
const open = (agent = LEAD) => at.control.openTask({ agent, scope: 'chat:*', purpose: 'last' })
const get = ({ handle = '' }: Pick<IssuedView, 'handle'>, path: string) =>
  reverse(at.proxyPort, handle, { path, fields: `Authorization: Bearer ${handle}\r\n` })

async function eventStream({ handle }: Pick<IssuedView, 'handle'>) {
  const socket = connect(at.proxyPort, '127.0.0.1')
  const chunks: Buffer[] = []
  socket.on('error', () => {}).on('data', (chunk: Buffer) => chunks.push(chunk))
  const before = streams
  socket.write(`GET /chat/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${handle}\r\n\r\n`)
  await expect.poll(() => streams).toBeGreaterThan(before)
  return {
    ended: once(socket, 'close'),
    text: () => Buffer.concat(chunks).toString('latin1'),
    close: () => socket.destroy(),
  }
}

async function webSocket({ handle = '' }: Pick<IssuedView, 'handle'>) {
  const connectBy = shapes['reverse route'] as NonNullable<(typeof shapes)[string]>
  const authority = `chat.keyless.test:${upstream.tlsPort}`
  const ws = await connectBy({ port: at.proxyPort, handle, authority, path: '/echo' })
  expect((await opened(ws)).status).toBe(101)
  return ws
}

const outcomes = async (task: string) =>
  (await entriesOf(at.settings.dataDir))
    .filter(({ kind, task: of }) => kind === 'call.outcome' && of?.id === task)
    .map(({ outcome }) => JSON.stringify(outcome))

it('a stream whose operation is forbidden now is cut within a second, and what is still allowed goes on', async () => {
  const task = await open()
  const [stream, ws] = [await eventStream(task), await webSocket(task)]
  await policies(forbid('events'))
  await at.control.reloadPolicy()
  using watch = stopwatch()
  await stream.ended
  expect(watch.ms).toBeLessThan(AT_ONCE_MS)
  expect(stream.text()).toContain('data: tick')
  expect(stream.text().endsWith('0\r\n\r\n'), 'it must not look complete').toBe(false)
  await expect.poll(() => streams).toBe(0)
  await expect.poll(() => outcomes(task.task)).toEqual([expect.stringContaining('policy_denied')])

  ws.send('still there')
  expect(await said(ws)).toBe('still there')
  expect(codeOf(await get(task, '/chat/events'))).toBe('policy_denied')
  ws.close()
  await closed(ws)
})

it('a WebSocket is closed with 1008 and the reason', async () => {
  const ws = await webSocket(await open())
  const end = closed(ws)
  await policies(forbid('socket'))
  await at.control.reloadPolicy()
  using watch = stopwatch()
  expect(await end).toMatchObject({ code: 1008, reason: expect.stringContaining('policy_denied') })
  expect(watch.ms).toBeLessThan(AT_ONCE_MS)
})

it('what somebody has to approve now is cut, and not what was as it is', async () => {
  const task = await open()
  const stream = await eventStream(task)
  await policies(
    `${ALLOW}@id("asks") @owner("tests") @approval("human") permit (principal, action == Action::"chat:events", resource);\n`,
  )
  await at.control.reloadPolicy()
  await stream.ended
  await expect.poll(() => outcomes(task.task)).toEqual([expect.stringContaining('approval_required')])
})

it('an agent that is registered no more is cut and refused at once, and the others are not', async () => {
  const [mine, other] = [await open(), await open('spiffe://test/agent/mid')]
  const [stream, left] = [await eventStream(mine), await eventStream(other)]
  const file = join(at.dir, 'keyless.yaml')
  const yaml = await readFile(file, 'utf8')
  try {
    await writeFile(file, yaml.replace(LEAD, 'spiffe://test/agent/new'))
    await at.control.reloadPolicy()
    using watch = stopwatch()
    await stream.ended
    expect(watch.ms).toBeLessThan(AT_ONCE_MS)
    expect(codeOf(await get(mine, '/chat/read'))).toMatch(/agent_unknown|grant_revoked/)
    expect((await get(other, '/chat/read')).status).toBe(200)
    expect((await at.control.status()).agents).toEqual(['spiffe://test/agent/new', 'spiffe://test/agent/mid'])
    expect(
      (await at.control.openTask({ agent: 'spiffe://test/agent/new', scope: 'chat:*', purpose: 'x' })).task,
    ).toBeTruthy()
    const reloaded = (await entriesOf(at.settings.dataDir)).find(({ kind }) => kind === 'admin.agents_reloaded')
    expect(reloaded?.facts).toEqual({ added: ['spiffe://test/agent/new'], removed: [LEAD], changed: [] })
  } finally {
    left.close()
    await writeFile(file, yaml)
    await at.control.reloadPolicy()
  }
})

it('nothing has changed when any part of what is read is wrong', async () => {
  const task = await open()
  const file = join(at.dir, 'keyless.yaml')
  const yaml = await readFile(file, 'utf8')
  try {
    await writeFile(file, yaml.replace(LEAD, 'spiffe://test/agent/new'))
    await policies('permit (principal')
    await expect(at.control.reloadPolicy()).rejects.toMatchObject({ code: 'policy_rejected' })
    await policies(forbid('read'))
    await writeFile(file, yaml.replace('agents:', 'agnets:'))
    await expect(at.control.reloadPolicy()).rejects.toThrow(/agnets/)
    expect((await get(task, '/chat/read')).status).toBe(200)
    expect((await at.control.policy()).trouble).toMatch(/agnets/)
  } finally {
    await writeFile(file, yaml)
  }
})

it('what only a restart takes up is named as it stands in the settings', async () => {
  const file = join(at.dir, 'keyless.yaml')
  const yaml = await readFile(file, 'utf8')
  const hook = '{ url: "https://hooks.example/x", keys: [{ env: SOME_WEBHOOK_KEY }] }'
  try {
    await writeFile(file, `${yaml}\nwebhooks: { security: ${hook} }\nregions: { lab: [10.0.0.0/8] }\n`)
    expect((await at.control.reloadPolicy()).needs_restart).toEqual(['regions', 'webhooks'])
  } finally {
    await writeFile(file, yaml)
  }
})
