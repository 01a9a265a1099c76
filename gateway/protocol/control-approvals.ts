/** JSON of the control door about approvals, snake_case as on the wire. */
import type { ApprovalState, ApprovalView, Verdict } from './approval.ts'

/** Seconds between two questions about one that waits. */
export const INTERVAL_S = 5

/** `GET /approvals/:id/status`, for the holder of a grant of the task that asked. */
export interface ApprovalStatus {
  readonly id: string
  readonly state: ApprovalState
  /** Of `expired`. */
  readonly why?: 'time' | 'grant_ended'
  /** Epoch seconds: pending, until when it can be decided; approved, until when the very same request passes. */
  readonly expires_at: number
  /** Seconds between two questions; absent once nothing changes any more. */
  readonly interval?: number
}

/** One element of `GET /approvals` → `{approvals: […]}`, and `GET /approvals/:id`: for who owns the socket, and approvers by token. */
export interface ApprovalJson extends Omit<ApprovalStatus, 'interval'> {
  /** `hmac:…` */
  readonly fingerprint: string
  /** What the gateway knows itself. */
  readonly verified: {
    readonly operation: string
    readonly access: string
    readonly sensitivity: string
    readonly irreversible: boolean
    readonly agent: string
    readonly owner: string
    readonly risk_tier: string
    readonly attested: boolean
    readonly human: { readonly iss: string; readonly sub: string }
    /** Empty: it is about a new task. */
    readonly task: string
    readonly grant: string
    /** Human first, the agent that asks last. */
    readonly lineage: readonly string[]
    readonly request?: {
      readonly service: string
      readonly method: string
      /** `wss://…` or `ws://…`: it opens a WebSocket, and what is said in it is seen by nobody before. */
      readonly url: string
      readonly fields: readonly (readonly [string, string])[]
      readonly body?: { readonly bytes: number; readonly sha256: string; readonly type?: string }
    }
    readonly authority?: readonly object[]
    readonly ttl_s?: number
  }
  /** The agent's words: nothing of it is verified. */
  readonly agent_says: { readonly intent: string; readonly user_agent?: string; readonly content?: string }
  readonly asked: {
    readonly from: readonly string[]
    readonly count: number
    /** Seconds for which the same request may be repeated; absent: it counts once. */
    readonly reuse_s?: number
  }
  readonly consents: readonly {
    readonly name: string
    readonly groups: readonly string[]
    readonly at: number
    readonly via: string
  }[]
  readonly missing: readonly string[]
  readonly needed: number
  readonly denied_by?: { readonly name: string; readonly at: number; readonly via: string }
  /** Why whoever asks cannot decide on it; absent: they can. */
  readonly hindrance?: string
  readonly created_at: number
}

/** `POST /approvals/:id/decide`, by the same. */
export interface DecideBody {
  readonly verdict: Verdict
}

export function approvalStatus({ id, state, why, expiresAt }: ApprovalView): ApprovalStatus {
  const isOver = state !== 'pending' && state !== 'approved'
  return { id, state, ...(why && { why }), expires_at: expiresAt, ...(!isOver && { interval: INTERVAL_S }) }
}

export function approvalJson(view: ApprovalView, hindrance: string | undefined): ApprovalJson {
  const { id, state, why, fingerprint, facts, agentSays, terms, consents, deniedBy } = view
  const { intent, userAgent, content } = agentSays
  return {
    ...{ id, state, fingerprint, expires_at: view.expiresAt, created_at: view.createdAt },
    ...(why && { why }),
    verified: verifiedOf(facts),
    agent_says: {
      intent,
      ...(userAgent !== undefined && { user_agent: userAgent }),
      ...(content !== undefined && { content }),
    },
    asked: { from: terms.from, count: terms.count, ...(terms.reuseS !== undefined && { reuse_s: terms.reuseS }) },
    consents: consents.map(({ name, groups, at, via }) => ({ name, groups, at, via })),
    missing: view.missing,
    needed: view.needed,
    ...(deniedBy && { denied_by: { name: deniedBy.name, at: deniedBy.at, via: deniedBy.via } }),
    ...(hindrance !== undefined && { hindrance }),
  }
}

function verifiedOf(facts: ApprovalView['facts']): ApprovalJson['verified'] {
  const { request, authority, ttlS, agent, operation, access, sensitivity, human } = facts
  return {
    ...{ operation, access, sensitivity, irreversible: facts.isIrreversible },
    ...{ agent: agent.id, owner: agent.owner, risk_tier: agent.riskTier, attested: facts.isAttested },
    ...{ human, task: facts.task.id, grant: facts.grant, lineage: facts.lineage.map(({ id }) => id) },
    ...(request && { request: requestOf(request) }),
    ...(authority && { authority }),
    ...(ttlS !== undefined && { ttl_s: ttlS }),
  }
}

type Requested = NonNullable<ApprovalView['facts']['request']>

/** Where a request goes, as people read it: `wss:` for the handshake of a WebSocket. */
export function urlOf({
  scheme,
  host,
  port,
  path,
  isUpgrade,
}: Omit<Requested, 'service' | 'method' | 'fields'>): string {
  const isUsual = port === (scheme === 'https' ? 443 : 80)
  const name = host.includes(':') ? `[${host}]` : host
  const spoken = isUpgrade ? { http: 'ws', https: 'wss' }[scheme] : scheme
  return `${spoken}://${name}${isUsual ? '' : `:${port}`}${path}`
}

function requestOf(request: Requested) {
  const { service, method, fields, body } = request
  return {
    ...{ service, method, fields, url: urlOf(request) },
    ...(body && {
      body: { bytes: body.bytes, sha256: body.sha256, ...(body.type !== undefined && { type: body.type }) },
    }),
  }
}
