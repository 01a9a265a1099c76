/** Budgets as a tree: over SQLite in one process, and over two replicas that share a Redis. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type Budgets, chargesOf, createBudgets, type Spending } from '../../gateway/grant/budget.ts'
import { openRedisStore } from '../../gateway/grant/store/redis.ts'
import { openSqliteStore } from '../../gateway/grant/store/sqlite.ts'
import type { CountCharge, GrantStore } from '../../gateway/grant/store/store.ts'
import { storeUnavailable } from '../../gateway/grant/store/store.ts'
import type { Grant } from '../../gateway/protocol/grant.ts'
import { type ManualClock, manualClock } from '../rig/clock.ts'
import { startRedis, type TestRedis } from '../rig/redis.ts'
import { freshStore } from './grant.fixture.ts'
import { openRelay } from './relay.fixture.ts'
import { grantBelow, limited, spendingOf } from './tree.fixture.ts'

let clock: ManualClock
beforeEach(() => {
  clock = manualClock()
})

let server: TestRedis
beforeAll(async () => {
  server = await startRedis()
})
afterAll(() => server.stop())

const root = (changes: Partial<Grant> = {}) => grantBelow(undefined, clock, changes)
const child = (parent: Grant, changes: Partial<Grant> = {}) => grantBelow(parent, clock, changes)
const traffic = (sentBytes: number, receivedBytes = 0) => ({ sentBytes, receivedBytes })

/** Which of so many calls at once went through, and with which codes the others were refused. */
async function storm(budgets: readonly Budgets[], spendings: readonly Spending[]) {
  const calls = spendings.map(async (each, i) => (budgets[i % budgets.length] as Budgets).debit(each))
  const answers = await Promise.allSettled(calls)
  const passed = spendings.filter((_, i) => answers[i]?.status === 'fulfilled')
  const codes = answers.flatMap((answer) => (answer.status === 'rejected' ? [answer.reason.code as string] : []))
  return { passed, codes: new Set(codes) }
}

const repeat = (times: number, of: (i: number) => Spending) => Array.from({ length: times }, (_, i) => of(i))

describe.each(['SQLite in one process', 'Redis and two replicas'] as const)('over %s', (kind) => {
  let replicas: Budgets[]
  let stores: GrantStore[]
  const close: (() => void)[] = []

  beforeEach(() => {
    if (kind === 'SQLite in one process') {
      const dir = mkdtempSync(join(tmpdir(), 'keyless-budget-'))
      stores = [0, 1].map(() => openSqliteStore({ path: join(dir, 'state.sqlite'), clock }))
      close.push(() => rmSync(dir, { recursive: true }))
    } else {
      const connections = [0, 1].map(() => new Redis(server.url, { enableAutoPipelining: true }))
      stores = connections.map((redis) => openRedisStore({ redis, prefix: server.prefix, clock }))
      close.push(() => connections.forEach((redis) => void redis.disconnect()))
    }
    replicas = stores.map((store) => createBudgets(store))
  })
  afterAll(() => {
    for (const work of close) work()
  })

  it('makes exactly one of a hundred parallel uses of a single-use grant', async () => {
    const grant = root(limited({ single_use: true }))
    const { passed, codes } = await storm(
      replicas,
      repeat(100, () => spendingOf(grant)),
    )
    expect(passed).toHaveLength(1)
    expect(codes).toEqual(new Set(['use_spent']))
  })

  it('makes exactly one of a hundred parallel uses where policy obliges to it, over the whole tree', async () => {
    const parent = root()
    const family = [parent, ...Array.from({ length: 9 }, () => child(parent))]
    const { passed, codes } = await storm(
      replicas,
      repeat(100, (i) => spendingOf(family[i % 10] as Grant, { singleUse: true, operation: 'github:keys.create' })),
    )
    // A sibling cannot use it again, nor can the parent; a use by the parent alone leaves its children theirs.
    expect(passed).toHaveLength(1)
    expect(codes).toEqual(new Set(['use_spent']))
  })

  it('makes exactly fifty of the calls of ten children whose parent has fifty', async () => {
    const parent = root(limited({ max_calls: 50 }))
    const children = Array.from({ length: 10 }, () => child(parent, limited({ max_calls: 50 })))
    const { passed, codes } = await storm(
      replicas,
      repeat(500, (i) => spendingOf(children[i % 10] as Grant)),
    )
    expect(passed).toHaveLength(50)
    expect(codes).toEqual(new Set(['limit_exceeded']))
  })

  it('makes of the calls of each child no more than its own budget, whatever the parent has', async () => {
    const parent = root(limited({ max_calls: 50 }))
    const children = Array.from({ length: 10 }, () => child(parent, limited({ max_calls: 3 })))
    const { passed } = await storm(
      replicas,
      repeat(200, (i) => spendingOf(children[i % 10] as Grant)),
    )
    for (const each of children) expect(passed.filter(({ grant }) => grant.id === each.id)).toHaveLength(3)
  })

  it('makes no more of the calls of a whole tree in any window than its rate', async () => {
    const parent = root(limited({ rate: { n: 7, per: 60 } }))
    const children = Array.from({ length: 5 }, () => child(parent, limited({ rate: { n: 5, per: 60 } })))
    const { passed, codes } = await storm(
      replicas,
      repeat(60, (i) => spendingOf(children[i % 5] as Grant)),
    )
    expect(passed).toHaveLength(7)
    expect(codes).toEqual(new Set(['limit_exceeded']))
  })

  it('hands out the least that any budget of bytes has left, and counts what was carried at every level', async () => {
    const [here, there] = replicas as [Budgets, Budgets]
    const parent = root(limited({ max_bytes: 1000 }))
    const [one, two] = [child(parent, limited({ max_bytes: 600 })), child(parent, limited({ max_bytes: 900 }))]
    expect(await here.debit(spendingOf(one))).toEqual({ bytes: 600 })
    here.settle(spendingOf(one), traffic(100, 400))
    expect(await here.debit(spendingOf(one))).toEqual({ bytes: 100 })
    expect(await there.debit(spendingOf(two))).toEqual({ bytes: 500 })
    there.settle(spendingOf(two), traffic(0, 500))
    for (const each of [one, two, parent]) {
      await expect(async () => there.debit(spendingOf(each))).rejects.toMatchObject({
        code: 'limit_exceeded',
        detail: expect.stringContaining(`1000 bytes that grant ${parent.id}`),
      })
    }
  })

  it('never lets any order of calls through any tree pass a budget of it', async () => {
    const plan = fc.record({
      calls: fc.array(fc.integer({ min: 1, max: 10 }), { minLength: 1, maxLength: 7 }),
      above: fc.array(fc.nat(), { minLength: 7, maxLength: 7 }),
      order: fc.array(fc.nat(), { maxLength: 50 }),
    })
    await fc.assert(
      fc.asyncProperty(plan, async ({ calls, above, order }) => {
        const tree: Grant[] = []
        for (const [i, max_calls] of calls.entries()) {
          const parent = i === 0 ? undefined : tree[(above[i] as number) % i]
          tree.push(grantBelow(parent, clock, limited({ max_calls })))
        }
        const { passed } = await storm(
          replicas,
          order.map((nth) => spendingOf(tree[nth % tree.length] as Grant)),
        )
        for (const [i, { id }] of tree.entries()) {
          const under = passed.filter(({ grant }) => grant.id === id || grant.ancestry.some((each) => each.id === id))
          expect(under.length).toBeLessThanOrEqual(calls[i] as number)
        }
      }),
      { numRuns: 40 },
    )
  })
})

