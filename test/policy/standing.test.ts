/** Calls that last are decided again: what would be refused now is cut, once, and whoever cannot be asked is taken for a no. */
import { describe, expect, it } from 'vitest'
import { createPolicy } from '../../gateway/policy/evaluation.ts'
import { loadBundle } from '../../gateway/policy/source/bundle.ts'
import { createLivePolicy } from '../../gateway/policy/source/live.ts'
import { Standings } from '../../gateway/policy/source/standing.ts'
import type { Ask } from '../../gateway/protocol/decision.ts'
import { ask, catalogueOf, grant, notesFile, permit } from './policy.fixture.ts'

const notes = await catalogueOf(notesFile())
const all = permit('all', 'principal, action, resource')
const bundle = (text: string) => loadBundle({ paths: [{ label: 'test/a.cedar', text }], catalogue: notes })
const agents = new Map([[grant().agent.id, grant().agent]])

async function open(text = all) {
  const clock = { nowMs: 1_700_000_000_000 }
  const make = (of: Awaited<ReturnType<typeof bundle>>) => createPolicy({ bundle: of, tenant: 'default' })
  const live = createLivePolicy(await bundle(text), { make, agents, nowMs: () => clock.nowMs })
  const begin = (asked: Ask = ask(notes)) => {
    const cuts: string[] = []
    const standing = { ask: asked, decision: live.alone.evaluate(asked) }
    return { cuts, standing, stop: live.watch(standing, ({ code }) => cuts.push(code)) }
  }
  return { live, clock, begin, swap: async (next: string) => live.swap(await bundle(next)) }
}

const turns = () => new Promise((done) => setTimeout(done, 5))

describe('what lasts', () => {
  it('is cut when policies forbid it, goes on when they do not, and is never cut twice or after its end', async () => {
    const { begin, swap } = await open()
    const [first, over] = [begin(), begin()]
    const other = begin(ask(notes, { method: 'PUT', rawPath: '/notes/1' }))
    over.stop()
    const forbidden = `${all}@id("no") @owner("t") forbid (principal, action == Action::"notes:notes.list", resource);`
    await swap(forbidden)
    await turns()
    await swap(`${forbidden} `)
    await turns()
    expect([first.cuts, over.cuts, other.cuts]).toEqual([['policy_denied'], [], []])
    other.stop()
  })

  it('is looked at when it begins to last, if policies have changed since it was decided', async () => {
    const { live, begin, swap } = await open()
    const { standing, stop } = begin()
    stop()
    await swap('@id("x") @owner("t") forbid (principal, action, resource);')
    const late: string[] = []
    live.watch(standing, ({ code }) => late.push(code))
    await turns()
    expect(late).toEqual(['policy_denied'])
  })

  it('is not sent at all when it was decided before a change that refuses it', async () => {
    const { live, begin, swap } = await open()
    const { standing, stop } = begin()
    stop()
    await expect(live.again(standing)).resolves.toBeUndefined()
    await swap(`${all}@id("more") @owner("t") permit (principal, action == Action::"mint", resource);`)
    await expect(live.again(standing)).resolves.toBeUndefined()
    await swap(`@approval("human") ${all}`)
    await expect(live.again(standing)).rejects.toMatchObject({ code: 'approval_required' })
    await swap('@id("x") @owner("t") forbid (principal, action, resource);')
    await expect(live.again(standing)).rejects.toMatchObject({ code: 'policy_denied' })
  })

  it('is decided by the time and the agent of now', async () => {
    const { live, clock, begin } = await open(
      `@id("hours") @owner("t") permit (principal, action, resource) when { context.now < datetime("2024-01-01") && principal.risk_tier != "high" };`,
    )
    const [timed, raised] = [begin(), begin()]
    live.recheck()
    await turns()
    expect(timed.cuts).toEqual([])
    agents.set(grant().agent.id, { ...grant().agent, riskTier: 'high' })
    live.recheck()
    await turns()
    expect(raised.cuts).toEqual(['policy_denied'])
    agents.set(grant().agent.id, grant().agent)
    const again = begin()
    clock.nowMs = Date.parse('2024-01-02')
    live.recheck()
    await turns()
    expect(again.cuts).toEqual(['policy_denied'])
  })

  it('is cut when nobody can say, and when its agent is registered no more', async () => {
    const answers = [
      () => Promise.reject(new Error('the engine is away')),
      () => {
        throw new Error('a trap')
      },
    ]
    for (const evaluate of answers) {
      const cuts: string[] = []
      const standings = new Standings({ policy: { digest: 'a', evaluate }, agents, nowMs: () => 0 })
      const { standing, stop } = (await open()).begin()
      stop()
      standings.watch({ ...standing, decision: { ...standing.decision, policySet: 'a' } }, ({ code }) =>
        cuts.push(code),
      )
      await standings.recheck()
      expect(cuts).toEqual(['internal'])
      expect(standings.size).toBe(0)
    }
    const { live, begin } = await open()
    const { cuts } = begin()
    agents.clear()
    live.recheck()
    await turns()
    expect(cuts).toEqual(['agent_unknown'])
    agents.set(grant().agent.id, grant().agent)
  })
})
