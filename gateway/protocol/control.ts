/** JSON of the control door, snake_case as on the wire: what its routes take and answer, and what its clients read. */
import type { Confirmation, Preset } from './grant.ts'

/** What may be asked for in any grant. `scope` and `authorization_details` together are granted as separate entries. */
export interface GrantBody {
  /** Space-separated operation names or patterns: `github:issues.read openai:*`. */
  readonly scope?: string
  /** `keyless_access` objects (RFC 9396). */
  readonly authorization_details?: readonly unknown[]
  /** Seconds. Default and upper bound: the preset's, and the settings `grants.ttl_s` and `grants.max_ttl_s`. */
  readonly ttl_s?: number
  /** Default `per-task`. */
  readonly preset?: Preset
  /** W3C trace id that requests under the grant must carry. */
  readonly trace?: string
  /** Step of the task that the grant dies with. */
  readonly step?: string
  /** Default true. */
  readonly delegable?: boolean
  /** How many delegations deep the chain may become; default and upper bound: the parent's, or the setting `grants.max_depth`. */
  readonly max_depth?: number
  /** RFC 7638 thumbprint of the key that the grant is to be bound to; it then has no handle. */
  readonly dpop_jkt?: string
}

/** `POST /tasks`. */
export interface OpenTaskBody extends GrantBody {
  /** Registered agent id. Default: the first agent of the settings. */
  readonly agent?: string
  /** Declared intent in plain words, 1 to 500 characters. */
  readonly purpose: string
  /** Operations that it foresees, patterns such as `github:issues.*` included; policy looks at it. Default: it does not say. */
  readonly plan?: readonly string[]
  /** The opener promises heartbeats; the task ends when none arrives for 2 × `heartbeat_s`. Default false. */
  readonly heartbeat?: boolean
  /** Fetch the credentials of the services that the grant names at once, in the background. Default false. */
  readonly warm?: boolean
}

/** `POST /tasks/:id/intent`. What is left out stays as it is. */
export interface IntentBody extends GrantBody {
  readonly purpose: string
  /** As for opening; a holder stays within what was foreseen. */
  readonly plan?: readonly string[]
}

/** `POST /tasks/:id/renew`, on the unix socket only. */
export interface RenewBody {
  /** Seconds. Default: the preset's. */
  readonly ttl_s?: number
}

/** 200 of `POST /tasks/:id/heartbeat`. */
export interface HeartbeatView {
  /** Epoch seconds at which the task's root grant expires; of a suspended task: until when it can be resumed. */
  readonly expires_at: number
  /** Id of the root grant as last issued. Another one than the caller's: somebody changed the intent, resumed or renewed it. */
  readonly grant: string
  readonly state: 'active' | 'suspended'
}

/** `POST /tasks/:id/resume`. Over TCP with the client's authentication. */
export interface ResumeBody {
  /** Seconds. Default: the preset's. */
  readonly ttl_s?: number
  readonly client_id?: string
  readonly client_assertion_type?: string
  readonly client_assertion?: string
}

/** `POST /grants/delegate`. */
export interface DelegateBody extends GrantBody {
  /** Handle, signed grant, or id of the grant to delegate from. */
  readonly parent: string
  /** Registered agent id. */
  readonly agent: string
  /** Cut what is wider than the parent instead of refusing it. Default false. */
  readonly allow_narrowing?: boolean
}

/** A new grant: the only time that handle and token are shown. */
export interface IssuedView {
  readonly task: string
  readonly grant: string
  readonly agent: string
  readonly human: string
  /** Operations of all entries, constrained or not; what they are bound to is in `authorization_details`. */
  readonly scope: string
  readonly authorization_details: readonly object[]
  /** Absent for a grant that is bound to a key. */
  readonly handle?: string
  readonly token: string
  /** Epoch seconds. */
  readonly expires_at: number
  /** Seconds. */
  readonly expires_in: number
  /** Who authorised whom for what, as a sentence. */
  readonly lineage: string
  /** What was cut away on `allow_narrowing`. */
  readonly narrowed?: readonly string[]
}

/** 201 of `POST /tasks` without `dpop_jkt`. */
export interface OpenedTask extends IssuedView {
  readonly handle: string
  /** Seconds between heartbeats; only when they were promised. */
  readonly heartbeat_s?: number
}

export type CompletionReason = 'completed' | 'crashed' | 'revoked'

/** One element of `GET /tasks` → `{tasks: […]}`. */
export interface TaskView {
  readonly task: string
  /** Id of the root grant. */
  readonly grant: string
  readonly agent: string
  readonly human: string
  readonly purpose: string
  readonly scope: string
  readonly state: 'active' | 'suspended'
  readonly preset: Preset
  /** Epoch seconds at which the task was opened. */
  readonly created_at: number
  /** Epoch seconds at which its root grant was issued. */
  readonly issued_at: number
  /** Epoch seconds. Of a suspended task: until when it can be resumed. */
  readonly expires_at: number
  readonly heartbeat: boolean
}

/** `GET /tasks/:id`. */
export interface TaskDetail extends TaskView {
  readonly authorization_details: readonly object[]
  /** Living grants, oldest first. */
  readonly grants: readonly GrantView[]
}

/** `GET /grants/:id`. */
export interface GrantView {
  readonly grant: string
  readonly task: string
  readonly agent: string
  readonly human: string
  readonly purpose: string
  readonly scope: string
  readonly authorization_details: readonly object[]
  readonly issued_at: number
  readonly expires_at: number
  readonly depth: number
  readonly max_depth: number
  readonly delegable: boolean
  /** The agent proved who it is; false when the grantor merely named it. */
  readonly attested: boolean
  readonly preset: Preset
  readonly parent?: string
  readonly step?: string
  readonly trace?: string
  readonly instance?: string
  readonly cnf?: Confirmation
  /** One compact JWS per delegation, oldest first. */
  readonly actor_proofs: readonly string[]
  readonly lineage: string
}

/** `GET /grants/:id/bundle`: what `keyless grant verify` reads. As secret as the grant, until it expires. */
export interface GrantBundle {
  readonly token: string
  /** Root first, parent last. */
  readonly ancestors: readonly string[]
  readonly actor_proofs: readonly string[]
}
