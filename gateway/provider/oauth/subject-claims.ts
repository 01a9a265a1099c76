/**
 * Whom an upstream is told that the gateway asks for: claims of assertions (`assertions.ts`), the same for every provider, so that
 * upstreams write one rule. Pure. The claims are documented in docs/assertions.md.
 */
import type { Grant } from '../../protocol/grant.ts'

/** Who acts, and for whom before it (RFC 8693 §4.1): the outermost is the agent that acts now. */
export interface Actor {
  readonly sub: string
  readonly act?: Actor
}

/** By which a rule and the log can be brought together. */
export interface LineageClaims {
  readonly task: string
  /** base64url SHA-256 over the lineage: equals `lineage_hash` of the log's entries. */
  readonly lineage_hash: string
  /** Id of the grant, by which the log is searched. It is no credential. */
  readonly grant: string
  readonly tenant: string
}

export interface SubjectClaims extends LineageClaims {
  /** The human, as whoever vouches for it names it. */
  readonly sub: string
  /** Who vouches for the human. `sub` means nothing without it. */
  readonly sub_iss: string
  readonly act: Actor
  /** Registered id of the agent, which is `act.sub`: for verifiers that match top-level claims alone. */
  readonly agent: string
}

/** For one token that says it all. */
export function subjectClaims(grant: Grant): SubjectClaims {
  const { human, agent } = grant
  return { sub: human.sub, sub_iss: human.iss, act: actorOf(grant), agent: agent.id, ...lineageClaims(grant) }
}

/** For a subject token beside an actor token: the human, and which agent alone may act for it (RFC 8693 §4.4). */
export function humanClaims(grant: Grant): object {
  const { human, agent } = grant
  return { sub: human.sub, sub_iss: human.iss, may_act: { sub: agent.id }, ...lineageClaims(grant) }
}

/** For an actor token: the agent, and those that delegated to it. */
export function agentClaims(grant: Grant): object {
  return { ...actorOf(grant), ...lineageClaims(grant) }
}

function actorOf({ agent, lineage }: Grant): Actor {
  const before = lineage.filter(({ type }) => type === 'ai_agent').slice(0, -1)
  // RFC 8693 §4.1: "the outermost act claim represents the current actor while nested act claims represent prior actors".
  const prior = before.reduce<Actor | undefined>((act, step) => ({ sub: step.id, ...(act && { act }) }), undefined)
  return { sub: agent.id, ...(prior && { act: prior }) }
}

function lineageClaims({ task, lineageHash, id, tenant }: Grant): LineageClaims {
  return { task: task.id, lineage_hash: lineageHash, grant: id, tenant }
}
