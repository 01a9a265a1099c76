/**
 * Approvals of one process, in SQLite: they survive a restart and a power cut, for one that was taken up must never come back. The
 * file is made when the first is asked for.
 */
import { existsSync } from 'node:fs'
import type { DatabaseSync } from 'node:sqlite'
import type { Clock } from '../protocol/clock.ts'
import { openSqliteFile, transact } from '../sqlite-file.ts'
import { type Added, type ApprovalStore, type StoredApproval, storeUnavailable } from './store.ts'

const SCHEMA = `
  CREATE TABLE approvals (
    tenant TEXT NOT NULL, id TEXT NOT NULL, slot TEXT NOT NULL, agent TEXT NOT NULL,
    body TEXT NOT NULL, -- sealed
    version INTEGER NOT NULL, is_pending INTEGER NOT NULL, until_ms REAL NOT NULL, keep_ms REAL NOT NULL,
    PRIMARY KEY (tenant, id)
  ) STRICT;
  CREATE INDEX approvals_by_slot ON approvals (tenant, slot);
  CREATE INDEX approvals_pending ON approvals (tenant, agent) WHERE is_pending;
  CREATE INDEX approvals_by_age ON approvals (keep_ms);`

/** @param o.path file, created 0600. @throws {Error} naming it when it is no database or of a later version. */
export function openSqliteApprovals(o: { readonly path: string; readonly clock: Clock }): ApprovalStore {
  const listeners = new Set<(tenant: string, id: string) => void>()
  let opened: ReturnType<typeof prepare> | undefined = existsSync(o.path) ? prepare(openFile(o.path)) : undefined
  const file = () => {
    opened ??= prepare(openFile(o.path))
    return opened
  }
  const nowMs = () => o.clock.nowMs()
  const tell = ({ tenant, id }: StoredApproval) => {
    for (const told of listeners) told(tenant, id)
  }
  return {
    lookMs: undefined,
    add: (one, most) => attempt(() => unhurried(file().database, () => add(file(), one, most, nowMs()))),
    count: (tenant, agent) => attempt(() => (opened === undefined ? 0 : countOf(opened, tenant, agent, nowMs()))),
    inSlot: (tenant, slot) => attempt(() => opened && rowOf(opened.inSlot.get(tenant, slot, nowMs()))),
    byId: (tenant, id) => attempt(() => opened && rowOf(opened.byId.get(tenant, id, nowMs()))),
    change: (one) =>
      attempt(() => {
        const { body, version, isPending, untilMs, keepMs, tenant, id } = one
        const given = [body, version, isPending ? 1 : 0, untilMs, keepMs, tenant, id, version - 1] as const
        const isChanged = file().change.run(...given).changes === 1
        if (isChanged) tell(one)
        return isChanged
      }),
    pending: (tenant) => attempt(() => (opened?.pending.all(tenant) ?? []).map((row) => rowOf(row) as StoredApproval)),
    lapsed: (tenant) =>
      attempt(() => (opened?.lapse.all(tenant, nowMs()) ?? []).map((row) => rowOf(row) as StoredApproval)),
    onChange(told) {
      listeners.add(told)
      return () => void listeners.delete(told)
    },
    close() {
      opened?.database.close()
      opened = undefined
    },
  }
}

type Statements = ReturnType<typeof prepare>

function prepare(database: DatabaseSync) {
  return {
    database,
    forget: database.prepare('DELETE FROM approvals WHERE keep_ms < ?'),
    inSlot: database.prepare('SELECT * FROM approvals WHERE tenant = ? AND slot = ? AND until_ms > ?'),
    byId: database.prepare('SELECT * FROM approvals WHERE tenant = ? AND id = ? AND keep_ms > ?'),
    count: database.prepare(
      'SELECT count(*) AS n FROM approvals WHERE tenant = ? AND agent = ? AND is_pending AND until_ms > ?',
    ),
    add: database.prepare(
      'INSERT INTO approvals (tenant, id, slot, agent, body, version, is_pending, until_ms, keep_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)',
    ),
    change: database.prepare(
      'UPDATE approvals SET body = ?, version = ?, is_pending = ?, until_ms = ?, keep_ms = ? WHERE tenant = ? AND id = ? AND version = ?',
    ),
    pending: database.prepare('SELECT * FROM approvals WHERE tenant = ? AND is_pending ORDER BY id'), // UUIDv7: by time
    lapse: database.prepare(
      'UPDATE approvals SET is_pending = 0 WHERE tenant = ? AND is_pending AND until_ms <= ? RETURNING *',
    ),
  }
}

function add(statements: Statements, one: StoredApproval, most: number, nowMs: number): Added {
  statements.forget.run(nowMs)
  const first = rowOf(statements.inSlot.get(one.tenant, one.slot, nowMs))
  if (first !== undefined) return { first }
  if (countOf(statements, one.tenant, one.agent, nowMs) >= most) return 'full'
  const { tenant, id, slot, agent, body, version, isPending, untilMs, keepMs } = one
  statements.add.run(tenant, id, slot, agent, body, version, isPending ? 1 : 0, untilMs, keepMs)
  return { isNew: true }
}

function countOf(statements: Statements, tenant: string, agent: string, nowMs: number): number {
  return (statements.count.get(tenant, agent, nowMs) as { n: number }).n
}

interface Row {
  readonly tenant: string
  readonly id: string
  readonly slot: string
  readonly agent: string
  readonly body: string
  readonly version: number
  readonly is_pending: number
  readonly until_ms: number
  readonly keep_ms: number
}

function rowOf(found: unknown): StoredApproval | undefined {
  if (found === undefined) return undefined
  const { is_pending: isPending, until_ms: untilMs, keep_ms: keepMs, ...rest } = found as Row
  return { ...rest, isPending: isPending === 1, untilMs, keepMs }
}

function openFile(path: string): DatabaseSync {
  return openSqliteFile(path, 'store of approvals', [SCHEMA])
}

/** Not fsynced by itself: what a power cut takes with it is asked for again. What was taken up must not come back, and is. */
function unhurried<T>(database: DatabaseSync, work: () => T): T {
  database.exec('PRAGMA synchronous = NORMAL')
  try {
    return transact(database, work)
  } finally {
    database.exec('PRAGMA synchronous = FULL')
  }
}

function attempt<T>(work: () => T): T {
  try {
    return work()
  } catch (cause) {
    throw storeUnavailable(cause)
  }
}
