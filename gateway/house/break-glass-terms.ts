/** What policies decide of emergency access: whether it is opened at all, and what the custodians' signatures count for. Pure. */
import type { InstructionRooms } from '../instruction.ts'
import type { Approved } from '../protocol/approval.ts'
import type { Decision } from '../protocol/decision.ts'
import type { Grant } from '../protocol/grant.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { Decided } from '../request-rooms.ts'

/** @throws {GatewayError} `policy_denied`, `approval_required` */
export async function requireOpening(grant: Grant, policy: InstructionRooms['policy']): Promise<Decision> {
  const { agent, authority, issuedAt, expiresAt } = grant
  const decision = await policy.evaluateInstruction({
    ...{ kind: 'task.open', grant, authority, agent, heartbeat: false },
    ttlS: expiresAt - issuedAt,
  })
  if (decision.effect !== 'allow' || decision.errors.length > 0)
    throw new GatewayError(decision.code ?? 'policy_denied', decision.detail)
  requireEnough(grant, decision)
  return decision
}

/**
 * The consent of the custodians, who saw who asks for what and why, in place of approvers who cannot be reached. They are people as
 * approvers are, so it counts for as many as signed.
 * @returns undefined for what takes no approval.
 * @throws {GatewayError} `approval_required` where more people have to consent than signed.
 */
export function approvedByCustodians({ grant, decision }: Pick<Decided, 'grant' | 'decision'>): Approved | undefined {
  const { breakGlass } = grant
  if (breakGlass === undefined || decision.obligations.approval === undefined) return undefined
  requireEnough(grant, decision)
  return {
    id: breakGlass.request,
    by: breakGlass.custodians.map((sub) => ({ iss: 'break-glass', sub })),
    fingerprint: breakGlass.digest,
  }
}

function requireEnough({ breakGlass }: Grant, { obligations }: Decision): void {
  const [needed, signed] = [obligations.approval?.count ?? 0, breakGlass?.custodians.length ?? 0]
  if (needed <= signed) return
  throw new GatewayError(
    'approval_required',
    `Policy asks for ${needed} people here, and ${signed} custodians signed the request of this emergency access. Have more of them sign another request.`,
  )
}
