/**
 * The file of credentials that this process has to end: written when one was issued, so that what a killed process held is revoked by
 * the next one, and before a revocation is first tried, so that it is tried until it succeeds. Values are sealed. A commit survives the
 * end of the process at once, and a power cut as soon as the disk has it, milliseconds later: no call waits for that.
 */
import { chmodSync, closeSync, existsSync, openSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { DatabaseSync } from 'node:sqlite'

const SCHEMA_VERSION = 1

const SCHEMA = `
  CREATE TABLE credentials (
    grant_id TEXT NOT NULL, cred_id TEXT NOT NULL,
    value BLOB NOT NULL, -- sealed: the credential
    note BLOB NOT NULL, -- sealed: under which grant it is recorded
    expires_ms REAL NOT NULL,
    shared_until_ms REAL, -- null: no other process has it
    reason TEXT, -- null: in use
    attempts INTEGER NOT NULL, due_ms REAL NOT NULL,
    PRIMARY KEY (grant_id, cred_id)
  ) STRICT;
  PRAGMA user_version = ${SCHEMA_VERSION};`

export interface CustodyRow {
  readonly grant: string
  readonly credentialId: string
  readonly value: Uint8Array
  readonly note: Uint8Array
  /** Of the credential itself. Milliseconds since the epoch, as all times here. */
  readonly expiresMs: number
  /** Until when the shared cache has it, and whoever ends the grant finds it there. */
  readonly sharedUntilMs: number | null
  /** Why it is to be ended; null: it is in use. */
  readonly reason: string | null
  /** Failed ones. */
  readonly attempts: number
  readonly dueMs: number
}

export interface Custody {
  put(row: CustodyRow): void
  share(grant: string, credentialId: string, untilMs: number): void
  drop(grant: string, credentialId: string): void
  all(): readonly CustodyRow[]
  /** Those in use under a grant. */
  inUse(grant: string): readonly CustodyRow[]
  /** What was in use and has ended by itself needs no further thought. */
  sweep(nowMs: number): void
  close(): void
}

/**
 * @param path created 0600 when the first row is written; undefined: kept in memory, and gone with the process.
 * @param sync makes a file's bytes durable.
 * @throws {Error} naming the file when it is no database or of a later version.
 */
export function openCustody(path: string | undefined, sync = syncFile): Custody {
  let opened: ReturnType<typeof prepare> | undefined
  let isClosed = false
  const file = () => {
    if (isClosed) throw new Error('the gateway is shutting down')
    opened ??= prepare(openFile(path))
    return opened
  }
  const flush = path === undefined ? () => {} : flushing(() => sync(`${path}-wal`))
  const known = () => opened ?? (path !== undefined && existsSync(path) ? file() : undefined)
  return {
    put({ grant, credentialId, value, note, expiresMs, sharedUntilMs, reason, attempts, dueMs }) {
      file().put.run(grant, credentialId, value, note, expiresMs, sharedUntilMs, reason, attempts, dueMs)
      flush()
    },
    share: (grant, credentialId, untilMs) => void known()?.share.run(untilMs, grant, credentialId),
    drop: (grant, credentialId) => void known()?.drop.run(grant, credentialId),
    all: () => (known()?.all.all() ?? []).map(rowOf),
    inUse: (grant) => (known()?.inUse.all(grant) ?? []).map(rowOf),
    sweep: (nowMs) => void known()?.sweep.run(nowMs),
    close() {
      isClosed = true
      opened?.database.close()
      opened = undefined
    },
  }
}

/** One at a time; what is written meanwhile is for the next one. */
function flushing(sync: () => Promise<void>): () => void {
  let isUnderway = false
  let isWanted = false
  const run = async () => {
    isUnderway = true
    while (isWanted) {
      isWanted = false
      await sync().catch(() => undefined) // the system writes it later
    }
    isUnderway = false
  }
  return () => {
    isWanted = true
    if (!isUnderway) void run()
  }
}

async function syncFile(path: string): Promise<void> {
  await using file = await open(path, 'r')
  await file.datasync()
}

function openFile(path: string | undefined): DatabaseSync {
  if (path === undefined) return created(new DatabaseSync(':memory:'))
  // Sealed or not, nobody else has business with it; SQLite gives its companions the same mode.
  if (!existsSync(path)) closeSync(openSync(path, 'a', 0o600))
  chmodSync(path, 0o600)
  try {
    const database = new DatabaseSync(path)
    database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 1000')
    return created(database)
  } catch (cause) {
    throw new Error(
      `The file of credentials to revoke cannot be used: ${path} (${(cause as Error).message}). Move it away: what is in it then ends by expiring.`,
      { cause },
    )
  }
}

function created(database: DatabaseSync): DatabaseSync {
  const { user_version: version } = database.prepare('PRAGMA user_version').get() as { user_version: number }
  if (version === 0) database.exec(SCHEMA)
  else if (version !== SCHEMA_VERSION) throw new Error(`it is of version ${version}`)
  return database
}

function prepare(database: DatabaseSync) {
  const prepared = (sql: string) => database.prepare(sql)
  return {
    database,
    put: prepared('INSERT OR REPLACE INTO credentials VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)'),
    share: prepared('UPDATE credentials SET shared_until_ms = ? WHERE grant_id = ? AND cred_id = ?'),
    drop: prepared('DELETE FROM credentials WHERE grant_id = ? AND cred_id = ?'),
    all: prepared('SELECT * FROM credentials'),
    inUse: prepared('SELECT * FROM credentials WHERE grant_id = ? AND reason IS NULL'),
    sweep: prepared('DELETE FROM credentials WHERE reason IS NULL AND expires_ms <= ?'),
  }
}

function rowOf(row: Record<string, unknown>): CustodyRow {
  return {
    grant: row.grant_id as string,
    credentialId: row.cred_id as string,
    value: row.value as Uint8Array,
    note: row.note as Uint8Array,
    expiresMs: row.expires_ms as number,
    sharedUntilMs: row.shared_until_ms as number | null,
    reason: row.reason as string | null,
    attempts: row.attempts as number,
    dueMs: row.due_ms as number,
  }
}
