/** The chain of authority of a grant: human first, current agent last. Pure. */
import { hash } from 'node:crypto'
import canonicalize from 'canonicalize'
import type { Ancestor, Grant, Human, LineageStep } from '../../protocol/grant.ts'

/** Lineage of a root grant: the human authorised this agent, nobody stands between. */
export function rootLineage(human: Human, agentId: string, grantId: string): readonly LineageStep[] {
  return [
    { n: 0, type: 'human', id: human.sub },
    { n: 1, type: 'ai_agent', id: agentId, grant: grantId },
  ]
}

/**
 * Lineage of a grant that the holder of `parent` delegated.
 * @param onBehalf the gateway attested it, because that holder has no key.
 */
export function childLineage(
  parent: Pick<Grant, 'lineage'>,
  agentId: string,
  grantId: string,
  onBehalf: boolean,
): readonly LineageStep[] {
  const step = { n: parent.lineage.length, type: 'ai_agent', id: agentId, grant: grantId } as const
  return [...parent.lineage, onBehalf ? { ...step, on_behalf: true } : step]
}

/** Root first: what a child of `parent` has above it. */
export function ancestryBelow({ ancestry, id, authority, succession }: Grant): readonly Ancestor[] {
  return [...ancestry, { id, authority, ...(succession !== undefined && { succession }) }]
}

/** base64url SHA-256 over the JCS bytes (RFC 8785) of the steps. */
export function lineageHash(lineage: readonly LineageStep[]): string {
  const text = canonicalize(lineage)
  if (text === undefined) throw new TypeError('a lineage is always JSON')
  return hash('sha256', text, 'base64url')
}

/** For people: `ana authorised A for task “triage issue 42”; A delegated to B; B delegated to C`. */
export function lineageSentence(grant: Pick<Grant, 'human' | 'task' | 'lineage'>): string {
  const agents = grant.lineage.slice(1).map((step) => step.id)
  const hops = agents.slice(1).map((id, i) => `; ${agents[i]} delegated to ${id}`)
  return `${grant.human.sub} authorised ${agents[0]} for task “${grant.task.purpose}”${hops.join('')}`
}
