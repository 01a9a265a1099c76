/**
 * What grants need to remember: which handle stands for which grant, what has ended, how much of a budget is spent, which
 * tasks still live. Variants: `store-sqlite.ts` (one process) and `store-redis.ts` (replicas). `test/conformance/store.ts`
 * runs on both.
 */
import type { Past } from '../../protocol/decision.ts'
import { GatewayError } from '../../protocol/problem.ts'

/** A variant that can answer at once does, so that a request on an embedded gateway waits for no promise. */
export type Eventual<T> = T | Promise<T>

/** A grant at rest. The store finds it by id, task or handle and understands nothing else of it. */
export interface StoredGrant {
  readonly tenant: string
  /** `jti` */
  readonly id: string
  readonly task: string
  /** base64url SHA-256 of the handle; undefined for a grant that has none, because it is bound to a key. */
  readonly handleDigest: string | undefined
  /** The grant with its seal (`record.ts`). */
  readonly body: string
  /** Epoch seconds. */
  readonly expiresAt: number
  /** Names whose end ends this grant: its own id, every ancestor's, its task and step (`record.ts`, `marksOf`). */
  readonly marks: readonly string[]
  /** Id of the grant right above. */
  readonly parent?: string
}

/** A task at rest. */
export interface StoredTask {
  readonly tenant: string
  readonly id: string
  /** The task with its seal (`record.ts`). */
  readonly body: string
  /** Every change is of a version, so that of two at once exactly one is made. */
  readonly version: number
  /** Epoch seconds; not before the expiry of any of its grants. */
  readonly expiresAt: number
  /** Heartbeats were promised. */
  readonly watched: boolean
  /** None of its grants is good for anything until it is resumed. */
  readonly isSuspended: boolean
}

export interface GrantState {
  /** Why it ended, by the first of its marks that has; undefined while it lives. */
  readonly ended: string | undefined
  /** Its task is suspended. */
  readonly isSuspended: boolean
  /** Version of the orders of its tenant in the moment of the answer; absent: there are none, or this process gives them all. */
  readonly orders?: number
}

/** An order that is in force for a whole tenant (`order.ts`), at rest. */
export interface StoredOrder {
  /** What it is about, as a keyed hash: the newest order about it takes the place of the one before. */
  readonly about: string
  /** The order with its seal. */
  readonly body: string
}

export interface StoredOrders {
  /** Grows with every change; 0: there never was one. */
  readonly version: number
  readonly orders: readonly StoredOrder[]
}

/** Where orders are kept. */
export interface OrderShelf {
  orders(tenant: string): Eventual<StoredOrders>
  /**
   * @param o.expected version that is replaced. @param o.version greater.
   * @returns false when another version is there; then nothing is changed.
   */
  putOrder(
    tenant: string,
    order: StoredOrder,
    o: { readonly expected: number; readonly version: number },
  ): Eventual<boolean>
  /**
   * Nobody has to know of these any more.
   * @param expected version at which they were read; where another is there, one of them may be new, and nothing is forgotten.
   */
  forgetOrders(tenant: string, about: readonly string[], expected: number): Eventual<void>
}

export interface Standing extends GrantState {
  readonly stored: StoredGrant
}

export interface KnownTask extends StoredTask {
  /** Why it ended; undefined while it lives. */
  readonly ended: string | undefined
}

/** So much of a total. `by: 0` charges nothing and asks whether anything is left. */
export interface CountCharge {
  /** Unique within the tenant: grant, entry and kind of budget (`budget.ts`). */
  readonly name: string
  readonly kind: 'count'
  readonly limit: number
  readonly by: number
  /** Epoch seconds; the count is kept at least until then, whoever charges last. */
  readonly untilS: number
}

/**
 * One call. At most `n` fit into any `perS` seconds, exactly: a call fits when the n-th call before it is at least `perS`
 * old. A leaky bucket (GCRA) would let up to 2n-1 through, n at once and n-1 while it drains. Costs n times at rest.
 */
export interface RateCharge {
  readonly name: string
  readonly kind: 'rate'
  readonly n: number
  readonly perS: number
  readonly untilS: number
}

/**
 * One call of a task, counted in the fields of `protocol/past.ts`. It fits while no field of `seen` counts more than it says: then
 * nothing has happened that the decision does not know of.
 */
