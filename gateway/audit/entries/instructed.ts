/** Entries about instructions and about the gateway itself. Rare, so built as objects and canonicalised by the package. */
import type { Approved } from '../../protocol/approval.ts'
import type { Decision } from '../../protocol/decision.ts'
import type { Grant, Human } from '../../protocol/grant.ts'
import type { Enquiry, Instruction, Proposal } from '../../protocol/instruction.ts'
import { type GatewayError, problems } from '../../protocol/problem.ts'
import type { Draft } from '../canonical.ts'
import { askedBy, humanOf } from './asked.ts'
import { authorityOf, type Fields, hashOf, humanFields } from './authority.ts'
import { traceCause } from './cause.ts'
import { grantOf, workloadOf } from './granted.ts'
import { draftOn, type Letterhead } from './letterhead.ts'
import { obliged } from './obliged.ts'

/** What is known of an instruction when something is written about it. */
export interface Instructed {
  readonly instruction: Instruction | Enquiry
  readonly proposal: Proposal | undefined
  readonly decision: Decision | undefined
  /** Absent: it took none. */
  readonly approved?: Approved | undefined
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
  const { instruction, proposal, decision, approved } = instructed
  const { grant } = proposal
  const members = {
    ...common(instruction, KINDS[proposal.kind]),
    ...authorityOf(grant),
    decision: { ...verdict(decision, undefined), approval: approved?.id },
    grant: grantOf(grant),
    facts: { instruction: instruction.kind, ...factsOf(proposal) },
  }
  return draftOn(paper, members, grant.human)
}

function factsOf(proposal: Proposal): Fields {
  if (!('ttlS' in proposal))
    return { reason: proposal.reason, step: proposal.kind === 'task.step_complete' ? proposal.step : undefined }
  const facts = { ttl_s: proposal.ttlS, workload: proposal.workload && workloadOf(proposal.workload) }
  switch (proposal.kind) {
    case 'task.open':
      return { ...facts, heartbeat: proposal.heartbeat ?? false, beside: proposal.beside?.id }
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
  const members = {
    ...common(instruction, 'grant.denied'),
    ...behind(instruction, proposal),
    decision: verdict(decision, refusal),
    grant: proposal && grantOf(proposal.grant),
    facts: { instruction: instruction.kind, ...askedBy(instruction), ...parentOf(instruction, refusal) },
  }
  return draftOn(paper, members, whose(instruction, proposal))
}

/** A parent that came as a token is known by the refusal alone. */
function parentOf({ kind }: Instruction | Enquiry, { grant }: GatewayError): Fields {
  const isDelegation = kind === 'grant.request' || kind === 'grant.delegate'
  return isDelegation && grant !== undefined ? { parent: grant } : {}
}

/** `grant.failed`: recorded as about to happen, and then it did not take effect. */
export function failedDraft(paper: Letterhead, { instruction, proposal }: Instructed, refusal: GatewayError): Draft {
  const { code, detail } = refusal
  const members = {
    ...common(instruction, 'grant.failed'),
    ...behind(instruction, proposal),
    facts: {
      instruction: instruction.kind,
      grant: proposal?.grant.id,
      code,
      detail,
      cause: traceCause(refusal),
    },
  }
  return draftOn(paper, members, whose(instruction, proposal))
}

/** What the gateway does of itself: `policy.loaded`, `settings.loaded`, … */
export function noteDraft(paper: Letterhead, kind: string, tenant: string, facts: Fields): Draft {
  return draftOn(paper, { kind, tenant, facts }, undefined)
}

/** What somebody did to the gateway itself: `admin.*`. @param by undefined: the gateway by itself. */
export function adminDraft(
  paper: Letterhead,
  kind: string,
  by: { tenant: string; human?: Human },
  facts: Fields,
): Draft {
  const { tenant, human } = by
  return draftOn(paper, { kind, tenant, human: human && humanFields(human), facts }, human)
}

/** What happens under a grant and is no call: `lease.issued`, `lease.revoked`, … */
export function underDraft(paper: Letterhead, kind: string, grant: Grant, facts: Fields): Draft {
  const members = { kind, tenant: grant.tenant, ...authorityOf(grant), facts: { ...facts, grant: grant.id } }
  return draftOn(paper, members, grant.human)
}

function common({ id, tenant }: Instruction | Enquiry, kind: string): Fields {
  return { kind, req: id, tenant }
}

/** The whole chain of authority once that is known; until then, who gives the instruction. */
function behind(instruction: Instruction | Enquiry, proposal: Proposal | undefined): Fields {
  if (proposal !== undefined) return authorityOf(proposal.grant)
  const human = humanOf(instruction)
  return { human: human && humanFields(human) }
}

function whose(instruction: Instruction | Enquiry, proposal: Proposal | undefined): Human | undefined {
  return proposal === undefined ? humanOf(instruction) : proposal.grant.human
}

function verdict(decision: Decision | undefined, refusal: GatewayError | undefined): Fields {
  const policy = decision && {
    policy_ids: decision.policyIds,
    policy_set: decision.policySet,
    errors: decision.errors,
    ...(decision.obligations.notify && { obligations: obliged(decision.obligations) }),
  }
  if (!refusal) return { effect: 'allow', ...policy }
  const { code, detail } = refusal
  return { effect: 'deny', code, detail, cause: traceCause(refusal), status: problems[code].status, ...policy }
}
