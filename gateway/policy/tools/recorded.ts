/** A decision as the log has it: what was decided, and those facts that the log holds. What it does not hold is not here. */
import type { Facts, Kind } from './supposed.ts'

export interface Recorded {
  readonly seq: number
  /** RFC 3339. */
  readonly ts: string
  /** Id of the call or instruction. */
  readonly req: string
  readonly kind: Kind
  readonly agent: string
  /** `github:issues.read`; of a grant its operation patterns. */
  readonly asked: readonly string[]
  /** Of a call: where it went, without the query. */
  readonly place?: {
    readonly method: string
    readonly scheme: 'http' | 'https'
    readonly host: string
    readonly port: number
    readonly path: string
  }
  /** With `mint`: how far down the grant may be delegated. */
  readonly maxDepth?: number | undefined
  /**
   * What policy said. `none`: it was not asked, because the grant or something before it said no. `unread`: the log does not say which of
   * the two it was.
   */
  readonly effect: 'allow' | 'deny' | 'none' | 'unread'
  /** Why the call was refused, whoever did. */
  readonly code?: string | undefined
  readonly policyIds: readonly string[]
  /** As the log spells them; undefined: it does not say. */
  readonly obligations?: Readonly<Record<string, unknown>> | undefined
  /** Consent that it took may have been asked for by a grant, whatever policy says. */
  readonly isByGrant?: true
  readonly facts: Facts
}
