/**
 * One event per call or instruction, opened before the first possible refusal, filled as knowledge grows, committed once
 * before a credential is attached, closed exactly once. A `Receipt` exists only after the decision is durable.
 */
import type { Decision } from '../protocol/decision.ts'
import type { Grant } from '../protocol/grant.ts'
import type { Proposal } from '../protocol/instruction.ts'
import type { Outcome } from '../protocol/message.ts'
import type { GatewayError } from '../protocol/problem.ts'
import type { Endpoint } from '../protocol/service.ts'

/** What the record says of the credential that was used. Never its value. */
export interface LeaseFacts {
  readonly provider: string
  readonly credential: string
  /** HMAC of the credential under the gateway's own key: equal values can be found, none can be guessed. */
  readonly credentialId: string
  readonly ephemeral: boolean
  /** Epoch seconds. */
  readonly expiresAt: number
  readonly cache: 'hit' | 'miss'
}

declare const durable: unique symbol

/** Proof that the decision is in the log. Made only in this room. */
export interface Receipt {
  readonly [durable]: true
  readonly event: string
  /** Index of the decision entry in the log. */
  readonly seq: number
}

/** Methods that learn something return what they were given, so that the flow reads as one line a step. */
export interface CallEvent {
  readonly id: string
  readonly endpoint: Endpoint | undefined
  located(endpoint: Endpoint): Endpoint
  authenticated(grant: Grant): Grant
  decided(decision: Decision): Decision
  /** @throws {GatewayError} `audit_unavailable` when the entry cannot be made durable. */
  commit(): Promise<Receipt>
  leased<L extends { readonly facts: LeaseFacts }>(lease: L): L
  /** The outcome entry. Idempotent: only the first of `closed` and `refused` writes. */
  closed(outcome: Outcome): void
  /**
   * The refusal entry: a denied decision before `commit`, an outcome after it.
   * @returns the refusal to send: the one given, or `audit_unavailable` when it could not be recorded.
   */
  refused(refusal: GatewayError): Promise<GatewayError>
}

export interface InstructionEvent {
  readonly id: string
  proposed(proposal: Proposal): Proposal
  decided(decision: Decision): Decision
  commit(): Promise<Receipt>
  refused(refusal: GatewayError): Promise<GatewayError>
}
