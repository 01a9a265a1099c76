/** What an agent acts under: subject, actor, task, authority, expiry (LG/1, standards.md part 1). */

export interface Human {
  /** Issuer that vouches for the human: an OIDC issuer, `local:<host name>` for the owner of the local socket, `registry` for an agent's owner. */
  readonly iss: string
  readonly sub: string
  /** How and when the human proved to be it (OIDC Core §2): evidence for the record, epoch seconds. */
  readonly authTime?: number
  readonly amr?: readonly string[]
  readonly acr?: string
}

export interface Agent {
  /** Registered id, by preference a SPIFFE ID. */
  readonly id: string
  readonly owner: string
  readonly purpose: string
  readonly riskTier: 'low' | 'medium' | 'high'
  /** Ids of the clients that may exchange tokens for this agent, besides itself. */
  readonly orchestrators?: readonly string[]
  /** Words of the settings by which policies choose: `principal.labels.contains("finance")`. */
  readonly labels?: readonly string[]
}

export interface Task {
  readonly id: string
  /** Declared intent, in the words of whoever opened the task. */
  readonly purpose: string
  /** Patterns of the operations that the intent foresees; no claim. Absent: nobody said. It gives no authority. */
  readonly plan?: readonly string[]
  /** Every call of it is counted from its first one, because policies looked at earlier calls when it was opened; no claim. */
  readonly counted?: true
}

/** A condition on one value of a request. Every member must hold. */
export interface ParameterRule {
  readonly equals?: string | number | boolean | null
  readonly one_of?: readonly (string | number | boolean | null)[]
  readonly prefix?: string
  /** `*` stands for any characters but `/`; nothing else is special. */
  readonly glob?: string
  readonly max?: number
  readonly min?: number
  /** Every element of the array in the request is one of these. */
  readonly within?: readonly (string | number | boolean | null)[]
}

/** Weakest first: a child may only ask for more. */
export type Approval = 'none' | 'notify' | 'single' | 'quorum'

export type Sensitivity = 'public' | 'internal' | 'confidential' | 'restricted'

/** What narrows an authority beyond its operations. Spelled as on the wire, because it is hashed and compared as such. */
export interface Constraints {
  /** Calls over the whole life of the grant, those of its descendants included. */
  readonly max_calls?: number
  /** Bytes of bodies in both directions, descendants included. */
  readonly max_bytes?: number
  /** At most `n` calls in any `per` seconds, descendants included. */
  readonly rate?: { readonly n: number; readonly per: number }
  /** Equal to `max_calls: 1`, and the credential is never cached. */
  readonly single_use?: boolean
  /** Epoch seconds. */
  readonly not_before?: number
  /** Epoch seconds; the first instant at which it is not allowed any more. */
  readonly not_after?: number
  /** CIDR ranges that the caller's address must be in. */
  readonly source?: readonly string[]
  /** Regions of the settings' `regions` that the caller's address must be in, such as `CH`. */
  readonly geo?: readonly string[]
  /** `query.NAME` or `body.` and a JSON pointer (RFC 6901) → rule. */
  readonly params?: Readonly<Record<string, ParameterRule>>
  readonly sensitivity_max?: Sensitivity
  readonly approval?: Approval
}

/** One `keyless_access` object of `authorization_details` (RFC 9396 §2). */
export interface Authority {
  /** Operation names; `*` after a dot or colon covers everything below it: `github:*`, `github:issues.*`. */
  readonly operations: readonly string[]
  /** HTTP methods, upper case. Absent: every method of the operations. */
  readonly actions?: readonly string[]
  /** Origins such as `https://api.github.com`. Absent: every origin of the operations' services. */
  readonly locations?: readonly string[]
  /** Path patterns: literal segments, `*` for one segment, `**` as the tail. Absent: every path. */
  readonly paths?: readonly string[]
  readonly constraints?: Constraints
}

export interface LineageStep {
  readonly n: number
  readonly type: 'human' | 'ai_agent'
  readonly id: string
  /** Grant (`jti`) under which this step acts; absent for the human. */
  readonly grant?: string
  /** The gateway attested this delegation for a holder without a key. */
  readonly on_behalf?: true
}

/** Key that a grant is bound to (RFC 7800); every member given must be proved. */
export interface Confirmation {
  /** RFC 7638 thumbprint, base64url SHA-256: proved by DPoP (RFC 9449). */
  readonly jkt?: string
  /** base64url SHA-256 of the DER certificate: proved by mTLS (RFC 8705). */
  readonly 'x5t#S256'?: string
}

