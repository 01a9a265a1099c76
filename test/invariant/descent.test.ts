/** SECURITY.md 8: what ends a grant ends all below it, on both gateways within a second, and their credentials with them. */
import { mkdir } from 'node:fs/promises'
import { setTimeout as pause } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { DelegateBody, IssuedView, OpenedTask } from '../../gateway/protocol/control.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { startRedis, type TestRedis } from '../rig/redis.ts'
import { stopwatch } from '../rig/stopwatch.ts'
import { startUpstream, type TestUpstream } from '../rig/upstream.ts'
import { asHolder, call, idOf, LEVELS, said } from './pair.fixture.ts'

let redis: TestRedis
let upstream: TestUpstream
let replicas: readonly [TestGateway, TestGateway]
let store: Redis

beforeAll(async () => {
  ;[redis, upstream] = await Promise.all([startRedis(), startUpstream()])
  const keys = `${upstream.dir}/keys`
  await mkdir(keys, { mode: 0o700 })
  const agents = LEVELS.map((name) => `{ id: "${idOf(name)}", owner: ana, purpose: test }`).join(', ')
  const yaml = `${await upstream.settings()}\nkeys_dir: ${keys}\npublic_url: http://gateway.keyless.test\nredis: { url: "${redis.url}" }\nagents: [${agents}]\n`
  replicas = [await startGateway(yaml), await startGateway(yaml)]
  store = new Redis(redis.url)
})

afterAll(async () => {
  store?.disconnect()
  for (const replica of replicas ?? []) await replica.stop()
  await upstream.stop()
  await redis.stop()
})

const NOTES = '/demo/notes'
const CODES: Readonly<Record<string, string>> = { suspended: 'task_suspended' }

interface Family {
  readonly root: OpenedTask
  readonly child: IssuedView
  readonly leaf: IssuedView
  /** Of the same task, not below `child`. */
  readonly aside: IssuedView
}

async function family(): Promise<Family> {
  const [{ control }, other] = replicas
  const from = (parent: IssuedView, level: number, more: Partial<DelegateBody> = {}) =>
    control.delegate({ parent: parent.handle ?? '', agent: idOf(LEVELS[level] ?? 'h'), ...more })
  const root = await control.openTask({ agent: idOf('lead'), scope: 'demo:notes.list', purpose: 'have descendants' })
  const child = await from(root, 1, { step: 'collect' })
  const made = { root, child, leaf: await from(child, 2), aside: await from(root, 3) }
  for (const replica of [replicas[0], other])
    for (const grant of Object.values(made)) expect(said(await call(replica, grant.handle ?? '', NOTES))).toBe(200)
  return made
}

const leasesOf = async () => (await store.keys('*lease*:value:*')).length
const saidBy = async (replica: TestGateway, grants: readonly IssuedView[]) => {
  const answers = await Promise.all(
    grants.flatMap(({ handle, token }) => [call(replica, handle ?? '', NOTES), call(replica, token, NOTES)]),
  )
  return [...new Set(answers.map(said))]
}

const ends: readonly [string, (f: Family) => Promise<unknown>, (f: Family) => IssuedView[], string][] = [
  [
    'revoking the one in the middle',
    ({ child }) => replicas[0].control.revoke(child.grant),
    (f) => [f.child, f.leaf],
    '',
  ],
  [
    'its holder revoking it over TCP',
    ({ child }) =>
      fetch(`${replicas[0].gateway.control}/oauth/revoke`, {
        method: 'POST',
        body: new URLSearchParams({ token: child.token }),
      }),
    (f) => [f.child, f.leaf],
    '',
  ],
  [
    'completing the step that it belongs to',
    ({ root }) => replicas[0].control.completeStep(root.task, 'collect'),
    (f) => [f.child, f.leaf],
    '',
  ],
  ['suspending', ({ root }) => replicas[0].control.suspendTask(root.task), Object.values, 'suspended'],
  [
    'a new intent',
    ({ root }) => asHolder(replicas[0], root.handle, `/tasks/${root.task}/intent`, { purpose: 'something else' }),
    Object.values,
    '',
  ],
  ['completing the task', ({ root }) => replicas[0].control.completeTask(root.task), Object.values, ''],
  ['revoking the root', ({ root }) => replicas[0].control.revoke(root.grant), Object.values, ''],
]

