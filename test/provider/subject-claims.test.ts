import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Actor, subjectClaims } from '../../gateway/provider/oauth/subject-claims.ts'
import { grant } from '../lease/lease.fixture.ts'

const agentIds = fc.uniqueArray(fc.webUrl(), { minLength: 1, maxLength: 9 })

/** Agent ids from the outermost actor inwards. */
function actorsOf(act: Actor | undefined): string[] {
  return act === undefined ? [] : [act.sub, ...actorsOf(act.act)]
}

describe('whom an upstream is told', () => {
  test('the human is the subject, the agent that calls the outermost actor, those before it nested (RFC 8693 §4.1)', () => {
    fc.assert(
      fc.property(agentIds, (ids) => {
        const id = ids.at(-1) as string
        const agent = { id, owner: 'ana', purpose: 'test', riskTier: 'low' } as const
        const agents = ids.map((sub, i) => ({ n: i + 1, type: 'ai_agent' as const, id: sub, grant: `g${i}` }))
        const lineage = [{ n: 0, type: 'human' as const, id: 'ana' }, ...agents]
        const claims = subjectClaims(grant({ agent, lineage }))
        expect(claims).toMatchObject({ sub: 'ana', sub_iss: 'https://id.test', agent: id })
        expect(actorsOf(claims.act)).toEqual([...ids].reverse())
      }),
    )
  })

  test('task, lineage and grant are named as the log names them, and nothing else is said', () => {
    const to = grant({ id: 'g-1', lineageHash: 'hash-of-lineage' })
    expect(subjectClaims(to)).toEqual({
      sub: 'ana',
      sub_iss: 'https://id.test',
      act: { sub: 'spiffe://test/agent' },
      agent: 'spiffe://test/agent',
      task: 'task-1',
      lineage_hash: 'hash-of-lineage',
      grant: 'g-1',
      tenant: 'default',
    })
  })
})
