/** The part of the composition root that gets credentials: the providers of the settings, the leases around them, and what is published for both. */
import { join } from 'node:path'
import type { Redis } from 'ioredis'
import type { Audit } from '../audit/audit.ts'
import { createMemoryCache } from '../lease/cache-memory.ts'
import { createRedisCache } from '../lease/cache-redis.ts'
import { createLeases, type Leases } from '../lease/leases.ts'
import type { LeaseRooms } from '../lease/rooms.ts'
import type { Clock } from '../protocol/clock.ts'
import { createAssertions, type PublishedAssertions } from '../provider/assertions.ts'
import type { Provider } from '../provider/provider.ts'
import type { ReadSecret } from '../provider/reference.ts'
import { createProvider, type ProviderTools } from '../provider/registry.ts'
import type { Sealed } from '../provider/sealed/sealed.ts'
import { createVaultConnection } from '../provider/vault/connection.ts'
import { readingVault } from '../provider/vault/kv.ts'
import { fallbacksOf } from '../settings/fallback.ts'
import type { Keys } from '../settings/keys.ts'
import { certifyingIn } from '../settings/keys-client-ca.ts'
import type { Settings } from '../settings.ts'
import type { Upstream } from '../upstream/forward.ts'
import { type HouseConnect, openHouseConnect } from './connect.ts'

/** Whose leases: where they are shared and kept, and who records them. */
type LeaseParts = Required<Pick<LeaseRooms, 'cache' | 'custodyFile' | 'record'>>

export interface HouseCredentials {
  readonly leases: Leases
  /** The same credentials, leased apart from those of all others. */
  leasesApart(o: Omit<LeaseParts, 'cache'>): Leases
  readonly assertions: PublishedAssertions
  /** To be closed after the leases. */
  readonly connect: HouseConnect
}

export interface CredentialParts {
  readonly upstream: Upstream
  readonly redis: Redis | undefined
  readonly audit: Audit
  readonly keys: Keys
  readonly clock: Clock
  readonly readSecret: ReadSecret
  readonly sealed: Sealed
  readonly onLeak: NonNullable<LeaseRooms['onLeak']>
  readonly requireOpen: NonNullable<LeaseRooms['requireOpen']>
}

export function openHouseCredentials(settings: Settings, parts: CredentialParts): HouseCredentials {
  const { upstream, redis, audit, keys, clock, readSecret, sealed, onLeak, requireOpen } = parts
  const assertions = createAssertions(keys.assertions, `${settings.publicUrl}/assertions`, clock)
  const certifyClient = certifyingIn(settings.keysDir, clock)
  const outside = { fetchFor: upstream.fetchFor, clock, readSecret, assertions, certifyClient }
  const vault = settings.vault && createVaultConnection(settings.vault, outside)
  const reading = { ...outside, readSecret: readingVault(readSecret, vault) }
  const connect = openHouseConnect(settings, { ...reading, sealed, audit })
  const tools = { ...reading, vault, connections: connect.tools }
  const shared = {
    providers: buildProviders(settings, tools),
    fallbacks: fallbacksOf(settings.credentials),
    ...{ onLeak, requireOpen },
    sealKey: keys.lease,
    clock,
  }
  const lend = (parts: LeaseParts) => createLeases({ ...shared, ...parts })
  const leases = lend({
    custodyFile: join(settings.dataDir, 'credentials.sqlite'),
    cache: redis ? createRedisCache({ redis }) : createMemoryCache({ clock }),
    record: (kind, grant, fields) => audit.recordUnder(kind, grant, fields),
  })
  return { leases, leasesApart: (o) => lend({ ...o, cache: createMemoryCache({ clock }) }), assertions, connect }
}

/** Every credential in settings, as its provider. Providers reach the network only through the guarded dial. */
function buildProviders({ credentials }: Settings, tools: ProviderTools): ReadonlyMap<string, Provider> {
  return new Map(Object.entries(credentials).map(([name, config]) => [name, createProvider(config, tools, name)]))
}
