/** Instructions that are refused at the door, before they are complete enough for the flow: in the log like those refused later. */
import type { FastifyRequest } from 'fastify'
import type { InstructionRooms } from '../instruction.ts'
import type { Enquiry, Instruction } from '../protocol/instruction.ts'
import { asGatewayError, GatewayError } from '../protocol/problem.ts'

/**
 * What `work` makes of a request. Asking for a nonce is no refusal, and not recorded.
 * @param bare the instruction as far as it is certain: nobody is known to have given it.
 * @throws {GatewayError} the refusal to send: that of `work`, or `audit_unavailable` when it could not be recorded.
 */
export async function orRecord<T>(
  bare: Instruction | Enquiry,
  rooms: Pick<InstructionRooms, 'audit'>,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work()
  } catch (cause) {
    const refusal = asGatewayError(cause)
    if (refusal.code === 'dpop_nonce_required') throw refusal
    throw await rooms.audit.openInstruction(bare).refused(refusal)
  }
}

/**
 * A body that is not what its route takes: nobody is known yet, and it stands in the log like a request for a grant from nobody.
 * @returns the refusal to send.
 */
export async function recordUnread(
  request: FastifyRequest,
  refusal: GatewayError,
  door: Recording,
): Promise<GatewayError> {
  const route = request.routeOptions.url
  if (request.method !== 'POST' || route === undefined) return refusal
  const unread = { kind: 'unread', id: request.id, tenant: door.tenant, route: `POST ${route}` } as const
  return door.rooms.audit.openInstruction(unread).refused(refusal)
}

/** The same of what the framework threw. What is coded has passed here, or comes from the flow, and is recorded already. */
export async function recordThrown(
  request: FastifyRequest,
  thrown: { readonly error: Error; readonly refusal: GatewayError },
  door: Recording,
): Promise<GatewayError> {
  const { error, refusal } = thrown
  const isUnread = refusal.code === 'instruction_invalid' && !(error instanceof GatewayError)
  return isUnread ? recordUnread(request, refusal, door) : refusal
}

interface Recording {
  readonly tenant: string
  readonly rooms: Pick<InstructionRooms, 'audit'>
}
