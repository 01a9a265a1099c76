/** Requests of agents for more access, which a human edits, grants or denies; a refusal says how to make one. */
import type { Decider } from './approval.ts'
import type { Agent, Grant, Human, LineageStep, Task } from './grant.ts'

/** What is wanted, as bodies that ask for grants spell it. */
export interface Wanted {
  readonly scope?: string
  readonly authorization_details?: readonly object[]
  /** Seconds. */
  readonly ttl_s?: number
}

/**
 * `granted`: the agent may fetch its grant. `fetched`: it did. `expired`: nobody decided, or fetched, in time.
 */
export type AccessState = 'pending' | 'granted' | 'denied' | 'fetched' | 'expired'

/** Times are epoch seconds. */
export interface AccessView {
  readonly id: string
  readonly tenant: string
  readonly state: AccessState
  /** What would be, or was, given: as asked for, or as a human edited it. */
  readonly wanted: Wanted
  /** What the agent asked for, where a human changed it. */
  readonly asked?: Wanted
  readonly agent: Agent
  readonly isAttested: boolean
  readonly human: Pick<Human, 'iss' | 'sub'>
  readonly task: Pick<Task, 'id'>
  readonly grant: string
  readonly lineage: readonly LineageStep[]
  /** The agent's own words; nothing of it is verified. */
  readonly agentSays: { readonly reason: string; readonly intent: string; readonly event?: string }
  readonly decidedBy?: { readonly human: Pick<Human, 'iss' | 'sub'>; readonly at: number; readonly via: string }
  readonly createdAt: number
  /** Until when it can be decided, or the grant be fetched. */
  readonly expiresAt: number
}

/** What channels of humans work with. */
export interface AccessRequests {
  /** Those that wait, oldest first. */
  pending(): Promise<readonly AccessView[]>
  /** @throws {GatewayError} `approval_unknown` */
  get(id: string): Promise<AccessView>
  /** Undefined while this human may decide, otherwise why not. */
  hindrance(view: AccessView, human: Human): string | undefined
  /** Put something else in place of what was asked for. @throws {GatewayError} also for what can be granted by nobody. */
  edit(id: string, wanted: Wanted, by: Decider): Promise<AccessView>
  /**
   * Policy decides as on any grant that this human gives; the grant is made when its agent fetches it, and policy decides again.
   * @param seen what this human was shown. Default: what the agent asked for, or this human put in its place.
   * @throws {GatewayError} `approval_unknown`, `approver_refused`, `approval_closed`, `policy_denied`, …
   */
  grant(id: string, by: Decider, seen?: Wanted): Promise<AccessView>
  deny(id: string, by: Decider): Promise<AccessView>
}

/** What an agent asks, with the grant that it presents. */
export interface AccessAsk extends Wanted {
  readonly reason: string
  /** Id of the refused event, as its refusal has it (`instance`). */
  readonly event?: string
}

/** What holders of grants work with. Others learn nothing. */
export interface AskingForAccess {
  ask(holder: Grant, asked: AccessAsk): Promise<AccessView>
  /** @throws {GatewayError} `approval_unknown` */
  ofHolder(holder: Grant, id: string): Promise<AccessView>
}
