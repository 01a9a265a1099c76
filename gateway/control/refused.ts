/** Instructions that are refused at the door, before they are complete enough for the flow: in the log like those refused later. */
import type { InstructionRooms } from '../instruction.ts'
import type { Instruction } from '../protocol/instruction.ts'
import { asGatewayError } from '../protocol/problem.ts'

/**
 * What `work` makes of a request. Asking for a nonce is no refusal, and not recorded.
 * @param bare the instruction as far as it is certain: nobody is known to have given it.
 * @throws {GatewayError} the refusal to send: that of `work`, or `audit_unavailable` when it could not be recorded.
 */
export async function orRecord(
  bare: Instruction,
  rooms: InstructionRooms,
  work: () => Promise<Instruction>,
): Promise<Instruction> {
  try {
    return await work()
  } catch (cause) {
    const refusal = asGatewayError(cause)
    if (refusal.code === 'dpop_nonce_required') throw refusal
    throw await rooms.audit.openInstruction(bare).refused(refusal)
  }
}
