/** Entries about instructions and about the gateway itself. Rare, so built as objects and canonicalised by the package. */
import type { Decision } from '../protocol/decision.ts'
import type { Instruction, Proposal } from '../protocol/instruction.ts'
import { type GatewayError, problems } from '../protocol/problem.ts'
import { askedBy, humanOf } from './asked.ts'
import { type Draft, draftFrom, type JsonValue } from './canonical.ts'
import { traceCause } from './cause.ts'
import { authorityOf, type Fields, grantOf, hashOf, workloadOf } from './granted.ts'
import type { Letterhead } from './record.ts'

/** What is known of an instruction when something is written about it. */
export interface Instructed {
  readonly instruction: Instruction
  readonly proposal: Proposal | undefined
  readonly decision: Decision | undefined
}

/** What is about to take effect → kind of its entry. */
const KINDS: Readonly<Record<Proposal['kind'], string>> = {
  'task.open': 'grant.issued',
  'grant.replace': 'grant.replaced',
  'grant.delegate': 'grant.delegated',
  'grant.revoke': 'grant.revoked',
  'task.complete': 'grant.revoked',
  'task.step_complete': 'task.step_completed',
  'task.suspend': 'task.suspended',
}

/** What is about to take effect, whole. */
export function performedDraft(paper: Letterhead, instructed: Instructed & { readonly proposal: Proposal }): Draft {
  const { instruction, proposal, decision } = instructed
  return draftFrom({
    ...common(paper, instruction, KINDS[proposal.kind]),
    ...authorityOf(proposal.grant),
    decision: verdict(decision, undefined),
    grant: grantOf(proposal.grant),
    facts: { instruction: instruction.kind, ...factsOf(proposal) },
  })
}

function factsOf(proposal: Proposal): Fields {
  if (!('ttlS' in proposal))
    return { reason: proposal.reason, step: proposal.kind === 'task.step_complete' ? proposal.step : undefined }
  const facts = { ttl_s: proposal.ttlS, workload: proposal.workload && workloadOf(proposal.workload) }
  switch (proposal.kind) {
    case 'task.open':
      return { ...facts, heartbeat: proposal.heartbeat ?? false }
    case 'grant.replace':
      return { ...facts, reason: proposal.reason, replaces: proposal.old.id }
    case 'grant.delegate':
      return {
        ...facts,
        delegator: proposal.parent.agent.id,
        attestation: hashOf(proposal.attestation),
        on_behalf: proposal.attestation === undefined,
        narrowed: proposal.narrowed && [...proposal.narrowed],
      }
    default:
      return proposal satisfies never
  }
}

/** `grant.denied`: an instruction that was refused before anything happened. */
export function deniedDraft(paper: Letterhead, instructed: Instructed, refusal: GatewayError): Draft {
  const { instruction, proposal, decision } = instructed
  return draftFrom({
    ...common(paper, instruction, 'grant.denied'),
    ...(proposal ? authorityOf(proposal.grant) : { human: humanOf(instruction) }),
    decision: verdict(decision, refusal),
    grant: proposal && grantOf(proposal.grant),
    facts: { instruction: instruction.kind, ...askedBy(instruction) },
  })
}

/** `grant.failed`: recorded as about to happen, and then it did not take effect. */
export function failedDraft(paper: Letterhead, { instruction, proposal }: Instructed, refusal: GatewayError): Draft {
  return draftFrom({
    ...common(paper, instruction, 'grant.failed'),
    ...(proposal ? authorityOf(proposal.grant) : { human: humanOf(instruction) }),
    facts: {
      instruction: instruction.kind,
      grant: proposal?.grant.id,
      code: refusal.code,
      detail: refusal.detail,
      cause: traceCause(refusal),
    },
  })
}

/** Anything else that carries authority: `policy.loaded`, `lease.issued`, … */
export function noteDraft(paper: Letterhead, kind: string, tenant: string, facts: Fields): Draft {
  return draftFrom({ kind, tenant, facts, gw: paper.gw, log: paper.origin })
}

function common(paper: Letterhead, instruction: Instruction, kind: string): Fields {
  return { kind, req: instruction.id, tenant: instruction.tenant, gw: paper.gw, log: paper.origin }
}

function verdict(decision: Decision | undefined, refusal: GatewayError | undefined): JsonValue {
  const policy = decision && { policy_ids: decision.policyIds, policy_set: decision.policySet, errors: decision.errors }
  if (!refusal) return { effect: 'allow', ...policy }
  const { code, detail } = refusal
  return { effect: 'deny', code, detail, cause: traceCause(refusal), status: problems[code].status, ...policy }
}