export interface PastCharge {
  readonly name: string
  readonly kind: 'past'
  readonly plain: readonly string[]
  /** Each counts in `d` too when it is new. */
  readonly kinds: readonly string[]
  readonly seen: Past
  readonly untilS: number
}

export type Charge = CountCharge | RateCharge | PastCharge

/** Seconds that the dead are remembered, so that a bearer is told that a grant expired or ended, not that it is unknown. */
export const REMEMBER_S = 3600

/** Every method may throw {GatewayError} `store_unavailable`; what it was asked to do may then have happened or not. */
export interface GrantStore extends OrderShelf {
  /**
   * Milliseconds for which an answer may be relied on. Infinity when this process makes every change itself, and so knows of
   * it; otherwise the time within which the end of a grant must be seen everywhere.
   */
  readonly trustMs: number
  /** @returns false when the id is known already; then nothing is changed. */
  create(stored: StoredGrant): Eventual<boolean>
  byHandle(tenant: string, handleDigest: string): Eventual<Standing | undefined>
  byId(tenant: string, id: string): Eventual<Standing | undefined>
  /** Of many at once, in their order; undefined for one that is not known. */
  states(tenant: string, ids: readonly string[]): Eventual<readonly (GrantState | undefined)[]>
  /**
   * End a mark for good, and every grant that carries it.
   * @param o.untilS epoch seconds; not before the expiry of any grant that carries the mark.
   * @returns whether it was alive: of any number at once, exactly one gets true.
   */
  end(tenant: string, mark: string, o: { readonly reason: string; readonly untilS: number }): Eventual<boolean>
  /**
   * @param expected the version that it replaces; undefined for a new task.
   * @returns false when another version is there, or the task has ended; then nothing is changed.
   */
  saveTask(task: StoredTask, expected: number | undefined): Eventual<boolean>
  task(tenant: string, id: string): Eventual<KnownTask | undefined>
  /** Living tasks, newest first. */
  tasks(tenant: string): Eventual<readonly StoredTask[]>
  /** Living grants of a task, oldest first. */
  grantsOf(tenant: string, task: string): Eventual<readonly StoredGrant[]>
  /** Charge all or nothing, in one step over all replicas. @returns -1, or the index of the first charge that does not fit. */
  spend(tenant: string, charges: readonly Charge[]): Eventual<number>
  /** Charge what has happened already, fit or not. `by: 0` keeps the count until `untilS`. */
  add(tenant: string, charges: readonly CountCharge[]): Eventual<void>
  /** What would still fit now, never negative. */
  left(tenant: string, charge: CountCharge | RateCharge): Eventual<number>
  /** What a `PastCharge` of this name has counted so far. */
  past(tenant: string, name: string): Eventual<Past>
  /** @returns true the first time that this name is given before `untilMs` (epoch ms): what a replay cache asks. */
  once(tenant: string, name: string, untilMs: number): Eventual<boolean>
  /** A sign of life. Nothing happens unless the task promised heartbeats and lives. */
  beat(tenant: string, task: string): Eventual<void>
  /** Tasks silent for longer than `silentMs`. Each is given to one caller; again, to anyone, if still there after as long. */
  overdue(silentMs: number): Eventual<readonly StoredTask[]>
  /** Version of the orders, as `orders` gives it. */
  ordersVersion(tenant: string): Eventual<number>
  /**
   * Hear of changes by others as soon as they are made: the mark that was ended or suspended, undefined for the orders. A hint, not
   * more: it may get lost, and anybody who can write to the store can give one. Absent: nobody else makes any.
   */
  onChange?(tenant: string, hear: (mark: string | undefined) => void): void
  close(): Eventual<void>
}

/** The refusal for a store that did not answer. What went wrong stays in the cause: it may name hosts and paths. */
export function storeUnavailable(cause: unknown): GatewayError {
  return new GatewayError(
    'store_unavailable',
    'The state of grants cannot be read or written now, so nothing is allowed on it. Try again shortly.',
    {
      cause,
    },
  )
}

/** A store that fails in any way is a store that cannot be relied on. */
export function ask<T>(question: () => Eventual<T>): Eventual<T> {
  try {
    const answer = question()
    return answer instanceof Promise ? answer.catch(refuse) : answer
  } catch (cause) {
    return refuse(cause)
  }
}

function refuse(cause: unknown): never {
  throw cause instanceof GatewayError ? cause : storeUnavailable(cause)
}
