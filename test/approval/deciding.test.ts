/** What humans, and the end of a time, make of approvals, while the log is away. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { Deciding } from '../../gateway/approval/deciding.ts'
import { refusals } from '../../gateway/approval/refusals.ts'
import { createApprovalSeal } from '../../gateway/approval/seal.ts'
import { Shelf } from '../../gateway/approval/shelf.ts'
import { openSqliteApprovals } from '../../gateway/approval/store-sqlite.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { manualClock } from '../rig/clock.ts'
import { KEY, record } from './approval.fixture.ts'

it('records each approval that nobody decided in time once, also those that the log could not take at first', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'keyless-deciding-'))
  const clock = manualClock()
  const store = openSqliteApprovals({ path: join(dir, 'approvals.sqlite'), clock })
  const shelf = new Shelf(store, createApprovalSeal(KEY))
  const log: unknown[] = []
  let room = 1 // entries that the disk takes
  const deciding = new Deciding({
    ...{ shelf, clock, lifeMs: 300_000, people: { approvers: [], groups: new Map() } },
    say: refusals({ statusUrl: (id) => id }),
    isWanted: async () => true,
    recordDecided: async () => undefined,
    async recordExpired(_, { approval }) {
      if (log.length >= room) throw new GatewayError('audit_unavailable', 'The disk is full.')
      log.push(approval)
    },
  })
  const all = [0, 1, 2].map((n) => record(clock.nowMs() + n))
  for (const one of all) await shelf.add(one, 5)
  clock.advance(301_000)
  await expect(deciding.lapse('acme')).rejects.toThrow('The disk is full.')
  await expect(deciding.lapse('acme')).rejects.toThrow('The disk is full.')
  room = 9
  await Promise.all([deciding.lapse('acme'), deciding.lapse('acme')])
  expect(log.toSorted()).toEqual(all.map(({ id }) => id).toSorted())
  await store.close()
  await rm(dir, { recursive: true })
})
