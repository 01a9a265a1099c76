/** The part of the composition root that the rest stands on: services and policies, keys, the log, and where what is shared or secret is kept. */
import { join } from 'node:path'
import type { Redis } from 'ioredis'
import { createMetrics } from '../control/records/metrics.ts'
import { openRedisStore } from '../grant/store/redis.ts'
import { openSqliteStore } from '../grant/store/sqlite.ts'
import type { GrantStore } from '../grant/store/store.ts'
import { authorityTerms, loadAuthority } from '../ingress/certificate.ts'
import { loadCatalogue } from '../policy/catalogue/catalogue.ts'
import { makePrivate, requireWritable } from '../private-file.ts'
import type { Clock } from '../protocol/clock.ts'
import type { FetchFor } from '../provider/provider.ts'
import { type Keys, loadKeys } from '../settings/keys.ts'
import type { Settings } from '../settings.ts'
import { openAudit, openHumans } from './audit.ts'
import { keepFresh } from './authority.ts'
import { openHousePolicy } from './policy.ts'
import { connectRedis } from './redis.ts'
import { openHouseSealed } from './sealed.ts'
import { openWitnesses } from './witness.ts'

/** What the house cannot know when it is built, because the doors open later. */
export interface Outlook {
  /** Whether dialling this address would reach the control door. */
  isControlAddress(address: string, port: number): boolean
}

interface GroundParts {
  /** Closes what is opened. */
  readonly opening: AsyncDisposableStack
  readonly clock: Clock
  readonly outlook: Outlook
  /** These agents are registered no more. */
  removed(agents: readonly string[]): void
  readonly fetchFor: FetchFor
}

export type Ground = Awaited<ReturnType<typeof openGround>>

/** `removed` and `fetchFor` are only called when the house stands. */
export async function openGround(settings: Settings, { opening, clock, outlook, removed, fetchFor }: GroundParts) {
  await makePrivate(settings.dataDir)
  await requireWritable(settings.dataDir)
  const { services, shippedServicesDir: shippedDir, baseDir } = settings
  const catalogue = await loadCatalogue({ services, shippedDir, baseDir })
  const policies = await openHousePolicy(settings, {
    ...{ catalogue, clock, removed, fetchFor },
    readSecret: (...args) => secrets.readSecret(...args),
  })
  const keys = await loadKeys(settings.keysDir, clock)
  const authority = await loadAuthority(settings.keysDir, clock, authorityTerms(settings.ca, catalogue.services))
  const record = await openRecord(settings, { opening, keys, clock, outlook })
  opening.defer(keepFresh(authority, record.audit, settings.tenant))
  const redis = settings.redis ? await connectRedis(settings.redis.url, settings.breakGlass === undefined) : undefined
  opening.defer(() => redis?.disconnect())
  const secrets = opening.adopt(openHouseSealed(settings, { redis, clock }), (room) => room.close())
  const store = opening.adopt(openStore(settings, redis, clock), async (room) => room.close())
  return { ...record, catalogue, policies, keys, authority, redis, secrets, store }
}

type RecordParts = Pick<GroundParts, 'opening' | 'clock' | 'outlook'> & { readonly keys: Keys }

/** The log, and who counts, seals and witnesses it. */
async function openRecord(settings: Settings, { opening, keys, clock, outlook }: RecordParts) {
  const { personal } = opening.use(await openHumans(settings, keys))
  const metrics = createMetrics(clock)
  const made = await openWitnesses(settings, clock, outlook.isControlAddress)
  const witnesses = opening.adopt(made, (room) => room.close())
  const parts = { keys, clock, personal, watcher: metrics.watcher }
  const audit = opening.adopt(await openAudit(settings, parts), (room) => room.close())
  await witnesses.begin(audit)
  return { audit, metrics, personal, witnesses }
}

/** Shared by the replicas through Redis; of one process, beside its log. */
function openStore(settings: Settings, redis: Redis | undefined, clock: Clock): GrantStore {
  if (redis !== undefined) return openRedisStore({ redis, clock })
  return openSqliteStore({ path: join(settings.dataDir, 'state.sqlite'), clock })
}
