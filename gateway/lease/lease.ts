/** A credential in time: who may use it, until when, and what the record says of it. */
import type { LeaseFacts } from '../audit/event.ts'
import type { Outbound } from '../protocol/message.ts'

export interface Lease extends Disposable {
  readonly facts: LeaseFacts
  /** Put the credential into a cleansed request, and name it among the values that must not come back. */
  attach(plain: Outbound): Outbound | Promise<Outbound>
  /**
   * The upstream answered 401: drop this credential and issue once more. A second call returns null.
   * @returns the same request with the new credential, or null if there is nothing better to try.
   */
  reissue(plain: Outbound): Promise<Outbound | null>
  /** The call is over, whichever way. A single-use credential is revoked at its issuer; others stay cached. */
  [Symbol.dispose](): void
}
