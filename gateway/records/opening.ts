/** Opens the index of a log, and makes it again where it cannot be used: another version, another log, a damaged file. */
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { files } from '../audit/lines.ts'
import { readIfThere } from '../private-file.ts'
import type { Clock } from '../protocol/clock.ts'
import type { Database } from './database.ts'
import { IndexUnusable, openSqlite, removeSqlite } from './database-sqlite.ts'
import { createIndexer, type Indexer, type IndexerOptions, isOfThisLog } from './indexer.ts'
import { clearLog } from './storing.ts'

export interface IndexOptions {
  /** Directory of the log. */
  readonly dir: string
  /** Name of the log. */
  readonly origin: string
  /** File of the index, or URL of a Postgres that several logs share. */
  readonly at: { readonly path: string } | { readonly url: string }
  readonly clock: Clock
  readonly onProgress?: IndexerOptions['onProgress']
  readonly rest?: IndexerOptions['rest']
}

export interface Index {
  readonly database: Database
  readonly indexer: Indexer
  /** Why what was there could not be used; it is empty now. */
  readonly rebuilt: string | undefined
  /** Forget what was read from this log, so that the next `catchUp` begins at its beginning. */
  clear(): Promise<void>
  /** False when another process has put a new file in its place. */
  isCurrent(): boolean
}

/** Name of the log in this directory, as its checkpoint has it; undefined when there is none. */
export async function originOf(dir: string): Promise<string | undefined> {
  const note = await readIfThere(join(dir, files.checkpoint))
  return note?.toString('utf8').split('\n', 1)[0] || undefined
}

/** @throws what the file system or the connection says. */
export async function openIndex(o: IndexOptions): Promise<Index> {
  let rebuilt: string | undefined
  let database: Database
  try {
    database = await openDatabase(o)
  } catch (cause) {
    if (!(cause instanceof IndexUnusable) || !('path' in o.at)) throw cause
    rebuilt = cause.message
    removeSqlite(o.at.path)
    database = await openDatabase(o)
  }
  const parts = { ...o, database }
  const clear = () => database.transaction((writer) => clearLog(writer, database.dialect, o.origin))
  if (await isForeign(parts)) {
    rebuilt = 'the index was made from another log'
    await clear()
  }
  const inode = inodeOf(o)
  return { database, indexer: createIndexer(parts), rebuilt, clear, isCurrent: () => inodeOf(o) === inode }
}

async function openDatabase({ at }: IndexOptions): Promise<Database> {
  if ('path' in at) return openSqlite(at.path)
  const { openPostgres } = await import('./database-postgres.ts') // most have none, and its client takes as long to load as the rest
  return openPostgres(at.url)
}

async function isForeign(o: IndexerOptions): Promise<boolean> {
  if (!(await isOfThisLog(o))) return true
  if (o.database.dialect === 'postgres') return false
  const logs = await o.database.all<{ log: string }>('SELECT log FROM progress WHERE log <> ?', [o.origin])
  return logs.length > 0
}

function inodeOf({ at }: IndexOptions): number | undefined {
  return 'path' in at ? statSync(at.path, { throwIfNoEntry: false })?.ino : undefined
}
