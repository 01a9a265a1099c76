/** Who watches a grant is told of its end once, whoever ends it and however; and nothing runs while nobody watches. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { Liveness } from '../../gateway/grant/life/liveness.ts'
import { Watch } from '../../gateway/grant/orders/watch.ts'
import type { GrantState, GrantStore } from '../../gateway/grant/store/store.ts'
import { storeUnavailable } from '../../gateway/grant/store/store.ts'
import type { Grant } from '../../gateway/protocol/grant.ts'
import type { GatewayError } from '../../gateway/protocol/problem.ts'
import { type ManualClock, manualClock } from '../rig/clock.ts'
import { grantBelow } from './tree.fixture.ts'

let clock: ManualClock
let liveness: Liveness
/** What a shared store says, by id. */
let states: Map<string, GrantState>
let isAway = false
/** Ids of each look. */
let asked: (readonly string[])[] = []

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
  clock = manualClock()
  liveness = new Liveness(clock)
  states = new Map()
  asked = []
  isAway = false
})
afterEach(() => {
  vi.useRealTimers()
})

function watchOver(trustMs: number): Watch {
  const store: Pick<GrantStore, 'trustMs' | 'states'> = {
    trustMs,
    async states(_, ids) {
      asked.push(ids)
      if (isAway) throw storeUnavailable(undefined)
      return ids.map((id) => states.get(id))
    },
  }
  return new Watch({ store, liveness, clock })
}

const shared = () => watchOver(1_000)
const alone = () => watchOver(Number.POSITIVE_INFINITY)

function living(parent?: Grant, changes: Partial<Grant> = {}): Grant {
  const grant = grantBelow(parent, clock, changes)
  states.set(grant.id, { ended: undefined, isSuspended: false })
  return grant
}

/** Codes of the cuts of a grant. */
function watched(watch: Watch, grant: Grant) {
  const codes: string[] = []
  const stop = watch.watch(grant, (why: GatewayError) => codes.push(why.code))
  return { codes, stop }
}

/** So much time, with the looks in it, and the answers to them. */
async function pass(ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= 100) {
    clock.advance(100)
    vi.advanceTimersByTime(100)
    await settle()
  }
}
const settle = () => new Promise((resolve) => setImmediate(resolve))
const ending = (grant: Grant) => ({ reason: 'completed', untilS: grant.expiresAt })

describe.each([
  ['in one process', alone],
  ['with a shared store', shared],
] as const)('%s', (_, open) => {
  it('is told at once of what this process ends: the grant, one above, its step, its task', async () => {
    const watch = open()
    const root = living()
    const child = living(root, { step: 'research' })
    for (const mark of [child.id, root.id, `${root.task.id}/research`, root.task.id]) {
      liveness = new Liveness(clock)
      const fresh = open()
      const { codes } = watched(fresh, child)
      await settle()
      liveness.end('acme', mark, ending(root))
      await settle()
      expect(codes).toEqual(['grant_revoked'])
      expect(fresh.size).toBe(0)
    }
    expect(watch.size).toBe(0)
  })

  it('is told of an end that came before the watch', async () => {
    const watch = open()
    const grant = living()
    liveness.end('acme', grant.id, ending(grant))
    const { codes } = watched(watch, grant)
    expect(codes, 'never before watch() returns').toEqual([])
    await settle()
    expect(codes).toEqual(['grant_revoked'])
  })

  it('is told when the time of the grant is up, and not before', async () => {
    const grant = living(undefined, { expiresAt: Math.floor(clock.nowMs() / 1000) + 10 })
    const { codes } = watched(open(), grant)
    await pass(9_900)
    expect(codes).toEqual([])
    await pass(600)
    expect(codes).toEqual(['grant_expired'])
  })

  it('is told at once of a suspension', async () => {
    const watch = open()
    const grant = living()
    const { codes } = watched(watch, grant)
    await settle()
    states.set(grant.id, { ended: undefined, isSuspended: true })
    liveness.changed('acme', grant.task.id)
    await settle()
    expect(codes).toEqual(['task_suspended'])
  })

  it('is not told of others: another tenant, a sibling, a child', async () => {
    const watch = open()
    const root = living()
    const [sibling, child] = [living(root), living(root)]
    const { codes } = watched(watch, sibling)
    liveness.end('other', sibling.id, ending(root))
    liveness.end('acme', child.id, ending(root))
    await pass(2_000)
    expect(codes).toEqual([])
  })

  it('tells all who watch, each once, and nobody who has stopped', async () => {
    const watch = open()
    const grant = living()
    const [one, two, gone] = [watched(watch, grant), watched(watch, grant), watched(watch, grant)]
    gone.stop()
    await settle()
    liveness.end('acme', grant.id, ending(grant))
    liveness.end('acme', grant.task.id, ending(grant))
    await pass(1_000)
    expect([one.codes, two.codes, gone.codes]).toEqual([['grant_revoked'], ['grant_revoked'], []])
    one.stop()
  })

  it('runs nothing while nobody watches', () => {
    const watch = open()
    const stops = Array.from({ length: 1_000 }, () => watch.watch(living(), () => {}))
    expect(vi.getTimerCount()).toBe(1)
    for (const stop of stops) stop()
    expect(vi.getTimerCount()).toBe(0)
    expect(watch.size).toBe(0)
  })
})

describe('with a shared store', () => {
  it('is told within a second of what another replica ended or suspended, and of a grant that the store has lost', async () => {
    const watch = shared()
    const grants = [living(), living(), living()] as const
    const all = grants.map((grant) => watched(watch, grant))
    await pass(1_000)
    states.set(grants[0].id, { ended: 'revoked', isSuspended: false })
    states.set(grants[1].id, { ended: undefined, isSuspended: true })
    states.delete(grants[2].id)
    await pass(500)
    expect(all.map(({ codes }) => codes)).toEqual([['grant_revoked'], ['task_suspended'], ['grant_invalid']])
  })

  it('asks for all grants together, each once however often it is watched', async () => {
    const watch = shared()
    const grants = [living(), living(), living()]
    for (const grant of [...grants, ...grants]) watched(watch, grant)
    await pass(1_000)
    expect(asked.length).toBeLessThanOrEqual(3)
    for (const ids of asked) expect([...ids].sort()).toEqual(grants.map(({ id }) => id).sort())
  })

  it('is told after five seconds in which nobody could say, and not for less', async () => {
    const { codes } = watched(shared(), living())
    await pass(1_000)
    isAway = true
    await pass(4_000)
    isAway = false
    await pass(1_000)
    isAway = true
    await pass(4_000)
    expect(codes).toEqual([])
    await pass(1_800)
    expect(codes).toEqual(['store_unavailable'])
  })
})

it('in one process never asks the store again without a reason', async () => {
  watched(alone(), living())
  await settle()
  const before = asked.length
  await pass(10_000)
  expect(asked.length).toBe(before)
})
