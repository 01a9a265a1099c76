/** What an agent acts under: subject, actor, task, authority, expiry (LG/1, standards.md part 1). */

export interface Human {
  /** Issuer that vouches for the human: an OIDC issuer, or `local:<host name>` for the owner of the local socket. */
  readonly iss: string
  readonly sub: string
}

export interface Agent {
  /** Registered id, by preference a SPIFFE ID. */
  readonly id: string
  readonly owner: string
  readonly purpose: string
  readonly riskTier: 'low' | 'medium' | 'high'
}

export interface Task {
  readonly id: string
  /** Declared intent, in the words of whoever opened the task. */
  readonly purpose: string
}

/** One `keyless_access` object of `authorization_details` (RFC 9396 §2). */
export interface Authority {
  /** Operation names; `*` after a dot or colon covers everything below it: `github:*`, `github:issues.*`. */
  readonly operations: readonly string[]
  /** Origins such as `https://api.github.com`. Absent: every origin of the operations' services. */
  readonly locations?: readonly string[]
  /** Path patterns: literal segments, `*` for one segment, `**` as the tail. Absent: every path. */
  readonly paths?: readonly string[]
}

export interface LineageStep {
  readonly n: number
  readonly type: 'human' | 'ai_agent'
  readonly id: string
  /** Grant (`jti`) under which this step acts; absent for the human. */
  readonly grant?: string
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
}
