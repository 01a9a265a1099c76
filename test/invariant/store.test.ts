/**
 * SECURITY.md 3 and 7: whoever writes to Redis or to `state.sqlite` can lose grants, and bring back what a store alone knows (a
 * count, an end); no grant becomes wider, another's, or alive in another task, and no rubbish is taken for a yes.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { digestOf } from '../../gateway/grant/handle.ts'
import type { IssuedView } from '../../gateway/protocol/control.ts'
import { startGateway } from '../rig/gateway.ts'
import { reverse } from './agent.fixture.ts'
import { call, delegate, idOf, open, openPair, type Pair, READ, said } from './pair.fixture.ts'

let pair: Pair
let redis: Redis
beforeAll(async () => {
  pair = await openPair()
  redis = new Redis(pair.redis.url)
})
afterAll(async () => {
  redis?.disconnect()
  await pair.stop()
})

const PREFIX = '{keyless:default}:2:'
const grantKey = (id: string) => `${PREFIX}grant:${id}`
const handleKey = (handle = '') => `${PREFIX}handle:${digestOf(handle)}`
type Stored = Record<string, unknown> & { marks: string[]; body: string }
const storedOf = async (id: string) => JSON.parse((await redis.hget(grantKey(id), 'stored')) ?? '{}') as Stored

/** By the gateway that did not make it, and so remembers nothing of it. */
async function fresh(credential: string | undefined, path = READ, method = 'GET') {
  return said(await call(pair.replicas[1], credential ?? '', path, method))
}

async function arrivals(work: () => Promise<unknown>): Promise<number> {
  const before = pair.upstream.requests.length
  await work()
  return pair.upstream.requests.length - before
}

async function two() {
  const [narrow, wide] = [await open(pair.replicas[0], { scope: 'notes:read' }), await open(pair.replicas[0])]
  return { narrow, wide, child: await delegate(pair.replicas[0], wide, { scope: 'notes:read' }) }
}

