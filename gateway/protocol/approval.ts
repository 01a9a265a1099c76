/** Consent of humans to one request: who has to give it, and what it is once given. */
import type { Human } from './grant.ts'

/** Of several that ask for it the strictest wins: all their groups, the most people, the shortest reuse, every field. */
export interface ApprovalTerms {
  /**
   * Groups of approvers in the settings; of each of them somebody has to consent. `human` stands for the human at the root of the
   * lineage, whose consent counts for no other group.
   */
  readonly from: readonly string[]
  /** Different people altogether, at least 1. */
  readonly count: number
  /** Seconds for which the very same request passes again; undefined: once. */
  readonly reuseS: number | undefined
  /** Header fields whose values are approved along, lower case, sorted. Method, target and body always are. */
  readonly fields: readonly string[]
}

/** Proof that a request was approved, and is taken up by this call. Made only in the room of approvals. */
export interface Approved {
  /** UUIDv7 of the approval; the log names it. */
  readonly id: string
  readonly by: readonly Pick<Human, 'iss' | 'sub'>[]
  /** `sha256:…` over the canonical form of the request that was approved. */
  readonly fingerprint: string
}
