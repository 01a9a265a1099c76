/** What the lease room is built with. */
import type { KeyObject } from 'node:crypto'
import type { Clock } from '../protocol/clock.ts'
import type { Grant } from '../protocol/grant.ts'
import type { Provider } from '../provider/provider.ts'
import type { LeaseCache } from './cache.ts'
import type { RecordLease } from './record.ts'
import type { SetBacks } from './set-back.ts'
import type { TurnLimits } from './turns.ts'

export interface LeaseTiming {
  /** Milliseconds that a provider may take. Default 10,000. */
  readonly issueTimeoutMs: number
  /** Milliseconds after which a replica that died while it issued holds up nobody any more. Default 2,000. */
  readonly lockMs: number
}

export interface LeaseRooms {
  /** By `Service.credential`. */
  readonly providers: ReadonlyMap<string, Provider>
  /** Name of a credential → name of the one that is asked for while its issuer is away. No cycle. Default none. */
  readonly fallbacks?: ReadonlyMap<string, string>
  readonly cache: LeaseCache
  /** A credential came back in the answer to a call of this grant; where it can be ended it is. Once a request. Must not throw. */
  onLeak?(grant: Grant): void
  /** @throws {GatewayError} `access_blocked` for a credential of the settings that nobody may use at present. */
  requireOpen?(credential: string): void
  /** 32-byte secret key, the same on all replicas. */
  readonly sealKey: KeyObject
  readonly clock: Clock
  /** Default: one of its own. */
  readonly setBacks?: SetBacks
  /** Resolves when the entry is durable. */
  readonly record: RecordLease
  readonly timing?: Partial<LeaseTiming>
  /** Requests that one issuer gets at once. Default 32, of which 8 renewals. */
  readonly limits?: Partial<TurnLimits>
  /** File of the credentials that this process has to revoke. Default: in memory, and forgotten with the process. */
  readonly custodyFile?: string
  /** In [0, 1). Default `Math.random`. */
  readonly random?: () => number
}
