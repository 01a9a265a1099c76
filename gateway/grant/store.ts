/**
 * What grants need to remember: which handle stands for which grant, what has ended, which single uses are spent, who still
 * lives. Variants: `store-sqlite.ts` (one process) and `store-redis.ts` (replicas). `test/conformance/store.ts` runs on both.
 */
import { GatewayError } from '../protocol/problem.ts'

/** A variant that can answer at once does, so that a request on an embedded gateway waits for no promise. */
export type Eventual<T> = T | Promise<T>

/** A grant at rest. The store finds it by id, task or handle and understands nothing else of it. */
export interface StoredGrant {
  readonly tenant: string
  /** `jti` */
  readonly id: string
  readonly task: string
  /** base64url SHA-256 of the handle. */
  readonly handleDigest: string
  /** The grant with its seal (`record.ts`). */
  readonly body: string
  /** Epoch seconds. */
  readonly expiresAt: number
  /** Heartbeats were promised. */
  readonly watched: boolean
}

export type GrantName = Pick<StoredGrant, 'tenant' | 'id'>

export interface Standing {
  readonly stored: StoredGrant
  /** Why the grant ended; undefined while it lives. */
  readonly ended: string | undefined
}

/** Seconds that a dead grant is remembered, so that its bearer is told that it expired or ended, not that it is unknown. */
export const REMEMBER_S = 3600

/** Every method may throw {GatewayError} `store_unavailable`; what it was asked to do may then have happened or not. */
export interface GrantStore {
  /**
   * Milliseconds for which an answer may be relied on. Infinity when this process makes every change itself, and so knows of
   * it; otherwise the time within which the end of a grant must be seen everywhere.
   */
  readonly trustMs: number
  create(stored: StoredGrant): Eventual<void>
  byHandle(tenant: string, handleDigest: string): Eventual<Standing | undefined>
  byId(tenant: string, id: string): Eventual<Standing | undefined>
  byTask(tenant: string, task: string): Eventual<Standing | undefined>
  /** End it for good. @returns whether it was alive: of two at once, exactly one gets true. */
  end(grant: GrantName & { readonly expiresAt: number }, reason: string): Eventual<boolean>
  /** Spend the one use of an operation. @returns whether it was there: of any number at once, exactly one gets true. */
  spend(tenant: string, id: string, operation: string, expiresAt: number): Eventual<boolean>
  /** A sign of life. Nothing happens unless heartbeats were promised. */
  beat(grant: GrantName): Eventual<void>
  /** Grants silent for longer than `silentMs`. Each is given to one caller; again, to anyone, if still there after as long. */
  overdue(silentMs: number): Eventual<readonly StoredGrant[]>
  /** Living grants of a tenant, newest first. */
  live(tenant: string): Eventual<readonly StoredGrant[]>
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