describe('within a second of', () => {
  it.each(ends)('%s, everything below is over on both gateways', async (_, end, over, kind) => {
    const leases = await leasesOf()
    const all = await family()
    expect(await leasesOf()).toBe(leases + 4)
    const dead = over(all)
    const alive = Object.values(all).filter((grant) => !dead.includes(grant))
    await end(all)
    const code = CODES[kind] ?? 'grant_revoked'
    expect(await saidBy(replicas[0], dead)).toEqual([code])
    using watch = stopwatch()
    await expect.poll(() => saidBy(replicas[1], dead), { interval: 50 }).toEqual([code])
    expect(watch.ms).toBeLessThan(1_100)
    for (const replica of replicas) if (alive.length > 0) expect(await saidBy(replica, alive)).toEqual([200])
    expect(await leasesOf()).toBe(leases + alive.length)
    await replicas[0].control.completeTask(all.root.task).catch(() => {})
    await expect.poll(leasesOf).toBe(leases)
  })

  it('nothing, a hundred calls under way leave no credential behind', async () => {
    const leases = await leasesOf()
    const { root, child, leaf } = await family()
    const calls = Array.from({ length: 60 }, (_, i) =>
      call(replicas[i % 2 ? 0 : 1], (i % 3 ? leaf : child).handle ?? '', NOTES),
    )
    await replicas[1].control.revoke(child.grant)
    await Promise.all(calls)
    await pause(1_000)
    for (const replica of replicas) expect(await saidBy(replica, [child, leaf])).toEqual(['grant_revoked'])
    await replicas[1].control.completeTask(root.task)
    await expect.poll(leasesOf).toBe(leases)
  })
})

describe('what has ended', () => {
  it('does not come back with a new grant of the same step, intent or resumption', async () => {
    const all = await family()
    const { control } = replicas[0]
    await control.completeStep(all.root.task, 'collect')
    await expect(
      control.delegate({ parent: all.root.handle, agent: idOf('mid'), step: 'collect' }),
    ).rejects.toMatchObject({ code: 'grant_revoked' })
    await control.suspendTask(all.root.task)
    const resumed = await control.resumeTask(all.root.task)
    expect(said(await call(replicas[1], resumed.handle ?? '', NOTES))).toBe(200)
    await pause(1_000)
    for (const replica of replicas) expect(await saidBy(replica, Object.values(all))).toEqual(['grant_revoked'])
    const again = await control.delegate({ parent: resumed.handle ?? '', agent: idOf('mid') })
    await control.completeTask(all.root.task)
    await pause(1_000)
    for (const replica of replicas) expect(await saidBy(replica, [resumed, again])).toEqual(['grant_revoked'])
    await expect(control.resumeTask(all.root.task)).rejects.toMatchObject({ code: 'task_unknown' })
  })

  it('takes along what is delegated at the very moment', async () => {
    const { root, child } = await family()
    const made = Array.from({ length: 20 }, (_, i) =>
      replicas[i % 2 ? 0 : 1].control
        .delegate({ parent: child.handle ?? '', agent: idOf('leaf') })
        .catch((cause: { code?: string }) => cause.code),
    )
    await replicas[0].control.revoke(child.grant)
    const grants = (await Promise.all(made)).filter((one) => typeof one === 'object')
    await pause(1_000)
    for (const replica of replicas)
      if (grants.length > 0) expect(await saidBy(replica, grants)).toEqual(['grant_revoked'])
    await replicas[0].control.completeTask(root.task)
  })

  it('cannot be ended, changed or delegated by whoever holds a grant of another task or further down', async () => {
    const [mine, other] = [await family(), await family()]
    const [{ gateway }] = replicas
    const verbs: readonly [string, object][] = [
      ['complete', { reason: 'completed' }],
      ['intent', { purpose: 'mine now' }],
      ...['suspend', 'heartbeat', 'resume'].map((verb): [string, object] => [verb, {}]),
    ]
    const strangers = [mine.aside.handle ?? '', other.root.handle, other.leaf.handle ?? '']
    for (const handle of [mine.leaf.handle ?? '', ...strangers]) {
      for (const [verb, body] of verbs) {
        const answer = await asHolder(replicas[0], handle, `/tasks/${mine.root.task}/${verb}`, body)
        expect([400, 401, 403, 404], `${verb} ${answer.status}`).toContain(answer.status)
      }
    }
    for (const handle of strangers) {
      const answer = await asHolder(replicas[0], handle, `/tasks/${mine.root.task}/steps/collect/complete`)
      expect([401, 403, 404]).toContain(answer.status)
    }
    // Naming an id, which is in every record, ends nothing over TCP.
    await fetch(`${gateway.control}/oauth/revoke`, {
      method: 'POST',
      body: new URLSearchParams({ token: mine.aside.grant }),
    })
    await pause(1_000)
    for (const replica of replicas) expect(await saidBy(replica, [mine.root, mine.aside])).toEqual([200])
  })
})
