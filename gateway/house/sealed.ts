/** The part of the composition root that keeps secrets: where the sealed store is, and how references of the settings are read. */
import { join } from 'node:path'
import type { Redis } from 'ioredis'
import type { Clock } from '../protocol/clock.ts'
import { type ReadSecret, readSecret } from '../provider/reference.ts'
import { createSealed, resealAll, type Sealed, type SealedRows } from '../provider/sealed/sealed.ts'
import { advanceSealingKey, openSealingKeys, removeSealingKeys } from '../settings/keys-sealed.ts'
import type { Settings } from '../settings.ts'

export interface HouseSealed {
  readonly sealed: Sealed
  readonly readSecret: ReadSecret
  /** Seal everything anew under a new key. @returns how many values. */
  reseal(): Promise<number>
  close(): Promise<void>
}

interface SealedParts {
  readonly redis: Redis | undefined
  readonly clock: Clock
}

/** Nothing is opened, and no file made, before a value is asked for. */
export function openHouseSealed(settings: Settings, parts: SealedParts): HouseSealed {
  const { keysDir, tenant, baseDir } = settings
  let opening: Promise<SealedRows> | undefined
  const rows = lazily(() => {
    opening ??= openRows(settings, parts)
    return opening
  })
  const keys = openSealingKeys(keysDir)
  const sealed = createSealed({ rows, keys, tenant })
  const places = { baseDir, sealed: async (name: string) => (await sealed.read(name))?.secret }
  return {
    sealed,
    readSecret: (reference, signal) => readSecret(reference, places, signal),
    async reseal() {
      const current = await advanceSealingKey(keysDir)
      const count = await resealAll(rows, keys)
      // Everything opens with the new key. A crash before this leaves a key that is of no use: the next change removes it.
      await removeSealingKeys(keysDir, current)
      return count
    },
    close: async () => (await opening)?.close(),
  }
}

/** Of one process beside its log; of replicas, which are those with a Redis, in Postgres where there is one: it loses nothing. */
async function openRows({ dataDir, postgres }: Settings, { redis, clock }: SealedParts): Promise<SealedRows> {
  if (redis === undefined) {
    const { openSqliteSealed } = await import('../provider/sealed/sqlite.ts')
    return openSqliteSealed({ path: join(dataDir, 'sealed.sqlite'), clock })
  }
  if (postgres !== undefined) return (await import('../provider/sealed/postgres.ts')).openPostgresSealed(postgres.url)
  return (await import('../provider/sealed/redis.ts')).openRedisSealed({ redis })
}

function lazily(open: () => Promise<SealedRows>): SealedRows {
  return {
    read: async (place) => (await open()).read(place),
    write: async (place, value, expected) => (await open()).write(place, value, expected),
    claim: async (place, forMs) => (await open()).claim(place, forMs),
    places: async () => (await open()).places(),
    close: async () => {},
  }
}
