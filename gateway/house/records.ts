/** The part of the composition root that keeps the index of the log, and says who may ask it. */
import { join } from 'node:path'
import type { Audit } from '../audit/audit.ts'
import { readTokenDigest } from '../provider/oauth/token-digest.ts'
import type { ReadSecret } from '../provider/reference.ts'
import type { Reading } from '../records/query.ts'
import { openRecordsThread, type RecordsThread } from '../records/records-thread.ts'
import { personalDirIn } from '../settings/data-directory.ts'
import type { Keys } from '../settings/keys.ts'
import type { Settings } from '../settings.ts'

export interface HouseRecords {
  /** Undefined: the settings want no index. */
  readonly records: RecordsThread | undefined
  /** Who may read over TCP: name → SHA-256 of the token. */
  readonly readers: ReadonlyMap<string, Buffer>
  recordReading(reading: Reading): Promise<void>
  close(): Promise<void>
}

interface RecordsParts {
  readonly keys: Keys
  readonly audit: Pick<Audit, 'administer'>
  readonly readSecret: ReadSecret
}

/** @throws {Error} naming the reader whose token cannot be read. */
export async function openHouseRecords(
  settings: Settings,
  { keys, audit, readSecret }: RecordsParts,
): Promise<HouseRecords> {
  const { origin, index, personal } = settings.audit
  const readers = await readersIn(settings, readSecret)
  const records = index ? openRecordsThread({ ...planOf(settings, keys), warn }) : undefined
  return {
    records,
    readers,
    async recordReading({ reader, address, asked, found }) {
      const filter = personal === 'sealed' ? withoutNames(asked) : asked
      const facts = { log: origin, reader, address, filter, found }
      await audit.administer('admin.records_read', { tenant: settings.tenant }, facts)
    },
    close: async () => records?.close(),
  }
}

function planOf({ audit, dataDir, keysDir, postgres }: Settings, keys: Keys) {
  return {
    dir: join(dataDir, 'audit'),
    origin: audit.origin,
    at: postgres ? { url: postgres.url } : { path: join(dataDir, 'index.sqlite') },
    personal: { dir: personalDirIn(keysDir), key: keys.personal },
  }
}

async function readersIn({ audit }: Settings, readSecret: ReadSecret): Promise<ReadonlyMap<string, Buffer>> {
  const digests = Object.entries(audit.readers).map(async ([name, { token }]) => {
    try {
      return [name, await readTokenDigest(token, readSecret)] as const
    } catch (cause) {
      throw new Error(`audit.readers.${name}: ${(cause as Error).message}`, { cause })
    }
  })
  return new Map(await Promise.all(digests))
}

/** What was asked may name the human whom somebody wants to be forgotten. */
function withoutNames(asked: Reading['asked']): Reading['asked'] {
  const named = new Set(['human', 'ancestor', 'text'])
  return Object.fromEntries(
    Object.entries(asked).map(([name, value]) => [name, named.has(name) ? '(not kept)' : value]),
  )
}

function warn(text: string): void {
  process.stderr.write(`keyless: warning: ${text}\n`)
}
