/** The chain of authority of a grant: human first, current agent last. Pure. */
import { hash } from 'node:crypto'
import canonicalize from 'canonicalize'
import type { Grant, Human, LineageStep } from '../protocol/grant.ts'

/** Lineage of a root grant: the human authorised this agent, nobody stands between. */
export function rootLineage(human: Human, agentId: string, grantId: string): readonly LineageStep[] {
  return [
    { n: 0, type: 'human', id: human.sub },
    { n: 1, type: 'ai_agent', id: agentId, grant: grantId },
  ]
}

/** base64url SHA-256 over the JCS bytes (RFC 8785) of the steps. */
export function lineageHash(lineage: readonly LineageStep[]): string {
  const text = canonicalize(lineage)
  if (text === undefined) throw new TypeError('a lineage is always JSON')
  return hash('sha256', text, 'base64url')
}

/** For people: `ana authorised spiffe://acme.test/agents/triage for task “triage issue 42”`. */
export function lineageSentence(grant: Grant): string {
  return `${grant.human.sub} authorised ${grant.agent.id} for task “${grant.task.purpose}”`
}
