/** A task that goes on for longer: by its human alone, beside what goes on under the old grant, and with nothing spent given back. */
import { describe, expect, it } from 'vitest'
import { createBudgets, type Spending } from '../../gateway/grant/budget.ts'
import { detailsOf } from '../../gateway/protocol/details.ts'
import type { Authority, Grant } from '../../gateway/protocol/grant.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'
import type { Instruction, IssuedGrant, Mandate } from '../../gateway/protocol/instruction.ts'
import { manualClock } from '../rig/clock.ts'
import { openWorld, search, type World } from './delegate.fixture.ts'
import { freshStore, human, presenting } from './grant.fixture.ts'
import { spendingOf } from './tree.fixture.ts'

const code = (expected: string) => expect.objectContaining({ code: expected })
const instruct = (kind: Instruction['kind'], of: Grant, by: Mandate = { human }) =>
  ({ kind, id: uuidv7(), tenant: 'acme', task: of.task.id, by }) as Instruction
const renewed = async (world: World, { grant }: IssuedGrant, by?: Mandate) =>
  (await world.do(instruct('task.renew', grant, by))) as IssuedGrant
/** With the level where the first grant's budgets are counted, as `reach` names it. */
function spending(grant: Grant): Spending {
  const { decision, ...rest } = spendingOf(grant)
  const before = (grant.succession?.levels ?? []).filter((level) => level !== null)
  return { ...rest, decision: { ...decision, levels: [...before, ...decision.levels] } }
}
const uses = async (world: World, { handle = '' }: IssuedGrant) => world.grants.authenticate(presenting(handle))

describe('a renewed task', () => {
  it('has a grant that lives longer, beside the old one and its children until these expire', async () => {
    const world = openWorld()
    const root = await world.open({ scope: 'github:*', ttlS: 600 })
    const child = await world.child(root, search)
    world.clock.advance(500_000)
    const fresh = await renewed(world, root)
    expect(fresh.grant).toMatchObject({ task: root.grant.task, authority: root.grant.authority, human })
    expect(fresh.grant.expiresAt).toBeGreaterThan(root.grant.expiresAt)
    for (const held of [root, child, fresh]) expect(await uses(world, held)).toBeTruthy()
    expect(world.ended).toEqual([])
    world.clock.advance(101_000)
    for (const old of [root, child]) await expect(uses(world, old)).rejects.toEqual(code('grant_expired'))
    expect(await uses(world, fresh)).toMatchObject({ id: fresh.grant.id })
  })

  it('is over for all of them when it ends', async () => {
    const world = openWorld()
    const root = await world.open({ scope: 'github:*' })
    const fresh = await renewed(world, root)
    await world.do({ ...instruct('task.complete', root.grant), reason: 'completed' } as Instruction)
    for (const held of [root, fresh]) await expect(uses(world, held)).rejects.toEqual(code('grant_revoked'))
  })

  it('is suspended with all of them', async () => {
    const world = openWorld()
    const root = await world.open({ scope: 'github:*' })
    const fresh = await renewed(world, root)
    await world.do(instruct('task.suspend', root.grant))
    for (const held of [root, fresh]) await expect(uses(world, held)).rejects.toEqual(code('task_suspended'))
    await expect(renewed(world, fresh)).rejects.toEqual(code('instruction_invalid'))
  })

  it.each([1, 2, 3])('spends from one budget with the old one, after %i renewals', async (times) => {
    const clock = manualClock()
    const store = freshStore(clock)
    const world = openWorld({ store, clock })
    const budgets = createBudgets(store)
    const five: Authority = { operations: ['github:issues.read'], constraints: { max_calls: 5 } }
    const root = await world.open({ details: detailsOf([five]), ttlS: 900 })
    budgets.debit(spending(root.grant))
    let last = root
    for (let i = 0; i < times; i++) {
      clock.advance(100_000)
      last = await renewed(world, last)
    }
    budgets.debit(spending(root.grant))
    for (let i = 0; i < 3; i++) budgets.debit(spending(last.grant))
    expect(() => budgets.debit(spending(last.grant))).toThrow(/used up/)
    expect(() => budgets.debit(spending(root.grant))).toThrow(/used up/)
    clock.advance(850_000) // the first grant is gone, what was spent under it is not
    last = await renewed(world, last).catch(() => last)
    expect(() => budgets.debit(spending(last.grant))).toThrow(/used up/)
  })
})

describe('a renewal', () => {
  it('is for the human of the task: no holder lengthens what it has, and nobody else gives in this one’s name', async () => {
    const world = openWorld()
    const root = await world.open()
    await expect(renewed(world, root, { holder: root.grant })).rejects.toEqual(code('delegation_refused'))
    const other = { human: { ...human, sub: 'mallory' } }
    await expect(renewed(world, root, other)).rejects.toEqual(code('delegation_refused'))
  })

  it.each([
    { preset: 'per-session' },
    { preset: 'training-batch', step: 'one' },
    { cnf: { jkt: 'A'.repeat(43) } },
  ] as const)('is refused where %o bounds the life', async (request) => {
    const world = openWorld()
    const root = await world.open({ scope: 'github:issues.read', ...request })
    await expect(renewed(world, root)).rejects.toEqual(code('instruction_invalid'))
  })

  it('comes too late once the task has expired', async () => {
    const world = openWorld()
    const root = await world.open({ scope: 'github:*', ttlS: 60 })
    world.clock.advance(60_000)
    await expect(renewed(world, root)).rejects.toEqual(code('task_unknown'))
  })

  it('is made once when two ask at the same time', async () => {
    const world = openWorld()
    const root = await world.open()
    const both = [
      await world.propose(instruct('task.renew', root.grant)),
      await world.propose(instruct('task.renew', root.grant)),
    ]
    await world.grants.perform(both[0] as never, {})
    await expect(world.grants.perform(both[1] as never, {})).rejects.toEqual(code('instruction_invalid'))
  })
})

describe('a suspension', () => {
  it.each([
    ['renewed by its human', (root: IssuedGrant) => instruct('task.renew', root.grant)],
    ['given another intent by its human', (root: IssuedGrant) => intent(root.grant, { human })],
    ['given another intent by its holder', (root: IssuedGrant) => intent(root.grant, { holder: root.grant })],
  ])('holds for a task that was about to be %s', async (_, about) => {
    const world = openWorld()
    const root = await world.open({ scope: 'github:*' })
    const proposal = await world.propose(about(root))
    await world.do(instruct('task.suspend', root.grant))
    await expect(world.grants.perform(proposal as never, {})).rejects.toEqual(code('instruction_invalid'))
    await expect(uses(world, root)).rejects.toEqual(code('task_suspended'))
    expect((await world.grants.task('acme', root.grant.task.id)).task.state).toBe('suspended')
    await world.do(instruct('task.resume', root.grant))
  })
})

const intent = (of: Grant, by: Mandate) =>
  ({ ...instruct('task.intent', of, by), purpose: 'something else', request: {} }) as Instruction
