/** What a root grant that takes the place of another brings back: nothing that was given up, spent or ended. */
import { describe, expect, it } from 'vitest'
import { uuidv7 } from '../../gateway/protocol/id.ts'
import type { GrantRequest, Instruction, IssuedGrant, Mandate } from '../../gateway/protocol/instruction.ts'
import { openWorld, type World } from './delegate.fixture.ts'
import { human, presenting } from './grant.fixture.ts'

const code = (expected: string) => expect.objectContaining({ code: expected })
const given = ({ grant }: IssuedGrant, by: Mandate = { human }) => ({
  id: uuidv7(),
  tenant: 'acme',
  task: grant.task.id,
  by,
})
const intent = (issued: IssuedGrant, request: GrantRequest, by?: Mandate): Instruction => ({
  kind: 'task.intent',
  ...given(issued, by),
  purpose: 'something else',
  request,
})
const held = (issued: IssuedGrant): Mandate => ({ holder: issued.grant })
const done = async (world: World, instruction: Instruction) => (await world.do(instruction)) as IssuedGrant

describe('a holder that declares another intent', () => {
  it('gets back what it gave up only where no budget was set on it', async () => {
    for (const [constraints, isBack] of [
      [undefined, true],
      [{ max_calls: 5 }, false],
    ] as const) {
      const world = openWorld()
      const details = (operation: string) => [
        { type: 'keyless_access', operations: [operation], ...(constraints && { constraints }) },
      ]
      const root = await world.open({ details: details('github:issues.*') })
      const less = await done(world, intent(root, { details: details('github:issues.read') }, held(root)))
      const back = done(world, intent(less, { details: details('github:issues.*') }, held(less)))
      if (isBack) expect((await back).grant.authority).toEqual([{ operations: ['github:issues.*'] }])
      else await expect(back).rejects.toEqual(code('invalid_scope'))
    }
  })

  it('does not make a grant delegable that was not, however much may be cut', async () => {
    const world = openWorld()
    const root = await world.open({ scope: 'github:*', delegable: false })
    await expect(world.do(intent(root, { delegable: true }, held(root)))).rejects.toEqual(code('invalid_scope'))
    const cut = await done(world, intent(root, { delegable: true, allowNarrowing: true }, held(root)))
    expect(cut.grant.delegable).toBe(false)
  })
})

describe('two replacements of one grant', () => {
  it('that were both proposed before either was made leave one living root', async () => {
    const world = openWorld()
    const root = await world.open()
    const [one, two] = [await world.propose(intent(root, {})), await world.propose(intent(root, {}))]
    const first = await world.grants.perform(one, {})
    await expect(world.grants.perform(two, {})).rejects.toEqual(code('instruction_invalid'))
    expect(await world.grants.authenticate(presenting(first?.handle ?? ''))).toMatchObject({ id: first?.grant.id })
    expect(await world.store.grantsOf('acme', root.grant.task.id)).toHaveLength(1)
  })
})

describe('a suspended task that was completed', () => {
  it('is over for as long as it could have been resumed', async () => {
    const world = openWorld()
    const root = await world.open({ scope: 'github:*', ttlS: 60 })
    await world.do({ kind: 'task.suspend', ...given(root) })
    await world.do({ kind: 'task.complete', ...given(root), reason: 'completed' })
    world.clock.advance(3 * 24 * 3_600_000)
    await world.open() // what nobody needs to know of any more is forgotten now
    await expect(world.do({ kind: 'task.resume', ...given(root), by: { human } })).rejects.toEqual(code('task_unknown'))
  })
})
