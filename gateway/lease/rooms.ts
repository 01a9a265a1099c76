/** What the lease room is built with. */
import type { KeyObject } from 'node:crypto'
import type { Clock } from '../protocol/clock.ts'
import type { Provider } from '../provider/provider.ts'
import type { LeaseCache } from './cache.ts'
import type { RecordLease } from './issue.ts'

export interface LeaseTiming {
  /** Milliseconds that a provider may take. Default 10,000. */
  readonly issueTimeoutMs: number
  /** Milliseconds to wait for another replica's issue before issuing as well. Default 2,000. */
  readonly patienceMs: number
}

export interface LeaseRooms {
  /** By `Service.credential`. */
  readonly providers: ReadonlyMap<string, Provider>
  readonly cache: LeaseCache
  /** 32-byte secret key, the same on all replicas. */
  readonly sealKey: KeyObject
  readonly clock: Clock
  /** Resolves when the entry is durable. */
  readonly record: RecordLease
  readonly timing?: Partial<LeaseTiming>
}
