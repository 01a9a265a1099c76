/**
 * FLOW 2: one instruction to the gateway itself: open a task, delegate, suspend, end. Like a request, it is decided and
 * recorded before it takes effect.
 */
import type { InstructionEvent, Receipt } from './audit/entries/event.ts'
import type { Approved } from './protocol/approval.ts'
import type { Decision } from './protocol/decision.ts'
import type { Enquiry, Instruction, IssuedGrant, Proposal } from './protocol/instruction.ts'
import type { TurnedAway } from './protocol/message.ts'
import { asGatewayError, GatewayError } from './protocol/problem.ts'

export interface InstructionRooms {
  readonly audit: {
    openInstruction(instruction: Instruction | Enquiry): InstructionEvent
    /** Default: nobody counts what never became an instruction. */
    turnedAway?(why: TurnedAway): void
  }
  readonly grants: {
    /** What the instruction would do, complete and checked; nothing has happened yet. */
    propose(instruction: Instruction): Proposal | Promise<Proposal>
    /** Do it. Asks for a receipt: nothing takes effect that is not in the log. */
    perform(proposal: Proposal, receipt: Receipt): Promise<IssuedGrant | null>
  }
  readonly policy: { evaluateInstruction(proposal: Proposal): Decision | Promise<Decision> }
  readonly approvals: {
    /**
     * What lets this very instruction through, taken up, where the decision takes an approval; undefined where it does not.
     * @throws {GatewayError} `approval_required` while there is none: nobody waits for humans here. `approval_denied`, …
     */
    instructed(instruction: Instruction, proposal: Proposal, decision: Decision): Promise<Approved | undefined>
  }
}

export async function serveInstruction(instruction: Instruction, house: InstructionRooms): Promise<IssuedGrant | null> {
  const event = house.audit.openInstruction(instruction) // first: a refusal is an event too
  try {
    const proposal = event.proposed(await house.grants.propose(instruction)) // 1 who asks, and for what exactly
    const decision = event.decided(await house.policy.evaluateInstruction(proposal)) // 2 may it
    requireAllow(decision) // 3 or a refusal
    requireApproval(decision, event.approved(await house.approvals.instructed(instruction, proposal, decision))) // 4 does somebody agree
    const receipt = await event.commit() // 5 durable, or stop
    return event.performed(await house.grants.perform(proposal, receipt)) // 6 takes effect
  } catch (cause) {
    throw await event.refused(asGatewayError(cause)) // 7 the control door writes it
  }
}

function requireAllow({ effect, errors, code, detail, instead }: Decision): void {
  if (effect === 'allow' && errors.length === 0) return
  throw new GatewayError(code ?? 'policy_denied', detail, instead && { advice: { instead } })
}

function requireApproval({ obligations }: Decision, approved: Approved | undefined): void {
  if (obligations.approval === undefined || approved !== undefined) return
  throw new GatewayError(
    'approval_required',
    'Policy wants this to be approved by somebody, and nobody can be asked by this way. Ask whoever keeps the policies of this gateway.',
  )
}
