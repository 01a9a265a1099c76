/** Entries about instructions and about the gateway itself. Rare, so built as objects and canonicalised by the package. */
import type { Decision } from '../protocol/decision.ts'
import type { Grant } from '../protocol/grant.ts'
import type { GrantRequest, Instruction, Proposal } from '../protocol/instruction.ts'
import { type GatewayError, problems } from '../protocol/problem.ts'
import { type Draft, draftFrom, type JsonValue } from './canonical.ts'
import { traceCause } from './cause.ts'
import type { Letterhead } from './record.ts'

type Fields = Record<string, JsonValue | undefined>

/** `grant.issued` or `grant.revoked`: what is about to take effect, whole. */
export function performedDraft(
  paper: Letterhead,
  instruction: Instruction,
  proposal: Proposal,
  decision: Decision | undefined,
): Draft {
  const isOpen = proposal.kind === 'task.open'
  return draftFrom({
    ...common(paper, instruction, isOpen ? 'grant.issued' : 'grant.revoked'),
    ...authorityOf(proposal.grant),
    decision: verdict(decision, undefined),
    grant: grantOf(proposal.grant),
    facts: factsOf(proposal),
  })
}

function factsOf(proposal: Proposal): Fields {
  if ('ttlS' in proposal)
    return { ttl_s: proposal.ttlS, ...(proposal.kind === 'task.open' && { heartbeat: proposal.heartbeat ?? false }) }
  return { reason: proposal.reason }
}

/** `grant.denied`: an instruction that was refused before anything happened. */
export function deniedDraft(
  paper: Letterhead,
  instruction: Instruction,
  decision: Decision | undefined,
  refusal: GatewayError,
): Draft {
  return draftFrom({
    ...common(paper, instruction, 'grant.denied'),
    human: humanOf(instruction),
    decision: verdict(decision, refusal),
    facts: { instruction: instruction.kind, ...asked(instruction) },
  })
}

/** `grant.failed`: recorded as issued or revoked, and then it did not take effect. */
export function failedDraft(paper: Letterhead, instruction: Instruction, refusal: GatewayError): Draft {
  return draftFrom({
    ...common(paper, instruction, 'grant.failed'),
    human: humanOf(instruction),
    facts: { instruction: instruction.kind, code: refusal.code, detail: refusal.detail, cause: traceCause(refusal) },
  })
}

/** Anything else that carries authority: `policy.loaded`, `lease.issued`, … */
export function noteDraft(paper: Letterhead, kind: string, tenant: string, facts: Fields): Draft {
  return draftFrom({ kind, tenant, facts, gw: paper.gw, log: paper.origin })
}

function common(paper: Letterhead, instruction: Instruction, kind: string): Fields {
  return { kind, req: instruction.id, tenant: instruction.tenant, gw: paper.gw, log: paper.origin }
}

function authorityOf({ human, lineage, lineageHash, task }: Grant): Fields {
  return {
    human: { ...human } as JsonValue,
    lineage: lineage.map((step) => ({ ...step })),
    lineage_hash: lineageHash,
    task: { ...task },
  }
}

function grantOf({ id, agent, authority, issuedAt, expiresAt }: Grant): JsonValue {
  const { id: agentId, owner, purpose, riskTier } = agent
  return {
    id,
    agent: { id: agentId, owner, purpose, risk_tier: riskTier },
    authority: authority.map((one) => ({ ...one }) as unknown as JsonValue),
    issued: issuedAt,
    expires: expiresAt,
  }
}

/** Who gives the instruction, as far as the door knows; a token that was presented is not read here. */
function humanOf(instruction: Instruction): Fields | undefined {
  if ('human' in instruction) return { ...instruction.human }
  if (!('by' in instruction)) return undefined
  const { by } = instruction
  if ('human' in by) return { ...by.human }
  return 'holder' in by ? { ...by.holder.human } : undefined
}

function asked(instruction: Instruction): Fields {
  switch (instruction.kind) {
    case 'task.open':
      return { agent: instruction.agent, purpose: instruction.purpose, ...requested(instruction.request) }
    case 'task.complete':
      return { task: instruction.task, reason: instruction.reason }
    default:
      return {}
  }
}

function requested({ scope, ttlS }: GrantRequest): Fields {
  return { scope, ttl_s: ttlS }
}

function verdict(decision: Decision | undefined, refusal: GatewayError | undefined): JsonValue {
  const policy = decision && { policy_ids: decision.policyIds, policy_set: decision.policySet, errors: decision.errors }
  if (!refusal) return { effect: 'allow', ...policy }
  const { code, detail } = refusal
  return { effect: 'deny', code, detail, cause: traceCause(refusal), status: problems[code].status, ...policy }
}
