/**
 * Grants of one process, in SQLite: answers at once, survives a restart and a power cut (WAL, fsynced on every change, since
 * a lost change could bring an ended grant or a spent use back to life).
 */
import { chmodSync, closeSync, openSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import type { Clock } from '../protocol/clock.ts'
import { type GrantStore, REMEMBER_S, type Standing, type StoredGrant, storeUnavailable } from './store.ts'

const SCHEMA_VERSION = 1

const SCHEMA = `
  CREATE TABLE grants (
    tenant TEXT NOT NULL, id TEXT NOT NULL, task TEXT NOT NULL, handle_digest TEXT NOT NULL,
    body TEXT NOT NULL, expires_at INTEGER NOT NULL,
    ended TEXT,
    beat_at_ms REAL, -- null: no heartbeats were promised
    PRIMARY KEY (tenant, id), UNIQUE (tenant, handle_digest), UNIQUE (tenant, task)
  ) STRICT;
  CREATE INDEX grants_by_expiry ON grants (expires_at);
  CREATE INDEX grants_by_beat ON grants (beat_at_ms) WHERE beat_at_ms IS NOT NULL AND ended IS NULL;
  CREATE TABLE uses (
    tenant TEXT NOT NULL, id TEXT NOT NULL, operation TEXT NOT NULL, expires_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, id, operation)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX uses_by_expiry ON uses (expires_at);
  PRAGMA user_version = ${SCHEMA_VERSION};`

interface Row {
  readonly tenant: string
  readonly id: string
  readonly task: string
  readonly handle_digest: string
  readonly body: string
  readonly expires_at: number
  readonly ended: string | null
  readonly beat_at_ms: number | null
}

/** @param o.path file, created 0600 if absent; SQLite gives its companions (-wal, -shm) the same mode. */
export function openSqliteStore(o: { readonly path: string; readonly clock: Clock }): GrantStore {
  const database = open(o.path)
  const statements = prepare(database)
  const nowMs = () => o.clock.nowMs()
  const attempt = <T>(work: () => T): T => {
    try {
      return work()
    } catch (cause) {
      throw storeUnavailable(cause)
    }
  }
  const forget = () => {
    const limit = Math.floor(nowMs() / 1000) - REMEMBER_S
    statements.forgetGrants.run(limit)
    statements.forgetUses.run(limit)
  }
  attempt(forget)
  return {
    trustMs: Number.POSITIVE_INFINITY,
    create: (g) =>
      attempt(() => {
        forget()
        statements.create.run(g.tenant, g.id, g.task, g.handleDigest, g.body, g.expiresAt, g.watched ? nowMs() : null)
      }),
    byHandle: (tenant, digest) => attempt(() => standingOf(statements.byHandle.get(tenant, digest))),
    byId: (tenant, id) => attempt(() => standingOf(statements.byId.get(tenant, id))),
    byTask: (tenant, task) => attempt(() => standingOf(statements.byTask.get(tenant, task))),
    end: (g, reason) => attempt(() => statements.end.run(reason, g.tenant, g.id).changes === 1),
    spend: (tenant, id, operation, expiresAt) =>
      attempt(() => statements.spend.run(tenant, id, operation, expiresAt).changes === 1),
    beat: (g) => attempt(() => void statements.beat.run(nowMs(), g.tenant, g.id)),
    overdue: (silentMs) =>
      attempt(() => {
        const now = nowMs()
        return statements.overdue
          .all(now, now - silentMs, Math.floor(now / 1000))
          .map((row) => storedOf(row as unknown as Row))
      }),
    live: (tenant) =>
      attempt(() =>
        statements.live.all(tenant, Math.floor(nowMs() / 1000)).map((row) => storedOf(row as unknown as Row)),
      ),
    close: () => database.close(),
  }
}

function open(path: string): DatabaseSync {
  closeSync(openSync(path, 'a', 0o600))
  chmodSync(path, 0o600) // it may be older than this rule
  const database = new DatabaseSync(path, { timeout: 2_000 })
  try {
    database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF;')
    const { user_version: version } = database.prepare('PRAGMA user_version').get() as { user_version: number }
    if (version > SCHEMA_VERSION) {
      throw new Error(
        `it was written by a newer gateway (schema ${version}, this one knows ${SCHEMA_VERSION}); start that version, or move the file away`,
      )
    }
    if (version === 0) database.exec(`BEGIN IMMEDIATE; ${SCHEMA} COMMIT;`)
    return database
  } catch (cause) {
    database.close()
    throw new Error(`The store of grants ${path} cannot be used: ${(cause as Error).message}`, { cause })
  }
}

function prepare(database: DatabaseSync) {
  return {
    create: database.prepare(
      'INSERT INTO grants (tenant, id, task, handle_digest, body, expires_at, beat_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?)',
    ),
    byHandle: database.prepare('SELECT * FROM grants WHERE tenant = ? AND handle_digest = ?'),
    byId: database.prepare('SELECT * FROM grants WHERE tenant = ? AND id = ?'),
    byTask: database.prepare('SELECT * FROM grants WHERE tenant = ? AND task = ?'),
    end: database.prepare('UPDATE grants SET ended = ? WHERE tenant = ? AND id = ? AND ended IS NULL'),
    spend: database.prepare('INSERT OR IGNORE INTO uses (tenant, id, operation, expires_at) VALUES (?, ?, ?, ?)'),
    beat: database.prepare(
      'UPDATE grants SET beat_at_ms = ? WHERE tenant = ? AND id = ? AND ended IS NULL AND beat_at_ms IS NOT NULL',
    ),
    overdue: database.prepare(
      'UPDATE grants SET beat_at_ms = ? WHERE beat_at_ms < ? AND ended IS NULL AND expires_at > ? RETURNING *',
    ),
    live: database.prepare(
      'SELECT * FROM grants WHERE tenant = ? AND ended IS NULL AND expires_at > ? ORDER BY id DESC', // UUIDv7: by time
    ),
    forgetGrants: database.prepare('DELETE FROM grants WHERE expires_at < ?'),
    forgetUses: database.prepare('DELETE FROM uses WHERE expires_at < ?'),
  }
}

function standingOf(found: unknown): Standing | undefined {
  if (found === undefined) return undefined
  const row = found as Row
  return { stored: storedOf(row), ended: row.ended ?? undefined }
}

function storedOf(row: Row): StoredGrant {
  return {
    tenant: row.tenant,
    id: row.id,
    task: row.task,
    handleDigest: row.handle_digest,
    body: row.body,
    expiresAt: row.expires_at,
    watched: row.beat_at_ms !== null,
  }
}
