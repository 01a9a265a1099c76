/**
 * Orders to end access, and blocks that keep it ended. An order ends what lives under its target, on every replica and in calls that
 * are open; a block refuses what comes anew as well, until its time comes or somebody lifts it.
 */
import type { Human } from './grant.ts'

export type RevocationTarget =
  /** The grant and every grant below it, by id, token or handle. */
  | { readonly grant: string }
  | { readonly task: string }
  /** Every grant with this agent anywhere in its lineage. */
  | { readonly agent: string }
  /** Every grant whose lineage begins with this human. */
  | { readonly human: Pick<Human, 'iss' | 'sub'> }
  /** Calls to the service and credentials for it; grants live on. */
  | { readonly service: string }
  /** Calls that use this entry of `credentials` in the settings, and what was issued from it; grants live on. */
  | { readonly credential: string }
  /** Every grant that was issued, or has one above it that was, under the policies of this digest. */
  | { readonly policySet: string }
  /** The kill switch: every grant, every call. */
  | { readonly everything: true }

/** Who orders: somebody, an issuer of signals that is trusted with it, or the gateway by itself. */
export type RevocationAuthor =
  | { readonly human: Human }
  | { readonly signal: SignalWord }
  | { readonly automatic: AutomaticCause }

/** That a security event token was about it. */
export interface SignalWord {
  /** `iss` of the token. */
  readonly issuer: string
  /** Its `iat`, epoch seconds: tokens do not come in the order in which they were issued. */
  readonly issuedAt: number
}

export type AutomaticCause = 'agent_removed' | 'policy_changed' | 'off_plan' | 'leak' | 'anomaly'

export interface RevocationOrder {
  readonly target: RevocationTarget
  /** For the record and for whoever lists what is blocked, at most 200 characters; never a secret. */
  readonly reason: string
  readonly by: RevocationAuthor
  /**
   * Epoch seconds until which what comes anew under the target is refused too; null: until it is lifted. Default: null for
   * service, credential and everything; for others nothing is blocked. Not for a grant or task, whose end is for good.
   */
  readonly untilS?: number | null
}

/** What an order ended. */
export interface Revoked {
  /** UUIDv7; the entries of the order name it. */
  readonly id: string
  readonly tasks: number
  readonly grants: number
  /** Upstream credentials that nobody uses any more; those whose issuer offers it are revoked there. */
  readonly leases: number
  /** As in force; absent: nothing is blocked. */
  readonly untilS?: number | null
}

/** What is refused until further notice. */
export interface Block {
  /** Of the order. */
  readonly id: string
  readonly target: RevocationTarget
  readonly reason: string
  /** Epoch seconds; null: until it is lifted. */
  readonly untilS: number | null
  /** Epoch seconds. */
  readonly sinceS: number
}

/** `house.revocations`. */
export interface Revocations {
  /**
   * In the log first; then in force here at once and on every other replica within a second. While the log cannot be written it takes
   * effect all the same, and is in the log when that can be written again.
   * @throws {GatewayError} `instruction_invalid` for a target that the settings do not know, `grant_invalid`, `task_unknown`;
   *   `store_unavailable` when other replicas may not know of it yet: it is in force here, and they are told as soon as possible.
   */
  order(order: RevocationOrder): Promise<Revoked>
  /**
   * Take a block back; what was ended stays ended. A signal takes back only what its issuer alone has blocked, and not later than it says so.
   * @throws {GatewayError} `instruction_invalid` when there is none.
   */
  lift(target: RevocationTarget, by: RevocationAuthor): Promise<void>
  blocks(): readonly Block[]
}