describe('a grant without a budget', () => {
  it('costs the store nothing, nor does a chain of them', () => {
    const untouched = new Proxy({} as GrantStore, {
      get: () => {
        throw new Error('the store was asked')
      },
    })
    const budgets = createBudgets({ spend: () => untouched.spend('', []), add: () => {}, left: () => 0 })
    const parent = root()
    for (const grant of [parent, child(parent)]) {
      expect(budgets.debit(spendingOf(grant))).toBeUndefined()
      budgets.settle(spendingOf(grant), traffic(10, 10))
    }
  })

  it('costs nothing either where its constraints are no budgets', () => {
    const grant = root(limited({ sensitivity_max: 'internal', source: ['10.0.0.0/8'] }))
    const budgets = createBudgets({
      spend: () => expect.unreachable(),
      add: () => expect.unreachable(),
      left: () => expect.unreachable(),
    })
    expect(budgets.debit(spendingOf(grant))).toBeUndefined()
    budgets.settle(spendingOf(grant), traffic(1))
  })
})

describe('charges', () => {
  it('name grant, entry and kind at every level, root first, and live as long as whoever may spend them', () => {
    const parent = root(limited({ max_calls: 5, max_bytes: 9 }))
    const grant = child(parent, limited({ single_use: true, rate: { n: 2, per: 10 } }))
    const { levels } = spendingOf(grant).decision
    const own = grant.expiresAt
    expect(chargesOf(grant, levels, { operation: 'github:a', isSingleUse: true })).toEqual([
      { name: `${parent.id}/0/calls`, kind: 'count', limit: 5, by: 1, untilS: own + 3600 },
      { name: `${parent.id}/0/bytes`, kind: 'count', limit: 9, by: 0, untilS: own + 3600 },
      { name: `${grant.id}/0/use`, kind: 'count', limit: 1, by: 1, untilS: own },
      { name: `${grant.id}/0/rate`, kind: 'rate', n: 2, perS: 10, untilS: own },
      { name: `${parent.id}/once/github:a`, kind: 'count', limit: 1, by: 1, untilS: own + 3600 + 7 * 24 * 3600 },
      { name: `${grant.id}/once/github:a`, kind: 'count', limit: 1, by: 1, untilS: own },
    ])
    expect(chargesOf(grant, [], { operation: 'github:a', isSingleUse: false })).toEqual([])
  })

  it('keep entries of one grant apart', () => {
    const grant = root()
    const levels = [0, 1].map((entry) => ({ grant: grant.id, entry, constraints: { max_calls: 1 } }))
    const names = chargesOf(grant, levels, { operation: 'github:a', isSingleUse: false }).map(({ name }) => name)
    expect(new Set(names).size).toBe(2)
  })
})