describe('in Redis', () => {
  const swaps: readonly [string, (o: Awaited<ReturnType<typeof two>>) => Promise<unknown>][] = [
    ['a handle that leads to another grant', ({ narrow, wide }) => redis.set(handleKey(narrow.handle), wide.grant)],
    [
      'another grant in the place of its own',
      async ({ narrow, wide }) =>
        redis.hset(grantKey(narrow.grant), 'stored', JSON.stringify(await storedOf(wide.grant))),
    ],
    [
      'the body of another grant under its own name',
      async ({ narrow, wide }) => {
        const [own, other] = [await storedOf(narrow.grant), await storedOf(wide.grant)]
        return redis.hset(grantKey(narrow.grant), 'stored', JSON.stringify({ ...own, body: other.body }))
      },
    ],
    [
      'another character in its body, which nobody can read,',
      async ({ narrow }) => {
        const own = await storedOf(narrow.grant)
        const at = Math.floor(own.body.length / 2)
        const body = own.body.slice(0, at) + (own.body[at] === 'A' ? 'B' : 'A') + own.body.slice(at + 1)
        return redis.hset(grantKey(narrow.grant), 'stored', JSON.stringify({ ...own, body }))
      },
    ],
    [
      'a body of one’s own that asks for more and lives longer',
      async ({ narrow }) => {
        const own = await storedOf(narrow.grant)
        const grant = { id: narrow.grant, authority: [{ operations: ['notes:*'] }], expiresAt: 4_000_000_000 }
        const body = `${'A'.repeat(43)}${JSON.stringify({ grant, marks: own.marks })}`
        return redis.hset(grantKey(narrow.grant), 'stored', JSON.stringify({ ...own, body, expiresAt: 4_000_000_000 }))
      },
    ],
    [
      'no marks',
      async ({ narrow }) => {
        const own = await storedOf(narrow.grant)
        return redis.hset(grantKey(narrow.grant), 'stored', JSON.stringify({ ...own, marks: [] }), 'marks', '[]')
      },
    ],
  ]

  it.each(swaps)('%s makes it worth nothing', async (_, swap) => {
    const all = await two()
    await swap(all)
    expect(await arrivals(() => fresh(all.narrow.handle, READ, 'DELETE'))).toBe(0)
    expect(await fresh(all.narrow.handle, READ, 'DELETE')).toMatch(/^(grant_invalid|store_unavailable)$/)
  })

  it('an id that leads to another grant delegates, shows and exports nothing of it', async () => {
    const { narrow, wide } = await two()
    await redis.del(grantKey(narrow.grant))
    await redis.copy(grantKey(wide.grant), grantKey(narrow.grant))
    const { control } = pair.replicas[1]
    for (const parent of [narrow.grant, narrow.token])
      await expect(control.delegate({ parent, agent: idOf('mid') })).rejects.toMatchObject({ code: 'grant_invalid' })
    await expect(control.grant(narrow.grant)).rejects.toMatchObject({ code: 'grant_invalid' })
    await expect(control.bundle(narrow.grant)).rejects.toMatchObject({ code: 'grant_invalid' })
    await control.revoke(narrow.grant).catch(() => {})
    expect(await fresh(wide.handle)).toBe(200)
  })

  it('marks of its own beside the seal do not keep a child alive whose parent was revoked', async () => {
    const { wide, child } = await two()
    await redis.hset(grantKey(child.grant), 'marks', JSON.stringify([child.grant]))
    await pair.replicas[0].control.revoke(wide.grant)
    expect(await fresh(child.handle)).toBe('grant_revoked')
  })

  it('a task that says of itself that it is not suspended stays suspended', async () => {
    const { wide } = await two()
    await pair.replicas[0].control.suspendTask(wide.task)
    const key = `${PREFIX}task:${wide.task}`
    const stored = JSON.parse((await redis.hget(key, 'stored')) ?? '{}') as object
    await redis.hset(key, 'stored', JSON.stringify({ ...stored, isSuspended: false }))
    expect(await fresh(wide.handle)).toBe('task_suspended')
    await expect(pair.replicas[0].control.resumeTask(wide.task)).rejects.toMatchObject({ code: 'grant_invalid' })
  })

  it.each([
    ['a text in the place of the grant', (key: string) => redis.set(key, 'x')],
    ['no JSON', (key: string) => redis.hset(key, 'stored', '{')],
    ['null', (key: string) => redis.hset(key, 'stored', 'null')],
    ['marks that are none', (key: string) => redis.hset(key, 'marks', '{"a":')],
    ['a list of marks in a list', (key: string) => redis.hset(key, 'marks', '[[1],{},null]')],
    ['an empty body', (key: string) => redis.hset(key, 'stored', '{"marks":[],"body":""}')],
    ['a body that is a number', (key: string) => redis.hset(key, 'stored', '{"marks":[],"body":1}')],
  ])('%s is taken for nothing, and harms nobody else', async (_, write) => {
    const { narrow, wide } = await two()
    const key = grantKey(narrow.grant)
    await redis.del(key)
    await write(key)
    const answers: unknown[] = []
    expect(await arrivals(async () => answers.push(await fresh(narrow.handle)))).toBe(0)
    expect(answers[0]).toMatch(/^(grant_invalid|store_unavailable)$/)
    expect(said(await call(pair.replicas[1], wide.handle))).toBe(200)
  })

  it.each(['abc', '-5', 'nan', '1e99', ''])('a count of %j does not become a budget without end', async (value) => {
    const task = await pair.replicas[0].control.openTask({
      agent: idOf('lead'),
      purpose: 'count',
      authorization_details: [{ type: 'keyless_access', operations: ['notes:read'], constraints: { max_calls: 2 } }],
    })
    await redis.set(`${PREFIX}count:${task.grant}/0/calls`, value, 'EX', 900)
    const arrived = await arrivals(async () => {
      for (let i = 0; i < 12; i++) await call(pair.replicas[i % 2 ? 0 : 1], task.handle)
    })
    // A lower count gives back as much as was taken off it, as docs/grants.md says of a count that is lost.
    expect(arrived).toBeLessThanOrEqual(2 + (value === '-5' ? 5 : 0))
  })
})

describe('in state.sqlite', () => {
  it('a grant cannot be made wider, another, or older than its end', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'keyless-thief-'))
    try {
      const first = await startGateway('services: [demo]\n', { dir })
      const made: IssuedView[] = []
      for (const scope of ['demo:notes.list', 'demo:*', 'demo:*']) made.push(await first.openTask(scope))
      const [narrow, wide, ended] = made as [IssuedView, IssuedView, IssuedView]
      await first.control.completeTask(ended.task)
      await first.stop()
      const database = new DatabaseSync(join(first.settings.dataDir, 'state.sqlite'))
      const { body } = database.prepare('SELECT body FROM grants WHERE id = ?').get(wide.grant) as { body: string }
      database.prepare('UPDATE grants SET body = ? WHERE id = ?').run(body, narrow.grant)
      database.prepare('UPDATE grants SET marks = ? WHERE id = ?').run('[]', ended.grant)
      const move = database.prepare('UPDATE grants SET handle_digest = ? WHERE id = ?')
      move.run('parked', narrow.grant)
      move.run(digestOf(narrow.handle ?? ''), wide.grant)
      database.close()
      const second = await startGateway('services: [demo]\n', { dir })
      const codes = []
      for (const { handle = '' } of [narrow, wide, ended])
        codes.push(said(await reverse(second.proxyPort, handle, { path: '/demo/notes' })))
      expect(codes).toEqual(['grant_invalid', 'grant_invalid', 'grant_invalid'])
      const other = await second.openTask('demo:*')
      expect(said(await reverse(second.proxyPort, other.handle, { path: '/demo/notes' }))).toBe(
        'credential_unconfigured',
      )
      await second.stop()
    } finally {
      await rm(dir, { recursive: true, force: true })
    }
  })
})
