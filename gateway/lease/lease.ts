/** A credential in time: who may use it, until when, and what the record says of it. */
import type { LeaseFacts } from '../audit/entries/event.ts'
import type { AnswerHead, Outbound } from '../protocol/message.ts'

/** What becomes of a credential that came back: ended at its issuer, left to expire, or not ours to end. */
export type Fate = 'revoked' | 'expires' | 'standing'

export interface Lease extends Disposable {
  readonly facts: LeaseFacts
  /** Put the credential into a cleansed request, and name it among the values that must not come back. */
  attach(plain: Outbound): Outbound | Promise<Outbound>
  /**
   * The upstream did not take this credential: attach it again if the answer says how, or drop it and issue once more. A second call returns null.
   * @returns the same request with the new credential, or null if there is nothing better to try.
   */
  reissue(plain: Outbound, answer: AnswerHead): Promise<Outbound | null>
  /**
   * The credential came back in the answer to this request: nobody uses it any more, on any replica, and it is revoked where its
   * issuer offers that. The next call gets another one.
   */
  burn(plain: Outbound): Fate
  /** The call is over, whichever way. A single-use credential is revoked at its issuer; others stay cached. */
  [Symbol.dispose](): void
}
