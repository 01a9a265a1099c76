/** Instructions to the gateway itself, and what they would do. */
import type { Agent, Authority, Confirmation, Grant, Human, Preset } from './grant.ts'
import type { ClientEvidence, PresentedToken, Workload } from './identity.ts'

/** What is asked for in a grant; untrusted until `propose` has checked it. */
export interface GrantRequest {
  /** Space-separated operation names (RFC 6749 §3.3), the short form of `authorization_details`. */
  readonly scope?: string
  /** `authorization_details` (RFC 9396) as parsed JSON. Together with `scope`, both are granted as separate entries. */
  readonly details?: unknown
  /** Seconds. Default: the preset's row in the table of lifetimes. */
  readonly ttlS?: number
  /** Cut what is wider than the parent instead of refusing it; what was granted is always told. Default false. */
  readonly allowNarrowing?: boolean
  readonly preset?: Preset
  /** W3C trace id that requests under the grant must carry. */
  readonly trace?: string
  /** Default true. */
  readonly delegable?: boolean
  /** Default: the parent's, or the settings' for a root. */
  readonly maxDepth?: number
  /** Step of the task. */
  readonly step?: string
  /** Key that the holder proved at the door; the grant is bound to it. */
  readonly cnf?: Confirmation
  /** Bind the grant to the TLS certificate that its agent authenticated with (RFC 8705 §3). Default false. */
  readonly isCertificateBound?: boolean
}

interface Given {
  /** UUIDv7 of this instruction; the event id. */
  readonly id: string
  readonly tenant: string
}

/** From the local socket: whoever can open it is the human whom it names. */
interface Local extends Given {
  readonly human: Human
}

/**
 * Who acts on a task or grant: the owner of the socket, or a holder that presents its grant. A client that shows neither is
 * refused; it is named so that its refusal can be recorded.
 */
export type Mandate = { readonly human: Human } | { readonly holder: Grant } | { readonly client: ClientEvidence }

export type TaskEnd = 'completed' | 'crashed' | 'heartbeat_missed' | 'revoked'

export type Instruction =
  | (Local & {
      readonly kind: 'task.open'
      /** Registered agent id. */
      readonly agent: string
      readonly purpose: string
      /** Patterns of the operations that it foresees. Default: it says nothing of that. */
      readonly plan?: readonly string[]
      readonly request: GrantRequest
      /** The opener promises heartbeats; without them the task is ended. Default false. */
      readonly heartbeat?: boolean
      /**
       * Living grant whose agent asked for more: what is given comes beside it, to the same agent and key, in the same task, and ends no
       * later. Default: a task of its own.
       */
      readonly beside?: Grant
    })
  | (Given & {
      /** `POST /oauth/token`: a root grant for an authenticated workload, or a child of a presented grant. */
      readonly kind: 'grant.request'
      readonly grantType: 'token-exchange' | 'client_credentials'
      readonly client: ClientEvidence
      /** Thumbprint of the key proved by DPoP at this endpoint. */
      readonly jkt?: string
      readonly subject?: PresentedToken
      readonly actor?: PresentedToken
      /** Agent to delegate to when it has no identity of its own to present. */
      readonly requestedActor?: string
      /** Attestation of this hop, signed by the holder of the subject grant (LG/1 §1.3). */
      readonly attestation?: string
      /** Declared intent, for a root grant. */
      readonly purpose?: string
      /** As for `task.open`. */
      readonly plan?: readonly string[]
      readonly request: GrantRequest
    })
  | (Local & {
      /** From the local socket: a child of a living grant for a registered agent. */
      readonly kind: 'grant.delegate'
      /** Parent: handle, signed grant, or id. */
      readonly parent: string
      readonly agent: string
      readonly request: GrantRequest
    })
  | (Given & {
      /** First sight, at a proxy door, of a grant that its parent's holder signed without asking: it becomes known, or is refused. */
      readonly kind: 'grant.present'
      readonly token: string
    })
  | (Given & {
      readonly kind: 'grant.revoke'
      /** Handle, signed grant, or (from the socket) id. */
      readonly token: string
      readonly by: { readonly human: Human } | { readonly client: ClientEvidence; readonly jkt?: string }
    })
  | (Given & {
      readonly kind: 'task.complete'
      readonly by: Mandate
      readonly task: string
      readonly reason: TaskEnd
    })
  | (Given & {
      /** New declared intent: the old grants die, policy decides afresh. */
      readonly kind: 'task.intent'
      readonly by: Mandate
      readonly task: string
      readonly purpose: string
      /** By the human: what is foreseen from now on. By a holder: within what was; absent, the same. */
      readonly plan?: readonly string[]
      /** Absent members: as the root grant has them. */
      readonly request: GrantRequest
    })
  | (Given & {
      /** End of a step: the grants that belong to it die. */
      readonly kind: 'task.step_complete'
      readonly by: Mandate
      readonly task: string
      readonly step: string
    })
  | (Given & { readonly kind: 'task.suspend'; readonly by: Mandate; readonly task: string })
  | (Given & {
      /** Back to work: the workload proves itself again and policy decides again; a fresh grant takes the old one's place. */
      readonly kind: 'task.resume'
      readonly by: { readonly human: Human } | { readonly client: ClientEvidence; readonly jkt?: string }
      readonly task: string
      readonly ttlS?: number
    })
  | (Given & {
      /** The human lets it go on as it is: policy decides again, and a fresh grant comes beside the old one. */
      readonly kind: 'task.renew'
      readonly by: Mandate
      readonly task: string
      readonly ttlS?: number
    })

