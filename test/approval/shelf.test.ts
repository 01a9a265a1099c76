/** What whoever writes to the store puts in the place of something else is not there. */
import { describe, expect, it } from 'vitest'
import type { ApprovalRecord } from '../../gateway/approval/record.ts'
import { createApprovalSeal } from '../../gateway/approval/seal.ts'
import { Shelf } from '../../gateway/approval/shelf.ts'
import { type ApprovalStore, storable } from '../../gateway/approval/store.ts'
import { asGatewayError } from '../../gateway/protocol/problem.ts'
import { KEY, record } from './approval.fixture.ts'

const seal = createApprovalSeal(KEY)
const harmless = record(1_000)
const harmful = record(2_000)
const foreign = record(3_000, { tenant: 'other' })

/** Whatever is asked for, this is what a writer has put there. */
function shelfWith(put: ApprovalRecord): Shelf {
  const stored = storable(put, seal.close(put))
  const store: ApprovalStore = {
    lookMs: undefined,
    add: () => ({ first: stored }),
    count: () => 0,
    inSlot: () => stored,
    byId: () => stored,
    change: () => true,
    pending: () => [stored],
    lapsed: () => [stored],
    onChange: () => () => {},
    close: () => {},
  }
  return new Shelf(store, seal)
}

describe('whoever writes to the store of approvals', () => {
  it('cannot have somebody who looks at one say yes to another', async () => {
    expect(await shelfWith(harmful).byId('acme', harmless.id)).toBeUndefined()
    expect(await shelfWith(harmful).byId('acme', harmful.id)).toEqual(harmful)
  })

  it('cannot show approvals of one tenant to approvers of another', async () => {
    const shelf = shelfWith(foreign)
    expect(await shelf.byId('acme', foreign.id)).toBeUndefined()
    expect(await shelf.pending('acme')).toEqual([])
    expect(await shelf.lapsed('acme')).toEqual([])
    expect(await shelf.pending('other')).toEqual([foreign])
  })

  it('cannot give a request the approval of another one, neither that it finds nor that came first', async () => {
    const refused = (work: Promise<unknown>) =>
      work.then(
        () => 'found',
        (cause) => asGatewayError(cause).code,
      )
    const shelf = shelfWith(harmful)
    expect(await refused(shelf.inSlot('acme', harmless.fingerprint, 2_000))).toBe('approval_required')
    expect(await refused(shelf.add(harmless, 5))).toBe('approval_required')
    expect(await shelf.inSlot('acme', harmful.fingerprint, 2_000)).toEqual(harmful)
    expect(await shelf.add(harmful, 5)).toEqual(harmful)
  })
})
