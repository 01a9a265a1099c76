/** The policy decision point's answer and what it obliges the gateway to do. */
import type { Advice } from './advice.ts'
import type { ApprovalTerms } from './approval.ts'
import type { Grant, Level } from './grant.ts'
import type { ProblemCode } from './problem.ts'
import type { Endpoint } from './service.ts'

/** Strictest wins over all policies that decided; `undefined` means that no policy said anything. */
export interface Obligations {
  /** Upper bound in seconds on the life of the credential used for this call. */
  readonly ttlS: number | undefined
  /** The operation may be used once per grant, and its credential is never cached. */
  readonly singleUse: boolean
  /** Deepest grant that may act, counted as `Grant.depth`. On `mint`: the most that a root grant may let itself be delegated. */
  readonly maxDepth?: number
  /** Credentials that are not ours in a request: written down, or refused. Absent: one in a slot is removed, others pass. */
  readonly foreignCredentials?: 'log' | 'refuse'
  /** Somebody has to approve this very request first. */
  readonly approval?: ApprovalTerms
  /** How often one agent may make the call, over all its grants and tasks. Every one of them holds. */
  readonly rates?: readonly Rate[]
  /** Only what reads: a call that is anything else is refused, and so is a grant for it. */
  readonly readOnly?: true
  /** How far the credential has to be narrowed upstream, at least; no call is made with one that is not. */
  readonly downscope?: Downscope
  /** JSON pointers (RFC 6901, `*` for any member) to what the agent does not get of an answer. Sorted. */
  readonly redact?: readonly string[]
  /** Who is told of it: names by which webhooks of the settings choose. Sorted. */
  readonly notify?: readonly string[]
  /** More of the request is in the log. */
  readonly log?: 'full'
  /** Of a refusal alone: what the gateway ends for it. */
  readonly revoke?: 'grant' | 'task'
}

/** At most `n` calls in any `perS` seconds. */
export interface Rate {
  readonly n: number
  readonly perS: number
}

/** Least first; what a provider says of itself (`Provider.narrows`). */
export const DOWNSCOPES = ['scope', 'resource', 'policy'] as const

export type Downscope = (typeof DOWNSCOPES)[number]

/** Everything a decision may depend on. Missing context denies. */
export interface Ask {
  readonly grant: Grant
  readonly endpoint: Endpoint
  readonly method: string
  /** Path and query as received, as sent. */
  readonly rawPath: string
  readonly sourceAddress: string
  /** Milliseconds since the Unix epoch. */
  readonly nowMs: number
  /** Parsed JSON; absent: not read, because nothing in the grant depends on it. */
  readonly body?: unknown
  /** The connection is asked for, as a WebSocket. */
  readonly isUpgrade?: boolean | undefined
  /** W3C trace id of the request, 32 hex digits; absent: none, or not asked for by the grant. */
  readonly traceId?: string | undefined
  /** By which way it came. Absent: not known. */
  readonly mode?: 'forward' | 'intercept' | 'reverse' | undefined
  /** Regions of the settings that an address is in. Absent: none is drawn. */
  regionsOf?(address: string): readonly string[]
  /** What the budgets of the chain still allow, where policy asks (`Needs.left`). */
  readonly left?: BudgetLeft | undefined
  /** Earlier calls of the task, where policy asks (`Needs.past`). Absent: not known, and what asks for them is refused. */
  readonly past?: Past | undefined
  /** Values under the names of the service file, where policy asks (`Needs.params`). */
  readonly params?: Readonly<Record<string, ParameterValue>> | undefined
}

export type ParameterValue = string | number | boolean | readonly string[]

/** The least that is left at any level of the chain; absent members: nothing counts it. */
export interface BudgetLeft {
  readonly calls?: number
  readonly bytes?: number
}

/** Counts of the calls of a task so far, those of all its grants: field (`protocol/past.ts`) → how many. */
export type Past = Readonly<Record<string, number>>

/** What policies on one operation look at that is not had for nothing. */
export interface Needs {
  readonly params: boolean
  /** Of the parameters some are in the JSON body, which has to be read whole first. */
  readonly body: boolean
  readonly left: boolean
  /** The request has to be whole before it is decided: what is sent later could come from what a later call reads. */
  readonly past: boolean
}

/** Where it is known from. */
export interface Facts {
  /** Undefined: calls of the task were not counted from its first one on, so nobody knows. @throws {GatewayError} `store_unavailable` */
  past(grant: Grant): Past | undefined | Promise<Past | undefined>
  /** Of the entries that a call would spend from. @throws {GatewayError} `store_unavailable` */
  left(grant: Grant, levels: readonly Level[]): BudgetLeft | Promise<BudgetLeft>
}

export const NO_NEEDS: Needs = Object.freeze({ params: false, body: false, left: false, past: false })

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
  /** The entry of each grant of the chain that allows this, root first; empty when none of them keeps a budget. */
  readonly levels: readonly Level[]
  /** What of the task's past it rests on: the call is counted only while that is still so. Absent: on nothing. */
  readonly seen?: Past
  /** What policy read of the request, for the record, where `obligations.log` asks for it. */
  readonly params?: Ask['params']
  /** On `deny`: what would be allowed in its place, for the agent. */
  readonly instead?: Advice['instead']
}

/** What a call that lasts was asked and decided on, to decide again. */
export interface Standing {
  readonly ask: Ask
  readonly decision: Decision
}

/** A clean allow. Whoever lets something happen on one takes an approval, where it asks for that, as well. */
export function isAllowed({ effect, errors }: Pick<Decision, 'effect' | 'errors'>): boolean {
  return effect === 'allow' && errors.length === 0
}

/** By policy or by a constraint of the grant: the credential serves this call alone. */
export function isSingleUse({ obligations, levels }: Pick<Decision, 'obligations' | 'levels'>): boolean {
  return obligations.singleUse || levels.some(({ constraints }) => constraints?.single_use === true)
}