/** What asks and changes no authority: in the log only when it is refused. */
export type Enquiry =
  | (Given & { readonly kind: 'grant.introspect'; readonly by: Mandate })
  | (Given & { readonly kind: 'task.heartbeat'; readonly by: Mandate; readonly task: string })
  /** Sent as an instruction, and not readable as one. */
  | (Given & { readonly kind: 'unread'; readonly route: string })

/** What an instruction would do, checked and complete. */
export type Proposal =
  | {
      /** A root grant of a new task. */
      readonly kind: 'task.open'
      readonly grant: Grant
      readonly authority: readonly Authority[]
      readonly agent: Agent
      readonly ttlS: number
      readonly heartbeat?: boolean
      readonly workload?: Workload
      /** No new task: a further grant of the one that this grant belongs to. */
      readonly beside?: Grant
    }
  | {
      /**
       * A root grant that takes the place of another one of the same task, which dies with all its descendants. One that was
       * renewed lives on until its own expiry, so that what goes on under it is not cut.
       */
      readonly kind: 'grant.replace'
      readonly reason: 'intent_changed' | 'resumed' | 'renewed'
      readonly old: Grant
      /** What its holder may ask for from now on. Absent: what it could ask for before. */
      readonly ceiling?: readonly Authority[]
      readonly grant: Grant
      readonly authority: readonly Authority[]
      readonly agent: Agent
      readonly ttlS: number
      readonly workload?: Workload
    }
  | {
      readonly kind: 'grant.delegate'
      readonly parent: Grant
      readonly grant: Grant
      readonly authority: readonly Authority[]
      readonly agent: Agent
      readonly ttlS: number
      /** Given by the parent's key; absent: the gateway attests on behalf of a keyless holder when it performs. */
      readonly attestation?: string
      /** What was cut away on `allowNarrowing`, for the answer and the record. */
      readonly narrowed?: readonly string[]
      readonly workload?: Workload
    }
  | { readonly kind: 'grant.revoke'; readonly grant: Grant; readonly reason: string }
  | { readonly kind: 'task.complete'; readonly grant: Grant; readonly reason: string }
  | { readonly kind: 'task.step_complete'; readonly grant: Grant; readonly step: string; readonly reason: string }
  | { readonly kind: 'task.suspend'; readonly grant: Grant; readonly reason: string }

/** A grant as handed to whoever asked for it. Neither form is stored by the gateway: handles are kept hashed. */
export interface IssuedGrant {
  readonly grant: Grant
  /** Opaque stand-in for the grant: `kh_` and 32 random bytes, base64url. Absent for a grant bound to a key. */
  readonly handle?: string
  /** The same authority as a signed `at+jwt`. */
  readonly token: string
  readonly narrowed?: readonly string[]
}
