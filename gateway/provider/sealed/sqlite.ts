/** Sealed values of one process, in SQLite: fsynced on every change, since a lost refresh token is a connection that a human makes again. */
import { chmodSync, closeSync, openSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import type { Clock } from '../../protocol/clock.ts'
import { type SealedRow, type SealedRows, sealedStoreAway } from './sealed.ts'

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS sealed (
    tenant TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, version INTEGER NOT NULL,
    claimed_until_ms REAL NOT NULL, -- 0: nobody has it
    PRIMARY KEY (tenant, name)
  ) STRICT;`

/** @param o.path file, made 0600 if absent. */
export function openSqliteSealed(o: { readonly path: string; readonly clock: Clock }): SealedRows {
  const database = openDatabase(o.path)
  const sql = {
    read: database.prepare('SELECT value, version FROM sealed WHERE tenant = ? AND name = ?'),
    // Above every version that a removed row of this name can have had.
    add: database.prepare(
      'INSERT INTO sealed VALUES (?, ?, ?, ?, 0) ON CONFLICT (tenant, name) DO NOTHING RETURNING version',
    ),
    change: database.prepare(
      'UPDATE sealed SET value = ?3, version = version + 1, claimed_until_ms = 0 WHERE tenant = ?1 AND name = ?2 AND version = ?4 RETURNING version',
    ),
    remove: database.prepare('DELETE FROM sealed WHERE tenant = ? AND name = ? AND version = ? RETURNING version'),
    claim: database.prepare(
      'UPDATE sealed SET version = version + 1, claimed_until_ms = ?4 WHERE tenant = ?1 AND name = ?2 AND claimed_until_ms <= ?3 RETURNING value, version',
    ),
    places: database.prepare('SELECT tenant, name FROM sealed'),
  }
  return {
    read: attempt(async ({ tenant, name }) => rowOf(sql.read.get(tenant, name))),
    write: attempt(async ({ tenant, name }, value, expected) => {
      const done =
        value === null
          ? sql.remove.get(tenant, name, expected)
          : expected === 0
            ? sql.add.get(tenant, name, value, Math.floor(o.clock.nowMs()))
            : sql.change.get(tenant, name, value, expected)
      return done === undefined ? undefined : Number(done.version)
    }),
    claim: attempt(async ({ tenant, name }, forMs) => {
      const nowMs = o.clock.nowMs()
      const row = rowOf(sql.claim.get(tenant, name, nowMs, nowMs + forMs))
      return row ?? (sql.read.get(tenant, name) === undefined ? undefined : 'taken')
    }),
    places: attempt(async () =>
      sql.places.all().map((row) => ({ tenant: String(row.tenant), name: String(row.name) })),
    ),
    close: async () => database.close(),
  }
}

function openDatabase(path: string): DatabaseSync {
  try {
    closeSync(openSync(path, 'a', 0o600))
    chmodSync(path, 0o600) // it may have been copied here
    const database = new DatabaseSync(path, { timeout: 2_000 })
    database.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF; ${SCHEMA}`)
    return database
  } catch (cause) {
    throw new Error(`The sealed store ${path} cannot be used: ${(cause as Error).message}`, { cause })
  }
}

function rowOf(row: Record<string, unknown> | undefined): SealedRow | undefined {
  return row && { value: Buffer.from(row.value as Uint8Array), version: Number(row.version) }
}

function attempt<Args extends unknown[], T>(work: (...args: Args) => Promise<T>): (...args: Args) => Promise<T> {
  return (...args) =>
    work(...args).catch(() => {
      throw sealedStoreAway('SQLite')
    })
}
