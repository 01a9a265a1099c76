/**
 * Where approvals are kept. A store knows no more than it needs to find one: what it is about is sealed. Every change is of a
 * version, so that of two at once, on whichever replicas, exactly one is made; taking up an approval is such a change.
 */
import { GatewayError } from '../protocol/problem.ts'
import type { ApprovalRecord } from './record.ts'

/** Milliseconds since the epoch. */
export interface StoredApproval {
  readonly tenant: string
  readonly id: string
  /** What it is found by when the same request comes again: its fingerprint. */
  readonly slot: string
  /** Of whom only so many may be pending: tenant-wide id of the agent. */
  readonly agent: string
  readonly body: string
  readonly version: number
  readonly isPending: boolean
  /** Until when it is in its slot; 0: no longer. Of a pending one, until when it can be decided. */
  readonly untilMs: number
  /** Until when it is known at all. */
  readonly keepMs: number
}

type Eventual<T> = T | Promise<T>

/** What became of one that was to be added: it is there, another is in its slot, or its agent has too many. */
export type Added = { readonly isNew: true } | { readonly first: StoredApproval } | 'full'

/** Every method may throw {GatewayError} `store_unavailable`; what it was asked to do may then have happened or not. */
export interface ApprovalStore {
  /** Milliseconds after which somebody who waits looks again by itself; undefined: this process makes every change. */
  readonly lookMs: number | undefined
  /** @param most pending ones of its agent, this one included. */
  add(one: StoredApproval, most: number): Eventual<Added>
  /** Pending ones of an agent whose time is not over. */
  count(tenant: string, agent: string): Eventual<number>
  inSlot(tenant: string, slot: string): Eventual<StoredApproval | undefined>
  byId(tenant: string, id: string): Eventual<StoredApproval | undefined>
  /** @returns false when it has another version than `one.version - 1`, or is gone; then nothing is changed. */
  change(one: StoredApproval): Eventual<boolean>
  /** Oldest first. Those whose time is over may be among them. */
  pending(tenant: string): Eventual<readonly StoredApproval[]>
  /** Those whose time ran out while they were pending. Each is given to one caller. */
  lapsed(tenant: string): Eventual<readonly StoredApproval[]>
  /** Told of every change, also by other replicas; one may get lost. @returns stops. */
  onChange(told: (tenant: string, id: string) => void): () => void
  close(): Eventual<void>
}

/** How long the dead are remembered, so that who asks is told what became of them. */
const REMEMBER_MS = 3_600_000

/** What a store needs to know of a record. */
export function storable(record: ApprovalRecord, body: string): StoredApproval {
  const { tenant, id, fingerprint, version, state, untilMs, facts } = record
  const isGone = state === 'used' || state === 'withdrawn'
  return {
    ...{ tenant, id, body, version },
    slot: fingerprint,
    agent: facts.agent.id,
    isPending: state === 'pending',
    untilMs: isGone ? 0 : untilMs,
    keepMs: untilMs + REMEMBER_MS,
  }
}

export function storeUnavailable(cause: unknown): GatewayError {
  return new GatewayError(
    'store_unavailable',
    'Approvals cannot be read or written now, so nothing is allowed on one. Try again shortly.',
    { cause },
  )
}