describe('a refusal', () => {
  const refused = async (grant: Grant, o: { operation?: string; singleUse?: boolean } = {}, times = 1) => {
    const budgets = createBudgets(freshStore(clock))
    for (let i = 0; i < times; i++) await budgets.debit(spendingOf(grant, o))
    return expect(async () => budgets.debit(spendingOf(grant, o))).rejects
  }

  it('says whose budget is used up, and what to do', async () => {
    const parent = root(limited({ max_calls: 2 }))
    await (await refused(child(parent), {}, 2)).toMatchObject({
      code: 'limit_exceeded',
      detail: expect.stringMatching(new RegExp(`2 calls that grant ${parent.id} above it allows.*Ask the grantor`)),
    })
    await (await refused(parent, {}, 2)).toMatchObject({ detail: expect.not.stringContaining('above it') })
    const hasty = root(limited({ rate: { n: 1, per: 30 } }))
    await (await refused(hasty)).toMatchObject({
      code: 'limit_exceeded',
      detail: expect.stringMatching(/1 times in any 30 s .*Wait up to 30 s/),
    })
    await (await refused(root(), { singleUse: true, operation: 'github:keys.create' })).toMatchObject({
      code: 'use_spent',
      detail: expect.stringContaining('github:keys.create may be used once'),
    })
  })

  it('charges nothing: a call that the rate turns away is not taken from the calls', async () => {
    const budgets = createBudgets(freshStore(clock))
    const grant = root(limited({ max_calls: 2, rate: { n: 1, per: 10 } }))
    const spending = spendingOf(grant)
    await budgets.debit(spending)
    for (let i = 0; i < 5; i++) expect(() => budgets.debit(spending)).toThrow(/any 10 s/)
    clock.advance(10_000)
    expect(budgets.debit(spending)).toBeUndefined()
    clock.advance(10_000)
    expect(() => budgets.debit(spending)).toThrow(/2 calls/)
  })
})

describe('a store that fails', () => {
  const refusal = { code: 'store_unavailable' }

  it('allows nothing, whether it is cut off or hangs, and what was spent meanwhile stays spent', {
    timeout: 15_000,
  }, async () => {
    const relay = await openRelay(server.url)
    const redis = new Redis(relay.url, { enableOfflineQueue: false, maxRetriesPerRequest: 0, retryStrategy: () => 5 })
    redis.on('error', () => {})
    await new Promise((resolve) => redis.once('ready', resolve))
    const budgets = createBudgets(openRedisStore({ redis, prefix: server.prefix, clock }))
    const counted = spendingOf(root(limited({ max_calls: 3 })))
    expect(await budgets.debit(counted)).toBeUndefined()
    relay.hang()
    await expect(budgets.debit(counted)).rejects.toMatchObject(refusal)
    relay.cut()
    await expect(budgets.debit(counted)).rejects.toMatchObject(refusal)
    const ready = new Promise((resolve) => redis.once('ready', resolve))
    relay.heal()
    await ready
    const { passed } = await storm(
      [budgets],
      repeat(5, () => counted),
    )
    expect(passed.length).toBeLessThanOrEqual(2)
    redis.disconnect()
    await relay.close()
  })

  it('is told of every byte before it allows another call', async () => {
    const inner = freshStore(clock)
    let isDown = false
    const attempt = <T>(work: () => T): Promise<T> =>
      isDown ? Promise.reject(storeUnavailable(undefined)) : Promise.resolve(work())
    const told: CountCharge[] = []
    const budgets = createBudgets({
      spend: (tenant, charges) => attempt(() => inner.spend(tenant, charges) as number),
      left: (tenant, charge) => attempt(() => inner.left(tenant, charge) as number),
      add: (tenant, charges) =>
        attempt(() => {
          told.push(...charges)
          return inner.add(tenant, charges) as undefined
        }),
    })
    const spending = spendingOf(root(limited({ max_bytes: 100 })))
    expect(await budgets.debit(spending)).toEqual({ bytes: 100 })
    isDown = true
    for (let i = 0; i < 3; i++) budgets.settle(spending, traffic(10))
    await expect(async () => budgets.debit(spending)).rejects.toMatchObject(refusal)
    isDown = false
    const both = await Promise.all([budgets.debit(spending), budgets.debit(spending)])
    expect(both).toEqual([{ bytes: 70 }, { bytes: 70 }])
    expect(told.map(({ by }) => by)).toEqual([10, 10, 10])
  })

  it('never makes settling throw, and allows nothing after, also where it answers at once', () => {
    const store = freshStore(clock)
    const budgets = createBudgets(store)
    const spending = spendingOf(root(limited({ max_bytes: 100 })))
    expect(budgets.debit(spending)).toEqual({ bytes: 100 })
    store.close()
    expect(() => budgets.settle(spending, traffic(10))).not.toThrow()
    return expect(async () => budgets.debit(spending)).rejects.toMatchObject(refusal)
  })
})
