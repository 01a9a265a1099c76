/**
 * The records in one SQLite file. Two connections: what is being written is seen by readers only when it is whole. Statements
 * run on the calling thread; the gateway calls from its records thread.
 */
import { chmodSync, closeSync, openSync, rmSync } from 'node:fs'
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import type { Database, SqlValue, Writer } from './database.ts'
import { INDEX_VERSION, schemaOf } from './tables.ts'

/** Milliseconds that a writer waits for another process, such as `keyless log find` beside a gateway. */
const BUSY_MS = 10_000

/** The index was made by another version, or is no sound database: remove it and make it again from the log. */
export class IndexUnusable extends Error {
  override readonly name = 'IndexUnusable'
}

/**
 * @param path file, made 0600 if absent (unless `readOnly`).
 * @throws {IndexUnusable} @throws what the file system says.
 */
export function openSqlite(path: string, o: { readonly readOnly?: boolean } = {}): Database {
  if (!o.readOnly) prepareFile(path)
  try {
    const reader = connect(path, true)
    if (o.readOnly) return databaseOf(reader, undefined)
    return databaseOf(reader, connect(path, false))
  } catch (cause) {
    throw translated(path, cause)
  }
}

/** Remove an index with its companions. */
export function removeSqlite(path: string): void {
  for (const suffix of ['-wal', '-shm', '']) rmSync(path + suffix, { force: true })
}

function prepareFile(path: string): void {
  closeSync(openSync(path, 'a', 0o600))
  chmodSync(path, 0o600) // it may be older than this rule
  let database: DatabaseSync | undefined
  try {
    database = connect(path, false)
    const { user_version: version } = database.prepare('PRAGMA user_version').get() as { user_version: number }
    if (version !== 0 && version !== INDEX_VERSION)
      throw new IndexUnusable(`the index ${path} was made by another version of Keyless`)
    // One transaction: after a crash in between there is nothing.
    database.exec(`BEGIN IMMEDIATE; ${schemaOf('sqlite').join(';')}; PRAGMA user_version = ${INDEX_VERSION}; COMMIT`)
  } catch (cause) {
    throw translated(path, cause)
  } finally {
    database?.close()
  }
}

function connect(path: string, readOnly: boolean): DatabaseSync {
  const database = new DatabaseSync(path, { timeout: BUSY_MS, readOnly })
  try {
    // NORMAL: a power cut may lose the last transactions, and they are read from the log again.
    if (!readOnly) database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL')
    database.exec('PRAGMA trusted_schema = OFF; PRAGMA cache_size = -65536; PRAGMA temp_store = MEMORY')
    const { user_version: version } = database.prepare('PRAGMA user_version').get() as { user_version: number }
    if (readOnly && version !== INDEX_VERSION)
      throw new IndexUnusable(`the index ${path} was made by another version of Keyless`)
    return database
  } catch (cause) {
    database.close()
    throw cause
  }
}

function databaseOf(reader: DatabaseSync, writing: DatabaseSync | undefined): Database {
  const read = statementsOf(reader)
  const write = writing && statementsOf(writing)
  let last: Promise<unknown> = Promise.resolve()
  const writer: Writer = {
    run: (sql, values = []) => {
      if (!write) throw new Error('the index is open for reading only')
      const statement = write(sql)
      statement.setReadBigInts(true) // the ids of records are beyond 2^53
      return Number(statement.run(...values).changes)
    },
  }
  return {
    dialect: 'sqlite',
    all: async <Row>(sql: string, values: readonly SqlValue[] = []) => read(sql).all(...values) as Row[],
    transaction(work) {
      const turn = last.then(() => transact(writing, () => work(writer)))
      last = turn.catch(() => undefined)
      return turn
    },
    async close() {
      await last
      reader.close()
      writing?.close()
    },
  }
}

/** Prepared once. The texts are few: what is asked for is in the values. */
function statementsOf(database: DatabaseSync): (sql: string) => StatementSync {
  const prepared = new Map<string, StatementSync>()
  return (sql) => {
    const known = prepared.get(sql)
    if (known) return known
    const statement = database.prepare(sql)
    prepared.set(sql, statement)
    return statement
  }
}

async function transact<T>(database: DatabaseSync | undefined, work: () => T | Promise<T>): Promise<T> {
  if (!database) throw new Error('the index is open for reading only')
  database.exec('BEGIN IMMEDIATE')
  try {
    const result = await work()
    database.exec('COMMIT')
    return result
  } catch (cause) {
    if (database.isTransaction) database.exec('ROLLBACK')
    throw cause
  }
}

/** SQLITE_CORRUPT and SQLITE_NOTADB. */
const UNSOUND: ReadonlySet<number> = new Set([11, 26])
const SQLITE_ERROR = 1

/** Whether an error of a statement means that the index has to be made again. */
export function isUnsound(cause: unknown): boolean {
  return cause instanceof IndexUnusable || UNSOUND.has(codeOf(cause))
}

/** While it is opened, a table that is not as ours also means that. */
function translated(path: string, cause: unknown): unknown {
  if (cause instanceof IndexUnusable || !(isUnsound(cause) || codeOf(cause) === SQLITE_ERROR)) return cause
  return new IndexUnusable(`the index ${path} is damaged: ${(cause as Error).message}`, { cause })
}

function codeOf(cause: unknown): number {
  return ((cause as { errcode?: number }).errcode ?? 0) & 0xff
}
