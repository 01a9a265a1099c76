/** SECURITY.md: no call leaves that was not approved, whoever writes to Redis, previews links, or is asked at the same moment. */
import { mkdir, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { hostname, userInfo } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { StoredApproval } from '../../gateway/approval/store.ts'
import { controlClient } from '../../gateway/cli/control-client.ts'
import type { OpenedTask } from '../../gateway/protocol/control.ts'
import type { Human } from '../../gateway/protocol/grant.ts'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { ROOT, start } from '../rig/process.ts'
import { startRedis, type TestRedis } from '../rig/redis.ts'
import { stopwatch } from '../rig/stopwatch.ts'
import { type Answer, basic, codeOf, say } from './agent.fixture.ts'
import { type Site, writeSite } from './services.fixture.ts'

const LOCAL: Human = { iss: `local:${hostname()}`, sub: userInfo().username }
const POLICY =
  '@id("ask") @owner("test") @approval("human")\npermit (principal, action == Action::"notes:ask", resource);\n'
const FORBID = '@id("never") @owner("test")\nforbid (principal, action == Action::"notes:ask", resource);\n'

let echo: EchoUpstream
let redis: TestRedis
let writer: Redis
let site: Site
let replicas: [TestGateway, TestGateway]

const wanted = (hold_s: number) => ({
  services: [{ name: 'notes', operations: { ask: { match: ['POST /echo/ask'], access: 'write' as const } } }],
  credentials: { notes: 'a-standing-key-of-some-length' },
  policies: { text: POLICY },
  settings: { approvals: { hold_s, max_pending: 100, max_per_hour: 1000 } },
})

beforeAll(async () => {
  echo = await startEcho({ names: ['notes.keyless.test'] })
  redis = await startRedis()
  writer = new Redis(redis.url)
  site = await writeSite({ port: echo.tlsPort, caPem: echo.caPem }, wanted(25))
  const keys = join(site.dir, 'keys')
  await mkdir(keys, { mode: 0o700 })
  const yaml = `${site.yaml}keys_dir: ${keys}\npublic_url: http://gateway.keyless.test\nredis: { url: "${redis.url}" }\n`
  replicas = [await startGateway(yaml), await startGateway(yaml)]
}, 60_000)

afterAll(async () => {
  for (const replica of replicas ?? []) await replica.stop()
  writer.disconnect()
  await redis.stop()
  await echo.stop()
  await site.remove()
})

function post(port: number, task: OpenedTask, query: string): Promise<Answer> {
  return say(
    port,
    `POST /notes/echo/ask?${query} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nProxy-Authorization: ${basic(task.handle)}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi`,
  )
}
const at = (n: 0 | 1, task: OpenedTask, query: string) => post(replicas[n].proxyPort, task, query)
const room = (n: 0 | 1) => replicas[n].gateway.house.approval
const decide = (n: 0 | 1, id: string, verdict: 'approve' | 'deny') =>
  room(n).decide('default', id, verdict, { human: LOCAL, via: 'test' })
const sent = (query: string) => echo.requests.filter(({ path }) => path === `/echo/ask?${query}`).length

async function pendingOf(task: OpenedTask): Promise<string> {
  const mine = async () => (await room(0).pending('default')).filter(({ facts }) => facts.task.id === task.task)
  await expect.poll(async () => (await mine()).length, { interval: 5 }).toBe(1)
  return (await mine())[0]?.id ?? ''
}

describe('two replicas', () => {
  it('release a call the moment somebody decides at the other one', async () => {
    const task = await replicas[0].openTask('notes:*')
    for (const verdict of ['approve', 'deny'] as const) {
      const held = at(1, task, `now=${verdict}`)
      const id = await pendingOf(task)
      using watch = stopwatch()
      await decide(0, id, verdict)
      const answer = await held
      expect(watch.ms).toBeLessThan(1_000)
      expect(codeOf(answer) ?? answer.status).toBe(verdict === 'approve' ? 200 : 'approval_denied')
    }
  })

  it('take one approval up once, whichever are asked at once', async () => {
    const task = await replicas[0].openTask('notes:*')
    const held = Array.from({ length: 20 }, (_, n) => at(n % 2 ? 0 : 1, task, 'both'))
    const id = await pendingOf(task)
    await expect.poll(() => room(0).held.calls + room(1).held.calls).toBe(held.length)
    await decide(1, id, 'approve')
    const statuses = (await Promise.all(held)).map(({ status }) => status)
    expect(statuses.filter((status) => status === 200)).toHaveLength(1)
    expect(sent('both')).toBe(1)
  })

  it('cut a held call when its task ends at the other one', async () => {
    const task = await replicas[0].openTask('notes:*')
    const held = at(1, task, 'cut')
    await pendingOf(task)
    using watch = stopwatch()
    await replicas[0].control.completeTask(task.task)
    expect(codeOf(await held)).toBe('grant_revoked')
    expect(watch.ms).toBeLessThan(1_000)
    expect(sent('cut')).toBe(0)
  })
})

describe('whoever writes to Redis', () => {
  const keys = `{keyless:default}:approvals:1:`
  const stored = async (id: string) =>
    JSON.parse((await writer.hget(`${keys}one:${id}`, 'stored')) ?? '') as StoredApproval
  const put = (id: string, one: StoredApproval) =>
    writer.hset(`${keys}one:${id}`, { stored: JSON.stringify(one), version: one.version })

  /** Two approvals: one that a human agreed to and nobody has used, and one that waits. */
  async function pair(name: string) {
    const task = await replicas[0].openTask('notes:*')
    const yes = at(0, task, `${name}=yes`)
    const yesId = await pendingOf(task)
    const pendingYes = await stored(yesId)
    await replicas[0].control.suspendTask(task.task) // so that nobody takes it up meanwhile
    await yes
    await decide(0, yesId, 'approve')
    const resumed = await replicas[0].control.resumeTask(task.task)
    const again = { ...task, handle: resumed.handle ?? '' }
    const no = at(1, again, `${name}=no`)
    const noId = await pendingOf(again)
    return { task: again, yesId, noId, no, pendingYes, approved: await stored(yesId), pending: await stored(noId) }
  }

  it.each<[string, (p: Awaited<ReturnType<typeof pair>>) => Promise<unknown>]>([
    ['the consent to something else', (p) => put(p.noId, { ...p.approved, id: p.noId, slot: p.pending.slot })],
    [
      'the same at the same version',
      (p) => put(p.noId, { ...p.pending, body: p.approved.body, version: p.approved.version }),
    ],
    ['another id in its slot', (p) => writer.set(`${keys}slot:${p.pending.slot}`, p.yesId)],
    [
      'a body of its own',
      (p) => put(p.noId, { ...p.pending, body: Buffer.from('{"state":"approved"}').toString('base64url') }),
    ],
    ['a flipped bit', (p) => put(p.noId, { ...p.pending, body: flipped(p.pending.body) })],
    ['another version', (p) => put(p.noId, { ...p.pending, version: 7 })],
    ['nothing pending', (p) => put(p.noId, { ...p.pending, isPending: false, untilMs: Date.now() + 1e6 })],
  ])('cannot let a call out by putting %s in its place', async (name, forge) => {
    const query = name.replaceAll(' ', '-')
    const p = await pair(query)
    await forge(p)
    await writer.publish('keyless:approvals', `default ${p.noId}`)
    // Held, or come again: it does not pass.
    const again = await Promise.race([at(0, p.task, `${query}=no`), ended(p.task, 150)])
    expect(again === undefined || (codeOf(again) !== undefined && again.status !== 200)).toBe(true)
    await replicas[0].control.completeTask(p.task.task)
    expect((await p.no).status).not.toBe(200)
    expect(sent(`${query}=no`)).toBe(0)
  })

  it('cannot have one taken up twice at the replica that took it up, by putting its old state back', async () => {
    const p = await pair('replayed')
    const query = 'replayed=yes'
    expect((await at(0, p.task, query)).status).toBe(200)
    await put(p.yesId, p.approved)
    await writer.set(`${keys}slot:${p.approved.slot}`, p.yesId)
    expect(codeOf(await at(0, p.task, query))).toBe('approval_required')
    expect(sent(query)).toBe(1)
    await replicas[0].control.completeTask(p.task.task)
    await p.no
  })
})

describe('looking', () => {
  it('decides nothing, by whatever link and method that only looks', async () => {
    const task = await replicas[0].openTask('notes:*')
    const held = at(0, task, 'looked')
    const id = await pendingOf(task)
    const paths = ['', '/status', '/decide', '/approve', '/deny'].map((more) => `/approvals/${id}${more}`)
    const pages = [`/approve/${id}`, `/approve/${id}?verdict=approve`, `/approve/${id}/decide?verdict=approve`]
    for (const path of ['/approvals', ...paths, ...pages, `${paths[2]}?verdict=approve`]) {
      for (const method of ['GET', 'HEAD', 'OPTIONS']) {
        const authorization = `Bearer ${task.handle}`
        await fetch(replicas[0].gateway.control + path, { method, headers: { authorization }, redirect: 'manual' })
        await onSocket(replicas[0].settings.listen.controlSocket, method, path)
      }
    }
    expect(await room(1).get('default', id)).toMatchObject({ state: 'pending', consents: [] })
    // And a form of another page is no better, whoever's browser sends it.
    const foreign = await fetch(`${replicas[0].gateway.control}/approvals/${id}/decide`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', origin: 'https://evil.test' },
      body: '{"verdict":"approve"}',
    })
    expect(foreign.status).toBeGreaterThanOrEqual(400)
    expect(await room(1).get('default', id)).toMatchObject({ state: 'pending' })
    await decide(0, id, 'deny')
    await held
  })
})

