/** What ends a grant or a task while the store is away ends it at every replica once the store is back, over a restart too. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Grants } from '../../gateway/grant/grants.ts'
import { type OrderKeep, openOrderKeep } from '../../gateway/grant/store/sqlite-orders.ts'
import { type GrantStore, storeUnavailable } from '../../gateway/grant/store/store.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'
import type { RevocationTarget } from '../../gateway/protocol/revocation.ts'
import { manualClock } from '../rig/clock.ts'
import { freshStore, grantsWith, type Held, openTask, presenting } from './grant.fixture.ts'

const dir = mkdtempSync(join(tmpdir(), 'keyless-unstored-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))

const clock = manualClock()
let inner: GrantStore
let keep: OrderKeep
let orderKeep: OrderKeep
let file: string
/** Of the first replica alone, as when it has lost its way to Redis. */
let away: (method: string) => boolean
let here: Grants
let there: Grants

beforeEach(() => {
  inner = freshStore(clock)
  file = join(dir, uuidv7())
  keep = openOrderKeep(file)
  orderKeep = openOrderKeep(`${file}-orders`)
  away = () => false
  here = replica(keep)
  there = grantsWith({ store: shared(() => false), clock })
})
afterEach(() => {
  for (const grants of [here, there]) grants.close()
  keep.close()
  orderKeep.close()
})

/** As a store across a network. */
function shared(isAway: (method: string) => boolean): GrantStore {
  const later = Object.entries(inner).map(([name, value]) => [
    name,
    typeof value === 'function'
      ? async (...given: unknown[]) => {
          if (isAway(name)) throw storeUnavailable(undefined)
          return (value as (...given: unknown[]) => unknown)(...given)
        }
      : value,
  ])
  return { ...Object.fromEntries(later), trustMs: 1_000 } as GrantStore
}

const replica = (endsKeep: OrderKeep) =>
  grantsWith({ store: shared((method) => away(method)), clock, keep: orderKeep, endsKeep })

const revoke = (target: RevocationTarget, by = here) => by.revoke(target, { id: uuidv7(), reason: 'a leak' })

async function codeAt(at: Grants, { handle }: Held): Promise<string> {
  try {
    await at.authenticate(presenting(handle))
    return 'lives'
  } catch (cause) {
    return (cause as { code: string }).code
  }
}

const targets: Record<string, (task: Held) => RevocationTarget> = {
  'a task': ({ grant }) => ({ task: grant.task.id }),
  'a grant': ({ grant }) => ({ grant: grant.id }),
}
const troubles: Record<string, (method: string) => boolean> = {
  'is away': () => true,
  'takes no writes': (method) => method === 'end',
}
const cases = Object.entries(targets).flatMap(([what, of]) =>
  Object.entries(troubles).map(([how, trouble]) => ({ what, of, how, trouble })),
)

describe('the end of', () => {
  it.each(cases)('$what that a store which $how did not take is tried again until it has it', async (one) => {
    const task = await openTask(here)
    away = one.trouble
    await expect(revoke(one.of(task))).rejects.toMatchObject({ code: 'store_unavailable' })
    expect(here.unstored()).toBe(1)
    expect(await codeAt(there, task)).toBe('lives')
    away = () => false
    expect(await codeAt(here, task), 'before the others know').toBe('grant_revoked')
    await expect.poll(() => here.unstored(), { timeout: 3_000 }).toBe(0)
    clock.advance(1_000) // what is remembered is trusted no longer
    expect(await codeAt(there, task)).toBe('grant_revoked')
    await expect(there.task('acme', task.grant.task.id)).rejects.toMatchObject({ code: 'task_unknown' })
  })

  it.each(Object.entries(targets))('%s is tried again by the process after one that was stopped', async (_, of) => {
    const task = await openTask(here)
    away = () => true
    await expect(revoke(of(task))).rejects.toMatchObject({ code: 'store_unavailable' })
    here.close()
    keep.close()
    keep = openOrderKeep(file)
    here = replica(keep)
    expect(here.unstored()).toBe(1)
    away = () => false
    expect(await codeAt(here, task), 'before the others know').toBe('grant_revoked')
    await expect.poll(() => here.unstored(), { timeout: 3_000 }).toBe(0)
    clock.advance(1_000)
    expect(await codeAt(there, task)).toBe('grant_revoked')
    expect(keep.load('acme')).toEqual([])
  })

  it('what another replica has ended meanwhile is not tried for ever', async () => {
    const task = await openTask(here)
    away = () => true
    await expect(revoke({ task: task.grant.task.id })).rejects.toMatchObject({ code: 'store_unavailable' })
    await revoke({ task: task.grant.task.id }, there)
    away = () => false
    await expect.poll(() => here.unstored(), { timeout: 3_000 }).toBe(0)
  })

  it('what there is nothing of is not tried at all', async () => {
    await expect(revoke({ task: uuidv7() })).rejects.toMatchObject({ code: 'task_unknown' })
    expect(here.unstored()).toBe(0)
  })

  it('of an agent counts as not stored too, while the store does not take it', async () => {
    const task = await openTask(here)
    away = () => true
    await expect(revoke({ agent: task.grant.agent.id })).rejects.toMatchObject({ code: 'store_unavailable' })
    expect(here.unstored()).toBe(1)
    away = () => false
    await expect.poll(() => here.unstored(), { timeout: 3_000 }).toBe(0)
    // By name too, so that what was leased under it goes.
    const ended = async () => (await inner.task('acme', task.grant.task.id))?.ended
    await expect.poll(ended, { timeout: 8_000 }).toBe('revoked')
  }, 15_000)
})
