/** What a grant hangs on: everything above it, its step, its task, the key that it is bound to. */
import { createHmac } from 'node:crypto'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { Authenticator } from '../../gateway/grant/authenticate.ts'
import { signJws } from '../../gateway/grant/chain/jws.ts'
import { marksOf } from '../../gateway/grant/life/task.ts'
import { firstRecord } from '../../gateway/grant/store/record.ts'
import { openRedisStore } from '../../gateway/grant/store/redis.ts'
import type { GrantStore } from '../../gateway/grant/store/store.ts'
import type { Confirmation, Grant } from '../../gateway/protocol/grant.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { type ManualClock, manualClock } from '../rig/clock.ts'
import { startRedis, type TestRedis } from '../rig/redis.ts'
import { freshStore, newKey, presenting, storeKey } from './grant.fixture.ts'
import { openRelay } from './relay.fixture.ts'
import { authenticatorOver, bound, grantBelow, type Kept, keep, records, seal } from './tree.fixture.ts'

let clock: ManualClock
let store: GrantStore
let here: Authenticator
beforeEach(() => {
  clock = manualClock()
  store = freshStore(clock)
  here = authenticatorOver(store, clock)
})

const codeOf = async (authenticator: Authenticator, token: string, proof?: Confirmation): Promise<string> => {
  try {
    await authenticator.authenticate({ ...presenting(token), ...(proof !== undefined && { proof }) })
    return 'allowed'
  } catch (cause) {
    if (cause instanceof GatewayError) return cause.code
    throw cause
  }
}
const ending = (grant: Grant, reason = 'revoked') => ({ reason, untilS: grant.expiresAt })

/** root → research → extract, and a sibling of research; each a step further along. */
async function family(changes: Partial<Grant> = {}) {
  const root = await keep(store, grantBelow(undefined, clock, changes))
  const research = await keep(store, grantBelow(root.grant, clock, { step: 'research' }))
  const extract = await keep(store, grantBelow(research.grant, clock))
  const sibling = await keep(store, grantBelow(root.grant, clock, { step: 'write' }))
  return { root, research, extract, sibling }
}
type Family = Awaited<ReturnType<typeof family>>
const codes = async (authenticator: Authenticator, { root, research, extract, sibling }: Family) =>
  Promise.all([root, research, extract, sibling].map(({ handle }) => codeOf(authenticator, handle)))

const dead = 'grant_revoked'
const ok = 'allowed'

describe('the end of', () => {
  it.each([
    ['a grant', (f: Family) => f.research.grant.id, [ok, dead, dead, ok]],
    ['a leaf', (f: Family) => f.extract.grant.id, [ok, ok, dead, ok]],
    ['the root', (f: Family) => f.root.grant.id, [dead, dead, dead, dead]],
    ['a step', (f: Family) => `${f.root.grant.task.id}/research`, [ok, dead, dead, ok]],
    ['the task', (f: Family) => f.root.grant.task.id, [dead, dead, dead, dead]],
    ['another task', () => 'task_other', [ok, ok, ok, ok]],
  ] as const)('%s takes everything below along, remembered or not', async (_, markOf, expected) => {
    const all = await family()
    const mark = markOf(all)
    expect(await codes(here, all)).toEqual([ok, ok, ok, ok])
    here.end('acme', mark, ending(all.root.grant))
    expect(await codes(here, all), 'in the process that ended it, before the store knows').toEqual(expected)
    await store.end('acme', mark, ending(all.root.grant))
    expect(await codes(here, all)).toEqual(expected)
    expect(await codes(authenticatorOver(store, clock), all), 'after a restart').toEqual(expected)
  })

  it('a grant of one tenant leaves that of another alone, whatever it is called', async () => {
    const { root } = await family()
    await codeOf(here, root.handle)
    here.end('other', root.grant.id, ending(root.grant))
    await store.end('other', root.grant.id, ending(root.grant))
    expect(await codeOf(here, root.handle)).toBe(ok)
    expect(await codeOf(authenticatorOver(store, clock), root.handle)).toBe(ok)
  })

  it('an ancestor reaches a grant that is made below it afterwards', async () => {
    const { root, research } = await family()
    await store.end('acme', research.grant.id, ending(root.grant))
    const late = await keep(store, grantBelow(research.grant, clock))
    expect(await codeOf(here, late.handle)).toBe(dead)
  })

  it('an ancestor says that it may have been one', async () => {
    const { root, extract } = await family()
    await store.end('acme', root.grant.id, ending(root.grant, 'intent_changed'))
    await expect(async () => here.authenticate(presenting(extract.handle))).rejects.toThrow(
      /has ended \(intent changed\): it, one above it, its step or its task/,
    )
  })

  it('a grant is forgotten by this process when no grant can carry its mark any more', async () => {
    const { root } = await family()
    for (let i = 0; i < 1_000; i++) {
      here.end('acme', `${i}`, { reason: 'revoked', untilS: clock.nowMs() / 1000 + 1 })
      clock.advance(100)
    }
    expect(await codeOf(here, root.handle)).toBe(ok)
  })
})

