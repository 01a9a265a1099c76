/** What is given beside a grant that was itself given beside another ends with each of them, and with whom each was given for. */
import { expect, it } from 'vitest'
import { marksOf } from '../../gateway/grant/life/task.ts'
import { InForce, type OrderTarget } from '../../gateway/grant/orders/order.ts'
import type { Grant } from '../../gateway/protocol/grant.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'
import { openWorld, search } from './delegate.fixture.ts'
import { human } from './grant.fixture.ts'

const ben = { iss: human.iss, sub: 'ben' }
const cy = { iss: human.iss, sub: 'cy' }

it('of two askings one after the other', async () => {
  const world = openWorld()
  const root = await world.open({ scope: 'github:*' })
  const child = await world.child(root, search)
  const asked = async (beside: Grant, by: typeof ben) => {
    const request = { scope: 'github:issues.read' }
    const of = {
      kind: 'task.open',
      id: uuidv7(),
      tenant: 'acme',
      human: by,
      agent: search.id,
      purpose: 'more',
    } as const
    return (await world.do({ ...of, request, beside }))?.grant as Grant
  }
  const last = await asked(await asked(child.grant, ben), cy)
  expect(marksOf(last)).toEqual(expect.arrayContaining([child.grant.id, root.grant.id]))
  const targets: OrderTarget[] = [{ human }, { human: ben }, { human: cy }, { agent: root.grant.agent.id }]
  for (const target of targets) {
    const inForce = new InForce()
    const version = Number.MAX_SAFE_INTEGER
    inForce.take({ id: uuidv7(), target, reason: 'lost', sinceS: 0, version, keptUntilS: version })
    expect(inForce.endOf(last, 0)?.code, JSON.stringify(target)).toBe('grant_revoked')
  }
})