describe('policies that change while a call waits', () => {
  it('decide it again at once, and refuse it if it is not allowed any more', async () => {
    const task = await replicas[0].openTask('notes:*')
    const held = at(0, task, 'forbidden')
    const id = await pendingOf(task)
    await writeFile(join(site.dir, 'test.cedar'), POLICY + FORBID)
    await replicas[0].gateway.house.policies.reload(LOCAL)
    expect(codeOf(await held)).toBe('policy_denied')
    await decide(1, id, 'approve')
    expect(codeOf(await at(0, task, 'forbidden'))).toBe('policy_denied') // consent is no permit
    await writeFile(join(site.dir, 'test.cedar'), POLICY.replace('"human"', '"human,on-call"'))
    await replicas[0].gateway.house.policies.reload(LOCAL)
    expect(codeOf(await at(0, task, 'forbidden'))).toBe('approval_required') // and not to stricter terms
    expect(sent('forbidden')).toBe(0)
    await writeFile(join(site.dir, 'test.cedar'), POLICY)
    await replicas[0].gateway.house.policies.reload(LOCAL)
  })
})

describe('a gateway that is killed', () => {
  it('finds what waited and what was approved when it is back, and lets it out once', async () => {
    const own = await writeSite({ port: echo.tlsPort, caPem: echo.caPem }, wanted(0))
    const file = join(own.dir, 'keyless.yaml')
    await writeFile(
      file,
      `data_dir: ${own.dir}/data\nlisten: { proxy: "127.0.0.1:0", control: "127.0.0.1:0" }\n${own.yaml}`,
    )
    const control = controlClient(join(own.dir, 'data', 'control.sock'))
    const up = async () => {
      const gateway = start(process.execPath, [join(ROOT, 'gateway', 'keyless.ts'), 'start', '--config', file])
      const [, proxy = ''] = await gateway.says(/proxy +http:\/\/[\d.]+:(\d+)/)
      await gateway.says(/Ctrl-C/)
      const kill = async () => {
        gateway.kill('SIGKILL')
        await gateway.ended
      }
      return { port: Number(proxy), kill }
    }
    let gateway = await up()
    const task = await control.openTask({ scope: 'notes:*', purpose: 'outlive a crash' })
    expect(codeOf(await post(gateway.port, task, 'killed'))).toBe('approval_required')
    await gateway.kill()
    gateway = await up()
    const [waiting] = await control.approvals()
    expect(codeOf(await post(gateway.port, task, 'killed'))).toBe('approval_required')
    expect((await control.approvals()).map(({ id }) => id)).toEqual([waiting?.id]) // nobody was asked twice
    await control.decideApproval(waiting?.id ?? '', 'approve')
    await gateway.kill()
    gateway = await up()
    expect((await post(gateway.port, task, 'killed')).status).toBe(200)
    expect(codeOf(await post(gateway.port, task, 'killed'))).toBe('approval_required')
    expect(sent('killed')).toBe(1)
    await gateway.kill()
    await own.remove()
  }, 60_000)
})

function flipped(body: string): string {
  const bytes = Buffer.from(body, 'base64url')
  bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1
  return bytes.toString('base64url')
}

/** Undefined after so many ms: the call is held. */
async function ended(_: OpenedTask, ms: number): Promise<undefined> {
  await new Promise((resolve) => setTimeout(resolve, ms))
  return undefined
}

function onSocket(socketPath: string, method: string, path: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  request({ socketPath, method, path, headers: { host: 'localhost' }, agent: false }, (answer) => {
    answer.resume().on('end', resolve)
  })
    .on('error', reject)
    .end()
  return promise
}