describe('a suspended task', () => {
  const task = (of: Kept, state: 'active' | 'suspended', version: number) => ({
    id: of.grant.task.id,
    tenant: 'acme',
    root: of.grant,
    ceiling: of.grant.authority,
    state,
    watched: false,
    createdAt: of.grant.issuedAt,
    expiresAt: of.grant.expiresAt,
    version,
  })

  it('stops every grant of it at once, and none of another; resumed, they work again', async () => {
    const [all, others] = [await family(), await family()]
    await store.saveTask(records.closeTask(task(all.root, 'active', 0)), undefined)
    await codes(here, all)
    await store.saveTask(records.closeTask(task(all.root, 'suspended', 1)), 0)
    here.recheck('acme', all.root.grant.task.id)
    const stopped = 'task_suspended'
    expect(await codes(here, all)).toEqual([stopped, stopped, stopped, stopped])
    expect(await codes(here, others)).toEqual([ok, ok, ok, ok])
    await store.saveTask(records.closeTask(task(all.root, 'active', 2)), 1)
    expect(await codes(here, all)).toEqual([ok, ok, ok, ok])
  })

  it('is not slipped through by an answer from before', async () => {
    const { root } = await family()
    await store.saveTask(records.closeTask(task(root, 'active', 0)), undefined)
    const gate = Promise.withResolvers<void>()
    const slow = authenticatorOver(
      {
        ...store,
        async byHandle(tenant, digest) {
          const found = store.byHandle(tenant, digest)
          await gate.promise
          return found
        },
      },
      clock,
    )
    const early = codeOf(slow, root.handle)
    await store.saveTask(records.closeTask(task(root, 'suspended', 1)), 0)
    slow.recheck('acme', root.grant.task.id)
    gate.resolve()
    expect(await early).toBe(ok) // it came before
    expect(await codeOf(slow, root.handle)).toBe('task_suspended')
  })

  it('cannot be passed off as active by whoever writes to the store', () => {
    const of = grantBelow(undefined, clock)
    const sealed = records.closeTask(task({ grant: of, handle: '' }, 'suspended', 3))
    for (const forged of [
      { ...sealed, isSuspended: false },
      { ...sealed, version: 4 },
      { ...sealed, id: 'task_other' },
      { ...sealed, tenant: 'other' },
      { ...sealed, body: flipped(sealed.body) },
      { ...sealed, body: records.close(of, { marks: marksOf(of) }).body },
    ])
      expect(() => records.openTask(forged)).toThrow(/seal/)
    expect(records.openTask(sealed).state).toBe('suspended')
  })
})

describe('a grant that is bound to a key', () => {
  const key = { jkt: 'a'.repeat(43) }
  const certificate = { 'x5t#S256': 'c'.repeat(43) }
  it.each([
    [key, undefined, 'grant_invalid'],
    [key, {}, 'grant_invalid'],
    [key, { jkt: 'b'.repeat(43) }, 'grant_invalid'],
    [key, certificate, 'grant_invalid'],
    [key, key, ok],
    [certificate, certificate, ok],
    [certificate, { 'x5t#S256': 'd'.repeat(43) }, 'grant_invalid'],
    [{ ...key, ...certificate }, key, 'grant_invalid'],
    [{ ...key, ...certificate }, certificate, 'grant_invalid'],
    [{ ...key, ...certificate }, { ...key, ...certificate }, ok],
    [{}, key, 'grant_invalid'], // bound to something, but to nothing that can be proved
    [undefined, undefined, ok],
    [undefined, key, ok],
  ] as const)('by %j is worth, with proof of %j: %s', async (cnf, proof, expected) => {
    const { grant, handle } = await keep(store, grantBelow(undefined, clock, cnf === undefined ? {} : bound(cnf)))
    const { token } = await seal.sign(grant)
    for (const presented of [handle, token, handle, token]) expect(await codeOf(here, presented, proof)).toBe(expected)
  })

  it('is checked for each request, also while another one asks for the same grant', async () => {
    const { grant } = await keep(store, grantBelow(undefined, clock, bound(key)))
    const { token } = await seal.sign(grant)
    expect(await Promise.all([codeOf(here, token, key), codeOf(here, token), codeOf(here, token, key)])).toEqual([
      ok,
      'grant_invalid',
      ok,
    ])
  })
})

