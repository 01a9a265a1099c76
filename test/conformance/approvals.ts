/** What every store of approvals must do. Run by `test/approval/store-sqlite.test.ts` and `test/approval/store-redis.test.ts`. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type ApprovalStore, type StoredApproval, storable } from '../../gateway/approval/store.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'
import { record } from '../approval/approval.fixture.ts'
import { type ManualClock, manualClock } from '../rig/clock.ts'

export interface ApprovalsUnderTest {
  /** A store on the same state as every other one from this variant: a second replica, or the same after a restart. */
  open(clock: ManualClock): ApprovalStore | Promise<ApprovalStore>
  close(): Promise<void>
}

export function describeApprovals(name: string, start: () => Promise<ApprovalsUnderTest>): void {
  describe(`approvals in ${name}`, () => {
    let variant: ApprovalsUnderTest
    let clock: ManualClock
    let store: ApprovalStore
    let replica: ApprovalStore

    beforeAll(async () => {
      variant = await start()
    })
    afterAll(() => variant.close())
    beforeEach(async () => {
      clock = manualClock(Date.now())
      store = await variant.open(clock)
      replica = await variant.open(clock)
      return async () => {
        await store.close()
        await replica.close()
      }
    })

    /** Of an agent of its own, so that tests do not count each other's. */
    const one = (changes: Partial<StoredApproval> = {}): StoredApproval => ({
      ...storable(record(clock.nowMs()), 'sealed'),
      agent: uuidv7(),
      tenant: 'acme',
      ...changes,
    })
    const next = (stored: StoredApproval, changes: Partial<StoredApproval> = {}): StoredApproval => ({
      ...stored,
      version: stored.version + 1,
      body: `${stored.body}+`,
      ...changes,
    })

    it('finds what was added, by id and by slot, on every replica', async () => {
      const stored = one()
      expect(await store.add(stored, 9)).toEqual({ isNew: true })
      expect(await replica.byId('acme', stored.id)).toEqual(stored)
      expect(await replica.inSlot('acme', stored.slot)).toEqual(stored)
      expect((await replica.pending('acme')).map(({ id }) => id)).toContain(stored.id)
    })

    it('keeps tenants apart', async () => {
      const stored = one()
      await store.add(stored, 9)
      expect(await store.byId('other', stored.id)).toBeUndefined()
      expect(await store.inSlot('other', stored.slot)).toBeUndefined()
      expect((await store.pending('other')).map(({ id }) => id)).not.toContain(stored.id)
    })

    it('gives a slot to the first, whoever asks at once', async () => {
      const slot = uuidv7()
      const all = Array.from({ length: 8 }, () => one({ slot }))
      const added = await Promise.all(all.map((each, n) => (n % 2 ? store : replica).add(each, 99)))
      expect(added.filter((each) => each !== 'full' && 'isNew' in each)).toHaveLength(1)
      const first = added.flatMap((each) => (each !== 'full' && 'first' in each ? [each.first.id] : []))
      expect(new Set(first).size).toBe(1)
      expect((await store.inSlot('acme', slot))?.id).toBe(first[0])
    })

    it('adds no more of one agent than may be pending', async () => {
      const agent = uuidv7()
      expect(await store.count('acme', agent)).toBe(0)
      const added = await Promise.all(
        Array.from({ length: 6 }, (_, n) => (n % 2 ? store : replica).add(one({ agent }), 3)),
      )
      expect(added.filter((each) => each === 'full')).toHaveLength(3)
      expect(await replica.count('acme', agent)).toBe(3)
      clock.advance(300_000) // theirs is over
      expect(await replica.count('acme', agent)).toBe(0)
      expect(await store.add(one({ agent }), 3)).toEqual({ isNew: true })
    })

    it('makes exactly one of two changes of the same version, and tells every replica', async () => {
      const told: string[] = []
      const stop = replica.onChange((tenant, id) => told.push(`${tenant} ${id}`))
      let before = one()
      await store.add(before, 9)
      const hears = async () => {
        before = next(before)
        await store.change(before)
        return told.length
      }
      await expect.poll(hears, { interval: 5 }).toBeGreaterThan(store.lookMs === undefined ? -1 : 0) // it subscribes in its own time
      const stored = one()
      await store.add(stored, 9)
      const ofIt = () => told.filter((line) => line.endsWith(stored.id))
      const changes = Array.from({ length: 10 }, () => next(stored, { isPending: false, untilMs: 0 }))
      const made = await Promise.all(changes.map((change, n) => (n % 2 ? store : replica).change(change)))
      expect(made.filter(Boolean)).toHaveLength(1)
      if (store.lookMs !== undefined) await expect.poll(ofIt).toEqual([`acme ${stored.id}`])
      stop()
    })

    it('frees the slot of what is over, and remembers it by its id', async () => {
      const stored = one()
      await store.add(stored, 9)
      const over = next(stored, { isPending: false, untilMs: 0 })
      expect(await store.change(over)).toBe(true)
      expect(await replica.inSlot('acme', stored.slot)).toBeUndefined()
      expect(await replica.byId('acme', stored.id)).toEqual(over)
      expect((await replica.pending('acme')).map(({ id }) => id)).not.toContain(stored.id)
      expect(await store.add(one({ slot: stored.slot }), 9)).toEqual({ isNew: true })
      expect(await store.change(next(over))).toBe(true) // and whoever is in its slot now stays there
      expect((await store.inSlot('acme', stored.slot))?.id).not.toBe(stored.id)
    })

    it('has nothing in a slot whose time is over, and takes no version that it does not expect', async () => {
      const stored = one()
      await store.add(stored, 9)
      expect(await store.change({ ...stored, body: 'again' })).toBe(false)
      expect(await store.change(next(next(stored)))).toBe(false)
      expect(await store.change(next({ ...stored, id: uuidv7() }))).toBe(false)
      clock.advance(300_000)
      expect(await replica.inSlot('acme', stored.slot)).toBeUndefined()
      expect((await replica.byId('acme', stored.id))?.id).toBe(stored.id)
    })

    it('gives each one whose time ran out to one caller', async () => {
      const stored = one()
      await store.add(stored, 9)
      const mine = async () =>
        (await Promise.all([store.lapsed('acme'), replica.lapsed('acme')])).flat().filter(({ id }) => id === stored.id)
      expect(await mine()).toEqual([])
      clock.advance(300_000)
      expect(await mine()).toHaveLength(1)
      expect(await mine()).toEqual([])
    })
  })
}
