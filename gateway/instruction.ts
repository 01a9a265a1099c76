/**
 * FLOW 2: one instruction to the gateway itself: open a task, delegate, suspend, end. Like a request, it is decided and
 * recorded before it takes effect.
 */
import type { InstructionEvent, Receipt } from './audit/event.ts'
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
  readonly policy: { evaluateInstruction(proposal: Proposal): Decision }
}

export async function serveInstruction(instruction: Instruction, house: InstructionRooms): Promise<IssuedGrant | null> {
  const event = house.audit.openInstruction(instruction) // first: a refusal is an event too
  try {
    const proposal = event.proposed(await house.grants.propose(instruction)) // 1 who asks, and for what exactly
    const decision = event.decided(house.policy.evaluateInstruction(proposal)) // 2 may it
    requireAllow(decision) // 3 or a refusal
    const receipt = await event.commit() // 4 durable, or stop
    return event.performed(await house.grants.perform(proposal, receipt)) // 5 takes effect
  } catch (cause) {
    throw await event.refused(asGatewayError(cause)) // 6 the control door writes it
  }
}

function requireAllow(decision: Decision): void {
  if (decision.effect === 'allow' && decision.errors.length === 0) return
  throw new GatewayError(decision.code ?? 'policy_denied', decision.detail)
}
