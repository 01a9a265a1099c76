/** What every store of grants must do. Run by `test/grant/store-sqlite.test.ts` and `test/grant/store-redis.test.ts`. */
import fc from 'fast-check'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type {
  Charge,
  CountCharge,
  GrantStore,
  PastCharge,
  RateCharge,
  StoredGrant,
  StoredTask,
} from '../../gateway/grant/store/store.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'
import { type ManualClock, manualClock } from '../rig/clock.ts'

export interface StoreUnderTest {
  /** A store on the same state as every other one from this variant: a second replica, or the same after a restart. */
  open(clock: ManualClock): GrantStore | Promise<GrantStore>
  /** Let time pass for rates, which a store may measure by a clock of its own. */
  pass(clock: ManualClock, ms: number): void | Promise<void>
  close(): Promise<void>
}

export function describeStore(name: string, start: () => Promise<StoreUnderTest>): void {
  let variant: StoreUnderTest
  let clock: ManualClock
  let store: GrantStore
  let replica: GrantStore
  const nowS = () => Math.floor(clock.nowMs() / 1000)
  const end = (reason = 'completed') => ({ reason, untilS: nowS() + 900 })

  const grant = (changes: Partial<StoredGrant> = {}): StoredGrant => {
    const id = uuidv7(clock.nowMs())
    const task = changes.task ?? `task_${uuidv7(clock.nowMs())}`
    return {
      tenant: 'acme',
      id,
      task,
      handleDigest: uuidv7(),
      body: '{"sealed":"“…”\\ud800"}',
      expiresAt: nowS() + 900,
      marks: [id, task],
      ...changes,
    }
  }

  const task = (changes: Partial<StoredTask> = {}): StoredTask => ({
    tenant: 'acme',
    id: `task_${uuidv7(clock.nowMs())}`,
    body: '{"sealed":"“…”"}',
    version: 0,
    expiresAt: nowS() + 900,
    watched: false,
    isSuspended: false,
    ...changes,
  })

  beforeAll(async () => {
    variant = await start()
  })
  afterAll(() => variant.close())
  beforeEach(async () => {
    clock = manualClock()
    store = await variant.open(clock)
    replica = await variant.open(clock)
  })

  describe(`${name} keeps orders`, () => {
    it('replaces a version by the next one only, and gives all of them to every replica', async () => {
      const tenant = uuidv7()
      expect(await store.ordersVersion(tenant)).toBe(0)
      expect(await store.orders(tenant)).toEqual({ version: 0, orders: [] })
      const first = { about: 'one', body: 'sealed' }
      expect(await store.putOrder(tenant, first, { expected: 0, version: 5 })).toBe(true)
      expect(await replica.putOrder(tenant, first, { expected: 0, version: 6 })).toBe(false)
      expect(await replica.putOrder(tenant, { about: 'two', body: 'x' }, { expected: 5, version: 2 ** 52 })).toBe(true)
      expect(await store.ordersVersion(tenant)).toBe(2 ** 52)
      const { version, orders } = await store.orders(tenant)
      expect(version).toBe(2 ** 52)
      expect(new Set(orders.map(({ about }) => about))).toEqual(new Set(['one', 'two']))
      await store.forgetOrders(tenant, ['one', 'two'], 5)
      expect((await replica.orders(tenant)).orders.length, 'it was read before the newest order was put').toBe(2)
      await store.forgetOrders(tenant, ['two'], 2 ** 52)
      expect((await replica.orders(tenant)).orders.map(({ about, body }) => ({ about, body }))).toEqual([first])
      expect(await replica.ordersVersion(tenant), 'it never goes back').toBe(2 ** 52)
      expect(await store.orders(uuidv7()), 'of another tenant').toEqual({ version: 0, orders: [] })
    })
  })

  describe(`${name} keeps grants`, () => {
    it('finds a grant by handle and by id, exactly as it was put', async () => {
      for (const put of [grant(), grant({ parent: uuidv7() })]) {
        expect(await store.create(put)).toBe(true)
        const whole = { stored: put, ended: undefined, isSuspended: false }
        expect(await store.byHandle('acme', put.handleDigest as string)).toEqual(whole)
        expect(await replica.byId('acme', put.id)).toEqual(whole)
      }
    })

    it('says of many at once, in their order, which live, have ended, are suspended, or are not known', async () => {
      const [living, over, parked] = [grant(), grant(), grant()]
      for (const put of [living, over, parked]) await store.create(put)
      await store.end('acme', over.task, end('revoked'))
      await store.saveTask(task({ id: parked.task, isSuspended: true }), undefined)
      const many = Array.from({ length: 600 }, () => uuidv7())
      const states = await replica.states('acme', [parked.id, ...many, over.id, uuidv7(), living.id])
      expect(states.slice(601)).toEqual(
        [{ ended: 'revoked', isSuspended: false }, undefined, { ended: undefined, isSuspended: false }].map(
          (state) => state && expect.objectContaining(state),
        ),
      )
      expect(states[0]).toMatchObject({ ended: undefined, isSuspended: true })
      expect(states.slice(1, 601).every((state) => state === undefined)).toBe(true)
      expect(await replica.states('other', [living.id])).toEqual([undefined])
      expect(await replica.states('acme', [])).toEqual([])
    })

    it('keeps grants without a handle, any number of them', async () => {
      for (const put of [grant({ handleDigest: undefined }), grant({ handleDigest: undefined })]) {
        expect(await store.create(put)).toBe(true)
        expect((await store.byId('acme', put.id))?.stored).toEqual(put)
      }
    })

    it('never puts one grant in the place of another', async () => {
      const put = grant()
      await store.create(put)
      expect(await replica.create({ ...put, body: 'other', handleDigest: uuidv7() })).toBe(false)
      expect((await store.byId('acme', put.id))?.stored).toEqual(put)
      expect(await store.create({ ...put, tenant: 'other' })).toBe(true)
    })

    it('takes one of fifty simultaneous grants of one id', async () => {
      const put = grant()
      const answers = await Promise.all(
        Array.from({ length: 50 }, (_, i) => (i % 2 ? store : replica).create({ ...put, handleDigest: uuidv7() })),
      )
      expect(answers.filter(Boolean)).toHaveLength(1)
    })

    it('finds nothing for another tenant, an unknown handle or id', async () => {
      const put = grant()
      await store.create(put)
      expect(await store.byHandle('other', put.handleDigest as string)).toBeUndefined()
      expect(await store.byId('other', put.id)).toBeUndefined()
      expect(await store.byHandle('acme', 'nothing')).toBeUndefined()
      expect(await store.byId('acme', 'nothing')).toBeUndefined()
      expect(await store.task('acme', 'nothing')).toBeUndefined()
    })

    it('ends a grant by any of its marks, for every reader, and keeps the first reason', async () => {
      for (const nth of [0, 1, 2, 3]) {
        const [id, parent, of] = [uuidv7(), uuidv7(), `task_${uuidv7()}`]
        const put = grant({ id, task: of, marks: [id, parent, of, `${of}/step 1`] })
        const other = grant()
        await store.create(put)
        await store.create(other)
        const mark = put.marks[nth] as string
        expect(await store.end('other', mark, end())).toBe(true)
        expect((await store.byId('acme', id))?.ended).toBeUndefined()
        expect(await store.end('acme', mark, end('revoked'))).toBe(true)
        expect(await replica.end('acme', mark, end('crashed'))).toBe(false)
        expect((await replica.byHandle('acme', put.handleDigest as string))?.ended).toBe('revoked')
        expect((await store.byId('acme', id))?.ended).toBe('revoked')
        expect((await store.byId('acme', other.id))?.ended).toBeUndefined()
      }
    })

    it('ends a grant that is made after the end of what it hangs on', async () => {
      const parent = uuidv7()
      await store.end('acme', parent, end('revoked'))
      const late = grant({ marks: [uuidv7(), parent] })
      await replica.create(late)
      expect((await store.byId('acme', late.id))?.ended).toBe('revoked')
    })

    it('lets exactly one of fifty simultaneous ends win', async () => {
      const { id } = grant()
      const wins = await Promise.all(
        Array.from({ length: 50 }, (_, i) => (i % 2 ? store : replica).end('acme', id, end())),
      )
      expect(wins.filter(Boolean)).toHaveLength(1)
    })

    it('lists the living grants of a task, oldest first', async () => {
      const of = `task_${uuidv7()}`
      const root = grant({ task: of })
      clock.advance(5)
      const [short, child] = [grant({ task: of, expiresAt: nowS() + 60 }), grant({ task: of, parent: root.id })]
      clock.advance(5)
      const grandchild = grant({ task: of, marks: [uuidv7(), child.id, root.id, of] })
      for (const put of [grandchild, root, short, child, grant()]) await store.create(put)
      const ids = async () => (await replica.grantsOf('acme', of)).map(({ id }) => id)
      expect((await ids()).toSorted()).toEqual([root, short, child, grandchild].map(({ id }) => id).toSorted())
      expect((await ids())[0]).toBe(root.id)
      await store.end('acme', child.id, end())
      expect(await ids()).toEqual([root.id, short.id])
      clock.advance(60_000)
      expect(await replica.grantsOf('acme', of)).toEqual([root])
      await store.end('acme', of, end())
      expect(await ids()).toEqual([])
      expect(await store.grantsOf('other', of)).toEqual([])
    })

    it('remembers grants, ends, tasks and charges over a restart', async () => {
      const [alive, dead, running] = [grant(), grant(), task({ isSuspended: true })]
      await store.create(alive)
      await store.create(dead)
      await store.saveTask(running, undefined)
      await store.end('acme', dead.id, end('revoked'))
      const [count, rate] = [countOf(2), rateOf(1, 60)]
      await store.spend('acme', [count, rate])
      await store.add('acme', [count])
      await store.once('acme', alive.id, clock.nowMs() + 60_000)
      await store.close()
      const again = await variant.open(clock)
      expect((await again.byHandle('acme', alive.handleDigest as string))?.stored).toEqual(alive)
      expect((await again.byId('acme', dead.id))?.ended).toBe('revoked')
      expect(await again.task('acme', running.id)).toEqual({ ...running, ended: undefined })
      expect(await again.left('acme', count)).toBe(0)
      expect(await again.spend('acme', [rate])).toBe(0)
      expect(await again.once('acme', alive.id, clock.nowMs() + 60_000)).toBe(false)
    })
  })

  describe(`${name} keeps tasks`, () => {
    it('gives back what was saved, and takes only the change that follows on it', async () => {
      const first = task()
      expect(await store.saveTask(first, 0)).toBe(false)
      expect(await store.saveTask(first, undefined)).toBe(true)
      expect(await replica.saveTask(first, undefined)).toBe(false)
      const second = { ...first, body: 'new', version: 1, expiresAt: nowS() + 1000, isSuspended: true }
      expect(await replica.saveTask(second, 7)).toBe(false)
      expect(await replica.saveTask(second, 0)).toBe(true)
      expect(await store.saveTask({ ...second, body: 'late' }, 0)).toBe(false)
      expect(await store.task('acme', first.id)).toEqual({ ...second, ended: undefined })
      expect(await store.task('other', first.id)).toBeUndefined()
    })

    it('takes one of fifty simultaneous changes', async () => {
      const first = task()
      await store.saveTask(first, undefined)
      const changes = Array.from({ length: 50 }, (_, i) =>
        (i % 2 ? store : replica).saveTask({ ...first, version: 1, body: String(i) }, 0),
      )
      expect((await Promise.all(changes)).filter(Boolean)).toHaveLength(1)
    })

    it('says on every grant of a task that it is suspended, for as long as it is', async () => {
      const of = task()
      const put = grant({ task: of.id })
      await store.create(put)
      await store.saveTask(of, undefined)
      expect((await replica.byId('acme', put.id))?.isSuspended).toBe(false)
      await store.saveTask({ ...of, version: 1, isSuspended: true }, 0)
      expect((await replica.byId('acme', put.id))?.isSuspended).toBe(true)
      expect((await replica.byHandle('acme', put.handleDigest as string))?.isSuspended).toBe(true)
      await store.saveTask({ ...of, version: 2 }, 1)
      expect((await replica.byId('acme', put.id))?.isSuspended).toBe(false)
    })

    it('changes nothing of a task that has ended, and says why it has', async () => {
      const of = task()
      await store.saveTask(of, undefined)
      await store.end('acme', of.id, end('completed'))
      expect(await replica.saveTask({ ...of, version: 1 }, 0)).toBe(false)
      expect(await replica.task('acme', of.id)).toMatchObject({ id: of.id, version: 0, ended: 'completed' })
      const never = task()
      await store.end('acme', never.id, end())
      expect(await store.saveTask(never, undefined)).toBe(false)
    })

    it('lists living tasks of the tenant, newest first, without those that ended or expired', async () => {
      const tenant = uuidv7()
      const first = task({ tenant, expiresAt: nowS() + 60 })
      clock.advance(5)
      const second = task({ tenant })
      clock.advance(5)
      const third = task({ tenant, isSuspended: true })
      for (const put of [second, first, third]) await store.saveTask(put, undefined)
      expect(await store.tasks(tenant)).toEqual([third, second, first])
      await replica.end(tenant, second.id, end())
      expect(await store.tasks(tenant)).toEqual([third, first])
      clock.advance(60_000)
      expect(await store.tasks(tenant)).toEqual([third])
      expect(await store.tasks('nobody')).toEqual([])
    })

    const overdueIds = async (...of: StoredTask[]) =>
      (await store.overdue(30_000)).map(({ id }) => id).filter((id) => of.some((put) => put.id === id))

    it('names a task overdue only after its heartbeats stayed away for that long', async () => {
      const put = task({ watched: true })
      await store.saveTask(put, undefined)
      clock.advance(30_000)
      expect(await overdueIds(put)).toEqual([])
      clock.advance(1)
      expect(await overdueIds(put)).toEqual([put.id])
    })

    it('counts from the last heartbeat, which no other change is', async () => {
      const put = task({ watched: true })
      await store.saveTask(put, undefined)
      clock.advance(29_000)
      await replica.beat('acme', put.id)
      clock.advance(29_000)
      await store.saveTask({ ...put, version: 1 }, 0)
      expect(await overdueIds(put)).toEqual([])
      clock.advance(2_000)
      expect(await overdueIds(put)).toEqual([put.id])
    })

    it('misses nobody between taking the watch off and putting it on again', async () => {
      const put = task({ watched: true })
      await store.saveTask(put, undefined)
      await store.saveTask({ ...put, version: 1, watched: false }, 0)
      await store.beat('acme', put.id)
      clock.advance(60_000)
      expect(await overdueIds(put)).toEqual([])
      await store.saveTask({ ...put, version: 2 }, 1)
      clock.advance(30_000)
      expect(await overdueIds(put)).toEqual([])
      clock.advance(1)
      expect(await overdueIds(put)).toEqual([put.id])
    })

    it('never names one that promised no heartbeats, has ended or has expired', async () => {
      const [quiet, ended] = [task(), task({ watched: true })]
      const expired = task({ watched: true, expiresAt: nowS() + 10 })
      for (const put of [quiet, ended, expired]) await store.saveTask(put, undefined)
      await store.beat('acme', quiet.id)
      await store.end('acme', ended.id, end())
      await store.beat('acme', ended.id)
      clock.advance(60_000)
      expect(await overdueIds(quiet, ended, expired)).toEqual([])
    })

    it('gives an overdue task to one of two replicas', async () => {
      const put = task({ watched: true })
      await store.saveTask(put, undefined)
      clock.advance(31_000)
      const both = await Promise.all([store.overdue(30_000), replica.overdue(30_000)])
      expect(both.flat().filter(({ id }) => id === put.id)).toEqual([put])
    })
  })

  const countOf = (limit: number, changes: Partial<CountCharge> = {}): CountCharge => ({
    name: uuidv7(),
    kind: 'count',
    limit,
    by: 1,
    untilS: nowS() + 900,
    ...changes,
  })
  const rateOf = (n: number, perS: number): RateCharge => ({
    name: uuidv7(),
    kind: 'rate',
    n,
    perS,
    untilS: nowS() + 900,
  })
  /** So many at once, over two replicas. @returns how many went through. */
  const storm = async (times: number, chargesOf: (i: number) => readonly Charge[]) => {
    const spends = Array.from({ length: times }, (_, i) => (i % 2 ? store : replica).spend('acme', chargesOf(i)))
    return (await Promise.all(spends)).filter((misfit) => misfit === -1).length
  }

  describe(`${name} keeps budgets`, () => {
    it('lets one of a hundred have what is there once, for each tenant and name', async () => {
      const once = countOf(1)
      expect(await storm(100, () => [once])).toBe(1)
      expect(await store.spend('other', [once])).toBe(-1)
      expect(await store.spend('acme', [countOf(1)])).toBe(-1)
    })

    it('lets ten children of a parent with fifty calls make fifty, and none more than its own', async () => {
      const parent = countOf(50)
      const children = Array.from({ length: 10 }, () => countOf(8))
      expect(await storm(200, (i) => [parent, children[i % 10] as Charge])).toBe(50)
      expect(await store.left('acme', parent)).toBe(0)
      const own = await Promise.all(children.map(async (child) => 8 - (await store.left('acme', child))))
      expect(own.reduce((sum, spent) => sum + spent, 0)).toBe(50)
    })

    it('charges all or nothing, and names the first that does not fit', async () => {
      const [wide, narrow, rate] = [countOf(10), countOf(1), rateOf(1, 60)]
      expect(await store.spend('acme', [wide, narrow])).toBe(-1)
      expect(await store.spend('acme', [wide, narrow, rate])).toBe(1)
      expect(await store.spend('acme', [rate, wide, narrow])).toBe(2)
      expect(await store.left('acme', wide)).toBe(9)
      expect(await store.left('acme', rate)).toBe(1)
      expect(await store.spend('acme', [wide, rate])).toBe(-1)
      expect(await store.spend('acme', [wide, rate])).toBe(1)
      expect(await store.left('acme', wide)).toBe(8)
    })

    it('fits nothing to nothing', async () => {
      expect(await store.spend('acme', [])).toBe(-1)
      expect(await store.spend('acme', [countOf(0)])).toBe(0)
    })

    it('charges more than one at a time up to the limit, not beyond', async () => {
      const bytes = (by: number) => ({ ...budget, by })
      const budget = countOf(100)
      expect(await store.spend('acme', [bytes(60)])).toBe(-1)
      expect(await store.spend('acme', [bytes(41)])).toBe(0)
      expect(await store.spend('acme', [bytes(40)])).toBe(-1)
    })

    it('asks whether anything is left without charging it', async () => {
      const budget = countOf(1)
      for (let i = 0; i < 3; i++) expect(await store.spend('acme', [{ ...budget, by: 0 }])).toBe(-1)
      expect(await store.left('acme', budget)).toBe(1)
      await store.spend('acme', [budget])
      expect(await store.spend('acme', [{ ...budget, by: 0 }])).toBe(0)
    })

    it('adds what has happened past the limit, and has nothing left then', async () => {
      const [one, other] = [countOf(100), countOf(10 ** 12)]
      await store.add('acme', [
        { ...one, by: 99 },
        { ...other, by: 5 * 10 ** 9 },
      ])
      expect(await replica.left('acme', one)).toBe(1)
      expect(await replica.left('acme', other)).toBe(995 * 10 ** 9)
      await replica.add('acme', [{ ...one, by: 99 }])
      expect(await store.left('acme', one)).toBe(0)
      expect(await store.spend('acme', [{ ...one, by: 0 }])).toBe(0)
    })

    it('keeps what an ancestor spent for as long as the longest-lived of those who spend it', async () => {
      const parent = countOf(2, { untilS: nowS() + 3600 })
      await store.spend('acme', [parent])
      await store.spend('acme', [{ ...parent, untilS: nowS() + 1 }])
      clock.advance(3_600_000)
      await store.create(grant())
      expect(await store.left('acme', parent)).toBe(0)
    })

    it('lets a name be used once until it runs out', async () => {
      const name = uuidv7()
      const first = await Promise.all(
        Array.from({ length: 20 }, (_, i) => (i % 2 ? store : replica).once('acme', name, clock.nowMs() + 60_000)),
      )
      expect(first.filter(Boolean)).toHaveLength(1)
      expect(await store.once('other', name, clock.nowMs() + 60_000)).toBe(true)
      expect(await store.once('acme', `${name}x`, clock.nowMs() + 60_000)).toBe(true)
    })

    it('counts the calls of a task by every field, and only while what they rest on has not moved', async () => {
      const name = `past/${uuidv7()}`
      const one = (o: Partial<PastCharge> = {}): PastCharge => ({
        ...{ name, kind: 'past', plain: ['n', 'a:read'], kinds: ['o:x:read'], seen: {}, untilS: nowS() + 900 },
        ...o,
      })
      expect(await store.past('acme', name)).toEqual({})
      expect(await store.spend('acme', [one()])).toBe(-1)
      expect(
        await replica.spend('acme', [one({ seen: { n: 1, 'o:x:write': 0 }, kinds: ['o:x:write', 'l:pii'] })]),
      ).toBe(-1)
      expect(await store.past('acme', name)).toEqual({
        n: 2,
        'a:read': 2,
        'o:x:read': 1,
        'o:x:write': 1,
        'l:pii': 1,
        d: 3,
      })
      expect(await store.spend('acme', [one({ seen: { n: 1 } })])).toBe(0)
      expect(await store.spend('acme', [countOf(5), one({ seen: { 'l:pii': 0 } })])).toBe(1)
      expect(await store.past('acme', name)).toMatchObject({ n: 2 }) // all or nothing
      expect(await store.spend('acme', [one({ seen: { n: 7 } })])).toBe(-1) // more was seen than the store has: nothing moved
      expect(await store.past('other', name)).toEqual({})
      expect(await store.past('acme', `${name}0`)).toEqual({})
    })

    it('lets no two calls of a task pass that rest on the same past', async () => {
      const charge = {
        name: `past/${uuidv7()}`,
        kind: 'past',
        plain: ['n'],
        kinds: [],
        seen: { n: 0 },
        untilS: nowS() + 900,
      } as const
      expect(await storm(20, () => [charge])).toBe(1)
    })

    it('lets n of a rate through at once, and the next one when the first is old enough', async () => {
      const rate = rateOf(3, 60)
      expect(await storm(10, () => [rate])).toBe(3)
      expect(await store.left('acme', rate)).toBe(0)
      await variant.pass(clock, 59_000)
      expect(await store.spend('acme', [rate])).toBe(0)
      await variant.pass(clock, 1_000)
      expect(await store.left('acme', rate)).toBe(3)
      expect(await store.spend('acme', [rate])).toBe(-1)
      expect(await storm(10, () => [rate])).toBe(2)
    })

    it('lets exactly those calls of a rate through that a window over all calls would', async () => {
      // Steps of a minute: a real clock that runs on in between does not come near the edge of a window.
      const gaps = fc.array(fc.nat(4), { minLength: 1, maxLength: 40 })
      await fc.assert(
        fc.asyncProperty(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 10 }), gaps, async (n, per, gap) => {
          const rate = rateOf(n, per * 60)
          const passed: number[] = []
          let at = 0
          for (const minutes of gap) {
            at += minutes
            if (minutes > 0) await variant.pass(clock, minutes * 60_000)
            const inWindow = passed.filter((before) => at - before < per).length
            expect(await store.left('acme', rate)).toBe(n - inWindow)
            const isThrough = (await store.spend('acme', [rate])) === -1
            expect(isThrough).toBe(inWindow < n)
            if (isThrough) passed.push(at)
          }
        }),
        { numRuns: 25 },
      )
    })

    it('never lets any order of spends over a tree pass a limit of it', async () => {
      const plan = fc.record({
        limits: fc.array(fc.integer({ min: 1, max: 12 }), { minLength: 1, maxLength: 8 }),
        parents: fc.array(fc.nat(), { minLength: 8, maxLength: 8 }),
        spends: fc.array(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 3 }), fc.boolean()), { maxLength: 60 }),
      })
      await fc.assert(
        fc.asyncProperty(plan, async ({ limits, parents, spends }) => {
          const tree = limits.map((limit) => countOf(limit))
          const chain = (i: number): number[] => (i === 0 ? [0] : [...chain((parents[i] as number) % i), i])
          const spendAt = async ([at, by, isHere]: readonly [number, number, boolean]) => {
            const levels = chain(at % tree.length)
            const charges = levels.map((i) => ({ ...(tree[i] as CountCharge), by }))
            const misfit = await (isHere ? store : replica).spend('acme', charges)
            return misfit === -1 ? levels.map((i) => ({ i, by })) : []
          }
          const used = tree.map(() => 0)
          for (const { i, by } of (await Promise.all(spends.map(spendAt))).flat()) used[i] = (used[i] as number) + by
          for (const [i, { limit }] of tree.entries()) {
            expect(used[i]).toBeLessThanOrEqual(limit)
            expect(await store.left('acme', tree[i] as CountCharge)).toBe(limit - (used[i] as number))
          }
        }),
        { numRuns: 40 },
      )
    })
  })
}
