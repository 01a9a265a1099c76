/** Consent of humans to one request: who has to give it, what approvers are shown, and what it is once given. */
import type { Agent, Human, LineageStep, Task } from './grant.ts'

/** In place of a group: the human at the root of the lineage. */
export const ROOT_HUMAN = 'human'

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
  /**
   * Header fields whose values are approved along, lower case, sorted. Method, target, body, and every field that is not known to say
   * nothing about what is asked (tracing, user agent, …) always are: these are approved along although they are among those.
   */
  readonly fields: readonly string[]
}

/** Proof that a request was approved, and is taken up by this call. Made only in the room of approvals. */
export interface Approved {
  /** UUIDv7 of the approval; the log names it. */
  readonly id: string
  readonly by: readonly Pick<Human, 'iss' | 'sub'>[]
  /** `hmac:…` over the canonical form of the request that was approved, keyed: what is in it could be guessed. */
  readonly fingerprint: string
}

/**
 * `pending`: somebody still has to consent. `approved`: make the very same request, and it passes. `denied`: somebody said no.
 * `expired`: nobody said anything in time, or what asked for it is gone. `used`: a call took it up.
 */
export type ApprovalState = 'pending' | 'approved' | 'denied' | 'expired' | 'used'

export type Verdict = 'approve' | 'deny'

/** What is asked for, by what the gateway has verified itself. Values are the agent's where a request has them (path, query): escape them. */
export interface ApprovalFacts {
  readonly human: Pick<Human, 'iss' | 'sub'>
  readonly agent: Agent
  /** The agent proved who it is. */
  readonly isAttested: boolean
  readonly task: Pick<Task, 'id'>
  readonly grant: string
  /** Human first, the agent that asks last. */
  readonly lineage: readonly LineageStep[]
  /** `github:issues.create`; of an instruction `mint` or `delegate`. */
  readonly operation: string
  readonly access: 'read' | 'write' | 'admin'
  readonly sensitivity: string
  readonly isIrreversible: boolean
  /** Absent: it is about an instruction. */
  readonly request?: {
    readonly service: string
    readonly method: string
    readonly scheme: 'http' | 'https'
    readonly host: string
    readonly port: number
    /** Path and query as they will be sent, without what stood in slots of credentials. */
    readonly path: string
    /** Header fields that are approved along, `[name, value]`. */
    readonly fields: readonly (readonly [string, string])[]
    /** Absent: it has none. */
    readonly body?: { readonly bytes: number; readonly sha256: string; readonly type: string | undefined }
    /** It opens a WebSocket: what is said in it is seen by nobody before. Absent: it does not. */
    readonly isUpgrade?: true
  }
  /** Present: it is about a grant to be made. `keyless_access` objects, as granted. */
  readonly authority?: readonly object[]
  readonly ttlS?: number
}

/** The agent's own words. Nothing of it is verified: shown apart, escaped, and never in place of a fact. */
export interface AgentSays {
  /** Declared intent of the task, cut to 500 characters. */
  readonly intent: string
  /** User-Agent, cut to 200 characters. */
  readonly userAgent?: string
  /** Beginning of the body as text, at most 4,096 characters; absent: there is none, or it is no text. The rest is in its hash. */
  readonly content?: string
}

export interface Consent {
  /** As in `approvals.approvers` of the settings; of the human at the root of the lineage: its `sub`. */
  readonly name: string
  readonly human: Pick<Human, 'iss' | 'sub'>
  /** Groups that it counts for. */
  readonly groups: readonly string[]
  /** Epoch seconds. */
  readonly at: number
  /** By which way it came: `socket`, `page`, … */
  readonly via: string
}

/** Times are epoch seconds. */
export interface ApprovalView {
  readonly id: string
  readonly tenant: string
  readonly state: ApprovalState
  /** `hmac:…`: whoever says yes to this view says yes to exactly this. */
  readonly fingerprint: string
  readonly facts: ApprovalFacts
  readonly agentSays: AgentSays
  readonly terms: ApprovalTerms
  readonly consents: readonly Consent[]
  /** Groups of which nobody has consented yet. */
  readonly missing: readonly string[]
  /** People who still have to consent altogether, those of `missing` included; 0 once it is approved. */
  readonly needed: number
  /** Who said no. */
  readonly deniedBy?: Pick<Consent, 'name' | 'human' | 'at' | 'via'>
  /** Why it is `expired`. */
  readonly why?: 'time' | 'grant_ended'
  readonly createdAt: number
  /** While pending: until when it can be decided. Approved: until when it can be taken up. Otherwise: until when it is remembered. */
  readonly expiresAt: number
}

/** Whoever decides, proved by the way it came. Never taken from what a request says of itself. */
export interface Decider {
  readonly human: Human
  /** `socket`, `page`, `token`, … for the record. */
  readonly via: string
}

/** What channels (pages, CLI, bots) work with. `tenant` is that of the door. */
export interface Approvals {
  /** Those that wait for somebody, oldest first; of tasks that are over, none. */
  pending(tenant: string): Promise<readonly ApprovalView[]>
  /** @returns undefined for one that is not known, or was forgotten. */
  get(tenant: string, id: string): Promise<ApprovalView | undefined>
  /** What this human could do with it: undefined while it may decide, otherwise why not, for a page to show in place of buttons. */
  hindrance(view: ApprovalView, human: Human): string | undefined
  /**
   * Recorded before it takes effect. One no denies; a yes of the same human again changes nothing.
   * @returns how it stands afterwards.
   * @throws {GatewayError} `approval_unknown`, `approver_refused` (in none of its groups, the requester itself), `approval_closed`,
   *   `audit_unavailable`, `store_unavailable`
   */
  decide(tenant: string, id: string, verdict: Verdict, by: Decider): Promise<ApprovalView>
}
