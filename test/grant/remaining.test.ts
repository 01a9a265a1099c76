/** A grant in the place of another has what that one left: no intent, no suspension gives back what was spent. */
import { describe, expect, it } from 'vitest'
import { createBudgets } from '../../gateway/grant/budget.ts'
import { detailsOf } from '../../gateway/protocol/details.ts'
import type { Authority, Grant } from '../../gateway/protocol/grant.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'
import type { GrantRequest, Instruction, IssuedGrant, Mandate } from '../../gateway/protocol/instruction.ts'
import { manualClock } from '../rig/clock.ts'
import { openWorld } from './delegate.fixture.ts'
import { freshStore, human } from './grant.fixture.ts'
import { spendingOf } from './tree.fixture.ts'

const reads: Authority = { operations: ['github:issues.read'] }
const counted: Authority = { ...reads, constraints: { max_calls: 5, max_bytes: 1000, rate: { n: 100, per: 60 } } }

const instruct = (of: Grant, kind: 'task.intent' | 'task.suspend' | 'task.resume', by: Mandate, more: object = {}) =>
  ({ kind, id: uuidv7(), tenant: 'acme', task: of.task.id, by, ...more }) as Instruction
const ownIntent = (of: Grant, request: GrantRequest = {}) =>
  instruct(of, 'task.intent', { holder: of }, { purpose: 'go on', request })

async function task(authority: readonly Authority[]) {
  const clock = manualClock()
  const store = freshStore(clock)
  const world = openWorld({ store, clock })
  const budgets = createBudgets(store)
  const { grant } = await world.open({ details: detailsOf(authority) })
  const call = (of: Grant, times = 1) => {
    for (let i = 0; i < times; i++) budgets.debit(spendingOf(of))
  }
  const fresh = async (instruction: Instruction) => ((await world.do(instruction)) as IssuedGrant).grant
  return { clock, world, budgets, grant, call, fresh }
}

describe('a holder that changes its intent', () => {
  it('goes on with the calls and bytes that are left, however often it does', async () => {
    const { grant, call, fresh, budgets } = await task([counted])
    call(grant, 2)
    budgets.settle(spendingOf(grant), { sentBytes: 300, receivedBytes: 100 })
    const second = await fresh(ownIntent(grant))
    expect(second.authority).toEqual([
      { ...counted, constraints: { ...counted.constraints, max_calls: 3, max_bytes: 600 } },
    ])
    call(second, 2)
    const third = await fresh(ownIntent(second))
    call(third)
    expect(() => call(third)).toThrow(/used up/)
  })

  it('cannot leave a budget and come back to it', async () => {
    const issues: Authority = { operations: ['github:issues.*'], constraints: { max_calls: 5 } }
    const { world, grant, call, fresh } = await task([issues])
    call(grant, 4)
    const narrow: Authority = { ...reads, constraints: { max_calls: 5 } }
    const second = await fresh(ownIntent(grant, { details: detailsOf([narrow]) }))
    expect(second.authority).toEqual([{ ...narrow, constraints: { max_calls: 1 } }])
    await expect(world.do(ownIntent(second, { details: detailsOf([issues]) }))).rejects.toMatchObject({
      code: 'invalid_scope',
    })
    await expect(world.do(ownIntent(second, { details: detailsOf([narrow]) }))).rejects.toMatchObject({
      code: 'invalid_scope',
    })
  })

  it('loses the entries that are used up, and everything with the last of them', async () => {
    const once: Authority = { ...reads, constraints: { single_use: true } }
    const { world, grant, call, fresh } = await task([once, { operations: ['github:pulls.read'] }])
    call(grant)
    const second = await fresh(ownIntent(grant))
    expect(second.authority).toEqual([{ operations: ['github:pulls.read'] }])
    const alone = await task([once])
    alone.call(alone.grant)
    await expect(alone.world.do(ownIntent(alone.grant))).rejects.toMatchObject({ code: 'limit_exceeded' })
    expect(world.ended.map(({ id }) => id)).toEqual([grant.id])
  })

  it('keeps its authority as it is where nothing has a budget', async () => {
    const { grant, fresh } = await task([reads])
    expect((await fresh(ownIntent(grant))).authority).toEqual([reads])
  })
})

it('a human who authorises anew gives anew', async () => {
  const { grant, call, fresh } = await task([counted])
  call(grant, 5)
  const second = await fresh(instruct(grant, 'task.intent', { human }, { purpose: 'again', request: {} }))
  expect(second.authority).toEqual([counted])
  call(second, 5)
})

it('a task that was suspended for days resumes with what was left', async () => {
  const { world, clock, grant, call, fresh } = await task([counted])
  call(grant, 3)
  await world.do(instruct(grant, 'task.suspend', { human }))
  clock.advance(3 * 24 * 3600 * 1000)
  await world.open() // whatever is forgotten is forgotten now
  const second = await fresh(instruct(grant, 'task.resume', { human }))
  expect(second.authority).toEqual([{ ...counted, constraints: { ...counted.constraints, max_calls: 2 } }])
})