/** What an agent proved itself by (`identity.ts`): the kind, who vouches for it, and short strings that the issuer says of it. */
export interface WorkloadEvidence {
  readonly kind: string
  readonly issuer: string
  readonly attributes: Readonly<Record<string, string>>
}

/** How long and for what a grant lives; each has its row in the table of lifetimes (`grant/propose/preset.ts`). */
export type Preset = 'per-task' | 'per-session' | 'per-prompt' | 'training-batch' | 'sensitive'

/** An entry of a grant's authority, with the budgets that it sets. */
export interface Level {
  /** `jti` */
  readonly grant: string
  /** Place in the authority of that grant. */
  readonly entry: number
  readonly constraints: Constraints | undefined
}

/** What a root grant in the place of another goes on spending: the budgets that the human set, counted where they were. */
export interface Succession {
  /** `jti` of the root that the human authorised last. */
  readonly origin: string
  /** By entry of the authority; null where the origin set no budget. */
  readonly levels: readonly (Level | null)[]
}

/** When a grant was made, counted in what had been ended before (`grant/orders/order.ts`). */
export interface Issuance {
  /** Version of the orders that were known when it was proposed: what was ordered later ends it. */
  readonly after: number
  /** Digest of the policies in force. */
  readonly policySet: string
}

/** Under which authority an agent asked for a further grant: what ends that ends this. */
export interface Beside {
  /** The grant that it presented, and those above. */
  readonly grants: readonly string[]
  readonly human: Pick<Human, 'iss' | 'sub'>
  /** All in its lineage. */
  readonly agents: readonly string[]
  /** Beside which that one was given. */
  readonly beside?: Beside
}

/** A grant above another. */
export interface Ancestor {
  /** `jti` */
  readonly id: string
  readonly authority: readonly Authority[]
  readonly succession?: Succession
}

/** Marks a grant that custodians opened in an emergency. It lives at the gateway where that was, beside the shared store. */
export interface BreakGlass {
  /** Id of the request that they signed. */
  readonly request: string
  /** `sha256:…` over the bytes of it. */
  readonly digest: string
  /** Names of those who did, sorted. */
  readonly custodians: readonly string[]
}

export interface Grant {
  /** `jti`, UUIDv7. */
  readonly id: string
  readonly tenant: string
  readonly human: Human
  readonly agent: Agent
  readonly task: Task
  readonly authority: readonly Authority[]
  /** Epoch seconds. */
  readonly issuedAt: number
  /** Epoch seconds. */
  readonly expiresAt: number
  /** Human first, current agent last. */
  readonly lineage: readonly LineageStep[]
  /** base64url SHA-256 over the JCS bytes of `lineage`. */
  readonly lineageHash: string
  /** `del_depth`: delegations between agents; 0 when the human authorised this agent directly. Equals `ancestry.length`. */
  readonly depth: number
  /** `del_max_depth`: the deepest grant that may be derived. */
  readonly maxDepth: number
  /** False: this grant cannot be delegated at all. */
  readonly delegable: boolean
  /** Root first, parent last. Effective authority is the intersection of all of theirs and this one's. */
  readonly ancestry: readonly Ancestor[]
  /** `actor_proofs`: one compact JWS per delegation, oldest first. As many as `depth`. */
  readonly attestations: readonly string[]
  /** `par_hash`: base64url SHA-256 of the parent's JWS signing input. Absent at depth 0. */
  readonly parentHash?: string
  /** base64url SHA-256 of the signing input of this grant's own JWS: what its children name as `par_hash`. Absent before it is signed; no claim. */
  readonly signedHash?: string
  /** Of a root grant that took the place of another without the human; no claim. */
  readonly succession?: Succession
  /** Of a further grant that an agent asked for; no claim. */
  readonly beside?: Beside
  /** Of the grants above it, root first, and its own; no claim. Absent in one that a gateway from before orders made. */
  readonly issuance?: readonly Issuance[]
  readonly cnf?: Confirmation
  /** Which running instance of the agent: pod uid, run id. */
  readonly instance?: string
  /** The agent proved who it is by a workload identity; absent when the grantor merely named it. */
  readonly attested?: boolean
  /** By which one, and what that says of it; no claim. */
  readonly workload?: WorkloadEvidence
  readonly preset?: Preset
  /** Step of the task that this grant belongs to; it dies with the step. */
  readonly step?: string
  /** W3C trace id (32 hex digits) that requests must carry. */
  readonly trace?: string
  readonly breakGlass?: BreakGlass
}
