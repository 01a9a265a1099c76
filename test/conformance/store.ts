/** What every store of grants must do. Run by `test/grant/store-sqlite.test.ts` and `test/grant/store-redis.test.ts`. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { GrantStore, StoredGrant } from '../../gateway/grant/store.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'
import { type ManualClock, manualClock } from '../rig/clock.ts'

export interface StoreUnderTest {
  /** A store on the same state as every other one from this variant: a second replica, or the same after a restart. */
  open(clock: ManualClock): GrantStore | Promise<GrantStore>
  close(): Promise<void>
}

export function describeStore(name: string, start: () => Promise<StoreUnderTest>): void {
  describe(`${name} keeps grants`, () => {
    let variant: StoreUnderTest
    let clock: ManualClock
    let store: GrantStore

    const grant = (changes: Partial<StoredGrant> = {}): StoredGrant => ({
      tenant: 'acme',
      id: uuidv7(clock.nowMs()),
      task: `task_${uuidv7(clock.nowMs())}`,
      handleDigest: uuidv7(),
      body: '{"sealed":"“…”"}',
      expiresAt: Math.floor(clock.nowMs() / 1000) + 900,
      watched: false,
      ...changes,
    })

    beforeAll(async () => {
      variant = await start()
    })
    afterAll(() => variant.close())
    beforeEach(async () => {
      clock = manualClock()
      store = await variant.open(clock)
    })

    it('finds a grant by handle, by id and by task, exactly as it was put', async () => {
      const put = grant({ watched: true })
      await store.create(put)
      for (const found of [
        await store.byHandle('acme', put.handleDigest),
        await store.byId('acme', put.id),
        await store.byTask('acme', put.task),
      ]) {
        expect(found).toEqual({ stored: put, ended: undefined })
      }
    })

    it('finds nothing for another tenant, an unknown handle, id or task', async () => {
      const put = grant()
      await store.create(put)
      expect(await store.byHandle('other', put.handleDigest)).toBeUndefined()
      expect(await store.byId('other', put.id)).toBeUndefined()
      expect(await store.byTask('other', put.task)).toBeUndefined()
      expect(await store.byHandle('acme', 'nothing')).toBeUndefined()
      expect(await store.byId('acme', 'nothing')).toBeUndefined()
      expect(await store.byTask('acme', 'nothing')).toBeUndefined()
    })

    it('ends a grant once, for every reader, and keeps the first reason', async () => {
      const put = grant()
      await store.create(put)
      const replica = await variant.open(clock)
      expect(await store.end(put, 'completed')).toBe(true)
      expect(await replica.end(put, 'crashed')).toBe(false)
      expect((await replica.byHandle('acme', put.handleDigest))?.ended).toBe('completed')
      expect((await store.byTask('acme', put.task))?.ended).toBe('completed')
    })

    it('lets exactly one of fifty simultaneous ends win', async () => {
      const put = grant()
      await store.create(put)
      const replica = await variant.open(clock)
      const wins = await Promise.all(Array.from({ length: 50 }, (_, i) => (i % 2 ? store : replica).end(put, 'x')))
      expect(wins.filter(Boolean)).toHaveLength(1)
    })

    it('gives the one use of an operation to exactly one of a hundred', async () => {
      const { id, expiresAt } = grant()
      const replica = await variant.open(clock)
      const answers = await Promise.all(
        Array.from({ length: 100 }, (_, i) =>
          (i % 2 ? store : replica).spend('acme', id, 'github:keys.create', expiresAt),
        ),
      )
      expect(answers.filter(Boolean)).toHaveLength(1)
      expect(await store.spend('acme', id, 'github:keys.delete', expiresAt)).toBe(true)
      expect(await store.spend('other', id, 'github:keys.create', expiresAt)).toBe(true)
    })

    it('remembers grants, ends and spent uses over a restart', async () => {
      const [alive, dead] = [grant(), grant()]
      await store.create(alive)
      await store.create(dead)
      await store.end(dead, 'revoked')
      await store.spend('acme', alive.id, 'github:keys.create', alive.expiresAt)
      await store.close()
      const again = await variant.open(clock)
      expect(await again.byHandle('acme', alive.handleDigest)).toEqual({ stored: alive, ended: undefined })
      expect((await again.byId('acme', dead.id))?.ended).toBe('revoked')
      expect(await again.spend('acme', alive.id, 'github:keys.create', alive.expiresAt)).toBe(false)
    })

    it('lists living grants of the tenant, newest first, without those that ended or expired', async () => {
      const tenant = uuidv7()
      const first = grant({ tenant, expiresAt: clock.nowMs() / 1000 + 60 })
      clock.advance(5)
      const second = grant({ tenant })
      clock.advance(5)
      const third = grant({ tenant })
      for (const put of [first, second, third]) await store.create(put)
      expect(await store.live(tenant)).toEqual([third, second, first])
      await store.end(second, 'completed')
      expect(await store.live(tenant)).toEqual([third, first])
      clock.advance(60_000)
      expect(await store.live(tenant)).toEqual([third])
      expect(await store.live('nobody')).toEqual([])
    })

    it('names a grant overdue only after its heartbeats stayed away for that long', async () => {
      const put = grant({ watched: true })
      await store.create(put)
      clock.advance(30_000)
      expect(await overdueIds(put)).toEqual([])
      clock.advance(1)
      expect(await overdueIds(put)).toEqual([put.id])
    })

    it('counts from the last heartbeat', async () => {
      const put = grant({ watched: true })
      await store.create(put)
      clock.advance(29_000)
      await store.beat(put)
      clock.advance(29_000)
      expect(await overdueIds(put)).toEqual([])
      clock.advance(2_000)
      expect(await overdueIds(put)).toEqual([put.id])
    })

    it('never names one that promised no heartbeats, has ended or has expired', async () => {
      const [quiet, ended] = [grant(), grant({ watched: true })]
      const expired = grant({ watched: true, expiresAt: clock.nowMs() / 1000 + 10 })
      for (const put of [quiet, ended, expired]) await store.create(put)
      await store.beat(quiet)
      await store.end(ended, 'completed')
      await store.beat(ended)
      clock.advance(60_000)
      expect(await overdueIds(quiet, ended, expired)).toEqual([])
    })

    it('gives an overdue grant to one of two replicas', async () => {
      const put = grant({ watched: true })
      await store.create(put)
      clock.advance(31_000)
      const replica = await variant.open(clock)
      const both = await Promise.all([store.overdue(30_000), replica.overdue(30_000)])
      expect(both.flat().filter(({ id }) => id === put.id)).toHaveLength(1)
    })

    const overdueIds = async (...of: StoredGrant[]) =>
      (await store.overdue(30_000)).map(({ id }) => id).filter((id) => of.some((put) => put.id === id))
  })
}
