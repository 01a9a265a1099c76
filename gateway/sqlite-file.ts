/** SQLite files that only their owner reads and that survive a power cut: how one is opened and brought up to date, and how a change happens wholly or not at all. */
import { chmodSync, closeSync, openSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'

/**
 * Made 0600 if absent; SQLite gives its companions (-wal, -shm) the same mode. Every change is fsynced.
 * @param named as messages call it, such as `store of grants`.
 * @param steps version of the file (0: it is new) → what makes it the newest one, whose number is how many steps there are.
 * @throws {Error} naming the file when it is no database, or of a later version.
 */
export function openSqliteFile(path: string, named: string, steps: readonly string[]): DatabaseSync {
  const newest = steps.length
  closeSync(openSync(path, 'a', 0o600))
  chmodSync(path, 0o600) // it may be older than this rule, or have been copied here
  const database = new DatabaseSync(path, { timeout: 2_000 })
  try {
    database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF;')
    const { user_version: version } = database.prepare('PRAGMA user_version').get() as { user_version: number }
    if (version > newest) {
      throw new Error(
        `it was written by a newer gateway (schema ${version}, this one knows ${newest}); start that version, or move the file away`,
      )
    }
    // One transaction: after a crash in between, the file is as it was.
    if (version < newest) database.exec(`BEGIN IMMEDIATE; ${steps[version]} PRAGMA user_version = ${newest}; COMMIT;`)
    return database
  } catch (cause) {
    database.close()
    throw new Error(`The ${named} ${path} cannot be used: ${(cause as Error).message}`, { cause })
  }
}

/** A crash in between leaves nothing of it; the lock is taken first, so that nothing read in it can change. */
export function transact<T>(database: DatabaseSync, work: () => T): T {
  database.exec('BEGIN IMMEDIATE')
  try {
    const result = work()
    database.exec('COMMIT')
    return result
  } catch (cause) {
    if (database.isTransaction) database.exec('ROLLBACK')
    throw cause
  }
}
