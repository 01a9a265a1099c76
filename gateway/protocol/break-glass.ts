/** Emergency access: what is asked for, what is shown of it, and what custodians of its keys agree to. */
import type { Human } from './grant.ts'

/** Longest life of what is opened, seconds: long enough to look and to repair one thing; for more, the custodians are asked again. */
export const BREAK_GLASS_MAX_S = 900

/** What custodians sign. Spelled as in the file that they sign. Times are epoch seconds. */
export interface BreakGlassRequest {
  /** UUIDv7: it can be opened once. */
  readonly id: string
  readonly tenant: string
  /** Host names of the gateways where it may be opened; absent: any of the tenant, once at each. */
  readonly at?: readonly string[]
  /** Who asks. Nobody but the custodians vouches for it. */
  readonly who: string
  /** Registered agent that acts. */
  readonly agent: string
  /** Reason, 1 to 500 characters in one line. */
  readonly why: string
  /** Space-separated operations. */
  readonly scope: string
  /** Seconds from the opening, 1 to `BREAK_GLASS_MAX_S`. */
  readonly ttl_s: number
  readonly not_before: number
  /** When it can be opened no longer, at most 3,600 s after `not_before`. */
  readonly not_after: number
}

/** JWS in general JSON serialization (RFC 7515 §7.2.1): the request, and a signature of each custodian. */
export interface SealedRequest {
  /** base64url of the request as JSON. */
  readonly payload: string
  readonly signatures: readonly { readonly protected: string; readonly signature: string }[]
}

/** Whoever may sign, as in the settings. */
export interface Custodian {
  readonly name: string
  /** `x` of an Ed25519 public key (RFC 8037 §2): 32 bytes, base64url. */
  readonly key: string
}

/** Times are epoch seconds. */
export interface BreakGlassView {
  /** Id of the grant. */
  readonly id: string
  readonly request: string
  readonly who: string
  readonly agent: string
  readonly why: string
  readonly scope: readonly string[]
  readonly custodians: readonly string[]
  readonly task: string
  readonly opened_at: number
  readonly expires_at: number
  /** Calls since it was opened, or since this process began. */
  readonly uses: number
}

/** What comes of opening. The handle is shown once to whoever opens it. */
export interface OpenedBreakGlass extends BreakGlassView {
  /** What the agent presents. */
  readonly handle: string
  /** False: the log could not be written, and the journal has it. */
  readonly logged: boolean
}

/** `GET /break-glass` */
export interface BreakGlassStatus {
  readonly open: readonly BreakGlassView[]
  /** Entries that are in the journal and not in the log yet. */
  readonly journalled: number
  /** Why the journal cannot be written; null: it can. */
  readonly journal_trouble: string | null
}

/** What the control door works with. */
export interface BreakGlassDoor {
  /** @throws {GatewayError} `break_glass_refused`, `invalid_scope`, `agent_unknown`, `policy_denied`, `audit_unavailable`, `store_unavailable` */
  open(sealed: SealedRequest, by: Human): Promise<OpenedBreakGlass>
  /** @param id of the grant or of the request. @throws {GatewayError} `break_glass_refused` when none is open under it. */
  close(id: string, by: Human): Promise<void>
  status(): BreakGlassStatus
}
