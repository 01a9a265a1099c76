/**
 * Turns an allow into a `Permit`. The class is not exported as a value, so a permit exists only after an allow that this
 * file has seen; `leases.acquire` asks for one, which makes any other order a type error. Pure.
 */

import type { Approved } from '../protocol/approval.ts'
import { type Decision, isAllowed } from '../protocol/decision.ts'
import type { Grant } from '../protocol/grant.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { Endpoint } from '../protocol/service.ts'

class IssuedPermit {
  /** A private field makes the type nominal: an object of the same shape is not a permit. */
  readonly #allowed = true
  readonly grant: Grant
  readonly endpoint: Endpoint
  readonly decision: Decision

  constructor(grant: Grant, endpoint: Endpoint, decision: Decision) {
    this.grant = grant
    this.endpoint = endpoint
    this.decision = decision
  }

  get isAllowed(): boolean {
    return this.#allowed
  }
}

export type Permit = IssuedPermit

/**
 * The permit for an allowed call.
 * @throws {GatewayError} with the decision's own code and detail when the decision is anything but a clean allow;
 *   `approval_required` when it takes an approval, and there is none.
 */
export function requirePermit(grant: Grant, endpoint: Endpoint, decision: Decision, approved?: Approved): Permit {
  if (!isAllowed(decision)) {
    throw new GatewayError(decision.code ?? 'policy_denied', decision.detail)
  }
  if (decision.obligations.approval !== undefined && approved === undefined) {
    throw new GatewayError(
      'approval_required',
      `${endpoint.operation.name} has to be approved by somebody. Make the call itself: it asks for that.`,
    )
  }
  return new IssuedPermit(grant, endpoint, decision)
}
