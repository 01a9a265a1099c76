/**
 * One writer for one log. The lock is SQLite's own on an empty database: the operating system holds it for the process and
 * drops it when the process dies, however it dies. A file with a process number would be wrong after a reboot, and between two
 * containers that are both process 1 on one volume.
 */
import { chmodSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'

export interface Lock {
  release(): void
}

const BUSY =
  'another gateway writes this log. It is running already: stop it, or give this one a data_dir of its own (KEYLESS_HOME)'

/**
 * Take the lock or fail at once. @param busy what to say when it is held.
 * @throws {Error} naming the file when another process, or this one, holds it.
 */
export function takeLock(path: string, busy: string = BUSY): Lock {
  const database = open(path)
  try {
    database.exec('PRAGMA journal_mode=MEMORY; PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE')
    chmodSync(path, 0o600)
  } catch (cause) {
    database.close()
    throw held(path, cause, busy)
  }
  return { release: () => database.close() }
}

function open(path: string): DatabaseSync {
  try {
    return new DatabaseSync(path, { timeout: 0 })
  } catch (cause) {
    throw new Error(`${path} cannot be opened: ${(cause as Error).message}. The log's directory must be writable.`, {
      cause,
    })
  }
}

function held(path: string, cause: unknown, busy: string): Error {
  const why = (cause as { errcode?: number }).errcode === 5 ? busy : (cause as Error).message
  return new Error(`${path}: ${why}.`, { cause })
}
