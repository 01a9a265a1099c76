/** The policy decision point's answer and what it obliges the gateway to do. */
import type { Grant } from './grant.ts'
import type { ProblemCode } from './problem.ts'
import type { Endpoint } from './service.ts'

/** Strictest wins over all policies that decided; `undefined` means that no policy said anything. */
export interface Obligations {
  /** Upper bound in seconds on the life of the credential used for this call. */
  readonly ttlS: number | undefined
  /** The operation may be used once per grant, and its credential is never cached. */
  readonly singleUse: boolean
}

/** Everything a decision may depend on. Missing context denies. */
export interface Ask {
  readonly grant: Grant
  readonly endpoint: Endpoint
  readonly method: string
  readonly sourceAddress: string
  /** Milliseconds since the Unix epoch. */
  readonly nowMs: number
}

export interface Decision {
  readonly effect: 'allow' | 'deny'
  /** Why not, as a stable code; only on `deny`. */
  readonly code: ProblemCode | undefined
  /** What was asked and which rule said no, for the agent. No policy internals. */
  readonly detail: string
  /** Policies that decided (Cedar `diagnostics.reason`), sorted. For the record, never for the agent. */
  readonly policyIds: readonly string[]
  /** Digest of the bundle that decided: `sha256:…`. */
  readonly policySet: string
  /** Evaluation errors; any error denies. */
  readonly errors: readonly string[]
  readonly obligations: Obligations
}
