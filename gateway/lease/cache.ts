/**
 * The shared place for sealed credentials: what every cache offers. It is only a cache: a value that is missing, late or
 * lost costs one more request to the issuer, and a value is never believed before its seal has opened.
 */
import { hash } from 'node:crypto'

/** Where a value lives: `id` by authority (key.ts), grouped by grant so that ending a grant removes all of its values. */
export interface LeaseKey {
  readonly id: string
  /** Grant id (`jti`). */
  readonly grant: string
}

export interface Stored {
  readonly key: LeaseKey
  readonly value: Buffer
}

/**
 * `stored`; `superseded`: somebody else was given the lock since, or a value is already there, and nothing was written;
 * `ended`: the grant was purged, so nothing may be kept under it.
 */
export type StoreOutcome = 'stored' | 'superseded' | 'ended'

export interface StoreTerms {
  /** Milliseconds until the value is dropped, at least 1. */
  readonly ttlMs: number
  /** From `lock`: written unless the lock was given to somebody else since. Null: written only where nothing is. */
  readonly fence: number | null
}

/** Every method rejects with `store_unavailable` within a bounded time when the store cannot be reached. */
export interface LeaseCache {
  /** Whether what is in it is still there when this process has ended, and other replicas see it. */
  readonly isShared: boolean
  get(key: LeaseKey): Promise<Buffer | undefined>
  set(key: LeaseKey, value: Buffer, terms: StoreTerms): Promise<StoreOutcome>
  /** Compare and delete: removes the value only if it is still exactly this one. */
  remove(key: LeaseKey, value: Buffer): Promise<boolean>
  /** Tells every replica, this one included, to stop using a credential; the value is removed as by `remove`. */
  burn(key: LeaseKey, value: Buffer | undefined, credentialId: string): Promise<void>
  /** Called for every `burn` with grant id and credential id. */
  onBurn(listener: (grant: string, credentialId: string) => void): void
  /** @returns a fencing token that grows with every holder, or null while somebody else holds the lock. */
  lock(key: LeaseKey, ttlMs: number): Promise<number | null>
  /** Keeps the lock for as long again, if this token still holds it. */
  extend(key: LeaseKey, fence: number, ttlMs: number): Promise<void>
  /** Gives the lock back if this token still holds it. */
  unlock(key: LeaseKey, fence: number): Promise<void>
  /** Everything of a grant, left where it is. */
  list(grant: string): Promise<readonly Stored[]>
  /** Removes everything of a grant and refuses new values for it for an hour, the ceiling of a grant's life. */
  purge(grant: string): Promise<readonly Stored[]>
  /** Called with the grant id when any replica, this one included, purges a grant, and with `digestOf` each value that was removed. */
  onPurge(listener: (grant: string, removed: ReadonlySet<string>) => void): void
  close(): Promise<void>
}

/** Names a sealed value to other replicas: SHA-1 is what scripts of Redis have, and nobody gains by two values of one name. */
export function digestOf(value: Buffer): string {
  return hash('sha1', value)
}

/** Milliseconds for which a purged grant stays closed: no grant lives longer. */
export const ENDED_MS = 3_600_000