describe('an offline delegation', () => {
  const holder = newKey()
  const delegation = (jti: string, more: object = {}) =>
    signJws({ typ: 'keyless-delegation+jwt' }, { jti, ...more }, holder)

  function presented(tokenOf: (id: string) => string, changes: (token: string) => Partial<Grant> = () => ({})) {
    const parent = grantBelow(undefined, clock)
    const child = grantBelow(parent, clock)
    const token = tokenOf(child.id)
    const newest = token.split('~')[0] as string
    const seen: string[] = []
    const present = async (shown: string, tenant: string) => {
      seen.push(`${tenant} ${shown === token}`)
      await keep(store, { ...child, attestations: [newest], ...changes(token) })
    }
    return { token, child, seen, authenticator: authenticatorOver(store, clock, present) }
  }

  it('is verified at first sight, alone or as the newest of several, and from then on known', async () => {
    for (const tokenOf of [
      (id: string) => delegation(id),
      (id: string) => `${delegation(id)}~${delegation('older')}~${delegation('oldest')}`,
    ]) {
      const { token, child, seen, authenticator } = presented(tokenOf)
      for (let i = 0; i < 3; i++) expect((await authenticator.authenticate(presenting(token))).id).toBe(child.id)
      expect(seen).toEqual(['acme true'])
      const restarted = authenticatorOver(store, clock, () => Promise.reject(new Error('asked again')))
      expect(await codeOf(restarted, token)).toBe(ok)
      await store.end('acme', child.ancestry[0]?.id as string, ending(child))
      expect(await codeOf(authenticatorOver(store, clock), token)).toBe(dead)
    }
  })

  it('is presented once by a hundred requests that come at the same time', async () => {
    const { token, seen, authenticator } = presented((id) => delegation(id))
    await Promise.all(Array.from({ length: 100 }, () => authenticator.authenticate(presenting(token))))
    expect(seen).toHaveLength(1)
  })

  it('that takes the id of another grant is not that grant', async () => {
    const { root } = await family()
    const present = () => Promise.resolve()
    for (const token of [delegation(root.grant.id), `${delegation(root.grant.id)}~x`, delegation('no such id')])
      expect(await codeOf(authenticatorOver(store, clock, present), token)).toBe('grant_invalid')
    const mine = presented((id) => delegation(id))
    await mine.authenticator.authenticate(presenting(mine.token))
    const again = delegation(mine.child.id, { other: true })
    expect(await codeOf(authenticatorOver(store, clock, present), again)).toBe('grant_invalid')
  })

  it('is refused as whoever verifies it says, each time', async () => {
    const present = () => Promise.reject(new GatewayError('lineage_spliced', 'no'))
    const authenticator = authenticatorOver(store, clock, present)
    for (let i = 0; i < 2; i++) expect(await codeOf(authenticator, delegation('x'))).toBe('lineage_spliced')
  })

  it('is refused where none is accepted, or when it is none', async () => {
    expect(await codeOf(here, delegation('x'))).toBe('grant_invalid')
    const present = () => Promise.reject(new Error('asked'))
    const authenticator = authenticatorOver(store, clock, present)
    const nameless = signJws({ typ: 'keyless-delegation+jwt' }, { sub: 'x' }, holder)
    for (const token of ['~', '~~', 'a~b', 'a.b.c~', nameless, `x~${delegation('x')}`, `${nameless}~x`])
      expect(await codeOf(authenticator, token), token).toBe('grant_invalid')
  })
})

describe('replicas', () => {
  let server: TestRedis
  const connections: Redis[] = []
  beforeAll(async () => {
    server = await startRedis()
  })
  afterAll(async () => {
    for (const redis of connections) redis.disconnect()
    await server.stop()
  })
  const replica = (url = server.url) => {
    const redis = new Redis(url, { enableAutoPipelining: true, maxRetriesPerRequest: 0 })
    redis.on('error', () => {})
    connections.push(redis)
    return openRedisStore({ redis, prefix: server.prefix, clock })
  }

  it('see the end of a whole subtree within a second, also for what they remember', async () => {
    store = replica()
    const all = await family()
    const there = authenticatorOver(replica(), clock)
    expect(await codes(there, all)).toEqual([ok, ok, ok, ok])
    await store.end('acme', all.research.grant.id, ending(all.root.grant))
    clock.advance(999)
    await codes(there, all) // still trusted, and asks
    clock.advance(1)
    expect(await codes(there, all)).toEqual([ok, dead, dead, ok])
  })

  it('see within a second that a task is suspended, and that it is not any more', async () => {
    store = replica()
    const { root, extract } = await family()
    const there = authenticatorOver(replica(), clock)
    const stored = (isSuspended: boolean, version: number) => ({
      ...{ tenant: 'acme', id: root.grant.task.id, body: '', expiresAt: root.grant.expiresAt, watched: false },
      ...{ isSuspended, version },
    })
    expect(await codeOf(there, extract.handle)).toBe(ok)
    await store.saveTask(stored(true, 0), undefined)
    clock.advance(1_000)
    expect(await codeOf(there, extract.handle)).toBe('task_suspended')
    await store.saveTask(stored(false, 1), 0)
    expect(await codeOf(there, extract.handle)).toBe(ok)
  })

  it('allow nothing while Redis is away, and go on when it is back', async () => {
    const relay = await openRelay(server.url)
    store = replica()
    const { root, extract } = await family()
    const there = authenticatorOver(replica(relay.url), clock)
    expect(await codeOf(there, extract.handle)).toBe(ok)
    relay.cut()
    clock.advance(1_000)
    for (const { handle } of [root, extract]) expect(await codeOf(there, handle)).toBe('store_unavailable')
    const back = connections.at(-1) as Redis
    const ready = new Promise((resolve) => back.once('ready', resolve))
    relay.heal()
    await ready
    expect(await codeOf(there, extract.handle)).toBe(ok)
    await relay.close()
  })
})

describe('a record', () => {
  it('cannot be changed by whoever writes to the store: not its marks, its handle, its id, its text', () => {
    const grant = grantBelow(grantBelow(undefined, clock), clock)
    const sealed = records.close(grant, { handleDigest: 'digest', marks: marksOf(grant) })
    expect(records.open(sealed)).toEqual(grant)
    expect(records.open(JSON.parse(JSON.stringify(sealed)))).toEqual(grant)
    for (const forged of [
      { ...sealed, marks: [grant.id, grant.task.id] },
      { ...sealed, marks: [] },
      { ...sealed, handleDigest: 'other' },
      { ...sealed, handleDigest: undefined },
      { ...sealed, id: 'other' },
      { ...sealed, task: 'other' },
      { ...sealed, tenant: 'other' },
      { ...sealed, handleDigest: `digest\n${sealed.body.slice(43, 50)}`, body: sealed.body },
      { ...sealed, body: flipped(sealed.body) },
      { ...sealed, body: sealed.body.slice(0, 40) },
    ])
      expect(() => records.open(forged)).toThrow(expect.objectContaining({ code: 'grant_invalid' }))
  })
  it('tells nobody who reads the store of whom and what it is', () => {
    const grant = grantBelow(undefined, clock)
    const written = JSON.stringify([
      records.close(grant, { marks: marksOf(grant) }),
      records.closeTask(firstRecord(grant, false)),
    ])
    for (const name of [grant.human.sub, grant.human.iss, grant.task.purpose, grant.agent.id])
      expect(written).not.toContain(name)
  })

  it('is still read as gateways wrote it before records were encrypted', () => {
    const grant = grantBelow(undefined, clock)
    const sealed = records.close(grant, { handleDigest: 'digest', marks: marksOf(grant) })
    const json = JSON.stringify({ grant, marks: marksOf(grant) })
    const mac = createHmac('sha256', storeKey).update(`digest\n${json}`).digest('base64url')
    expect(records.open({ ...sealed, body: mac + json })).toEqual(grant)
    expect(() => records.open({ ...sealed, body: mac + json.replace('"depth":0', '"depth":1') })).toThrow(/seal/)
  })
})

function flipped(body: string): string {
  const middle = Math.floor(body.length / 2)
  return `${body.slice(0, middle)}${body[middle] === 'A' ? 'B' : 'A'}${body.slice(middle + 1)}`
}
