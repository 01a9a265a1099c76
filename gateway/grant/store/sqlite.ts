/**
 * Grants of one process, in SQLite: answers at once, survives a restart and a power cut. What changes more than one row is one
 * transaction.
 */
import type { DatabaseSync } from 'node:sqlite'
import type { Clock } from '../../protocol/clock.ts'
import { transact } from '../../sqlite-file.ts'
import { createOrderShelf } from './sqlite-orders.ts'
import { openDatabase } from './sqlite-schema.ts'
import { createTally } from './sqlite-tally.ts'
import {
  type GrantStore,
  type KnownTask,
  REMEMBER_S,
  type Standing,
  type StoredGrant,
  type StoredTask,
  storeUnavailable,
} from './store.ts'

/** @param o.path file, created 0600 if absent. */
export function openSqliteStore(o: { readonly path: string; readonly clock: Clock }): GrantStore {
  const database = openDatabase(o.path)
  const statements = prepare(database)
  const nowMs = () => o.clock.nowMs()
  const nowS = () => Math.floor(nowMs() / 1000)
  const tally = createTally(database, nowMs)
  const shelf = createOrderShelf(database)
  const forget = () => {
    for (const statement of statements.forget) statement.run(nowS() - REMEMBER_S)
  }
  const change = <T>(work: () => T): T => attempt(() => transact(database, work))
  change(forget)
  return {
    trustMs: Number.POSITIVE_INFINITY,
    create: (g) =>
      change(() => {
        forget()
        const { tenant, id, task, handleDigest = null, body, expiresAt, parent = null } = g
        const marks = JSON.stringify(g.marks)
        return statements.create.run(tenant, id, task, handleDigest, body, expiresAt, marks, parent).changes === 1
      }),
    byHandle: (tenant, digest) => attempt(() => standingOf(statements.byHandle.get(tenant, digest))),
    byId: (tenant, id) => attempt(() => standingOf(statements.byId.get(tenant, id))),
    states: (tenant, ids) => attempt(() => ids.map((id) => standingOf(statements.byId.get(tenant, id)))),
    end: (tenant, mark, { reason, untilS }) =>
      change(() => {
        statements.silence.run(tenant, mark)
        return statements.end.run(tenant, mark, reason, untilS).changes === 1
      }),
    saveTask: ({ tenant, id, body, version, expiresAt, watched, isSuspended }, expected) => {
      const content = [body, version, expiresAt, watched ? nowMs() : null, isSuspended ? 1 : 0, tenant, id] as const
      return attempt(() => {
        const { changes } =
          expected === undefined ? statements.addTask.run(...content) : statements.changeTask.run(...content, expected)
        return changes === 1
      })
    },
    task: (tenant, id) => attempt(() => knownTaskOf(statements.task.get(tenant, id))),
    tasks: (tenant) => attempt(() => statements.tasks.all(tenant, nowS()).map(taskOf)),
    grantsOf: (tenant, task) => attempt(() => statements.grantsOf.all(tenant, task, nowS()).map(storedOf)),
    spend: (tenant, charges) => (charges.length === 0 ? -1 : change(() => tally.spend(tenant, charges))),
    add: (tenant, charges) => change(() => tally.add(tenant, charges)),
    left: (tenant, charge) => attempt(() => tally.left(tenant, charge)),
    past: (tenant, name) => attempt(() => tally.past(tenant, name)),
    once: (tenant, name, untilMs) =>
      change(() => {
        statements.forgetSeen.run(nowMs())
        return statements.once.run(tenant, name, untilMs).changes === 1
      }),
    beat: (tenant, task) => attempt(() => void statements.beat.run(nowMs(), tenant, task)),
    overdue: (silentMs) => attempt(() => statements.overdue.all(nowMs(), nowMs() - silentMs, nowS()).map(taskOf)),
    orders: (tenant) => attempt(() => shelf.orders(tenant)),
    ordersVersion: (tenant) => attempt(() => shelf.version(tenant)),
    putOrder: (tenant, order, o) => change(() => shelf.put(tenant, order, o)),
    forgetOrders: (tenant, about, expected) =>
      change(() => {
        if (shelf.version(tenant) === expected) shelf.forget(tenant, about)
      }),
    close: () => database.close(),
  }
}

function prepare(database: DatabaseSync) {
  const grants = `
    SELECT g.*,
      (SELECT e.reason FROM json_each(g.marks) m JOIN ended e ON e.tenant = g.tenant AND e.mark = m.value
        ORDER BY m.key LIMIT 1) AS ended,
      EXISTS (SELECT 1 FROM tasks t WHERE t.tenant = g.tenant AND t.id = g.task AND t.is_suspended) AS is_suspended
    FROM grants g`
  const tasks = 'SELECT t.*, e.reason AS ended FROM tasks t LEFT JOIN ended e ON e.tenant = t.tenant AND e.mark = t.id'
  const lives = 'NOT EXISTS (SELECT 1 FROM ended e WHERE e.tenant = ?6 AND e.mark = ?7)'
  const forget = (table: string, column: string) => database.prepare(`DELETE FROM ${table} WHERE ${column} < ?`)
  return {
    create: database.prepare(
      'INSERT INTO grants (tenant, id, task, handle_digest, body, expires_at, marks, parent) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, id) DO NOTHING',
    ),
    byHandle: database.prepare(`${grants} WHERE g.tenant = ? AND g.handle_digest = ?`),
    byId: database.prepare(`${grants} WHERE g.tenant = ? AND g.id = ?`),
    grantsOf: database.prepare(
      `SELECT * FROM (${grants} WHERE g.tenant = ? AND g.task = ? AND g.expires_at > ?) WHERE ended IS NULL ORDER BY id`, // UUIDv7: by time
    ),
    end: database.prepare('INSERT OR IGNORE INTO ended (tenant, mark, reason, until) VALUES (?, ?, ?, ?)'),
    silence: database.prepare('UPDATE tasks SET beat_at_ms = NULL WHERE tenant = ? AND id = ?'),
    addTask: database.prepare(
      `INSERT OR IGNORE INTO tasks (body, version, expires_at, beat_at_ms, is_suspended, tenant, id) SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 WHERE ${lives}`,
    ),
    changeTask: database.prepare(
      `UPDATE tasks SET body = ?1, version = ?2, expires_at = ?3, beat_at_ms = CASE WHEN ?4 IS NOT NULL THEN coalesce(beat_at_ms, ?4) END, is_suspended = ?5 WHERE tenant = ?6 AND id = ?7 AND version = ?8 AND ${lives}`,
    ),
    task: database.prepare(`${tasks} WHERE t.tenant = ? AND t.id = ?`),
    tasks: database.prepare(
      `${tasks} WHERE t.tenant = ? AND t.expires_at > ? AND e.reason IS NULL ORDER BY t.id DESC`, // UUIDv7: by time
    ),
    once: database.prepare('INSERT OR IGNORE INTO seen (tenant, name, until_ms) VALUES (?, ?, ?)'),
    beat: database.prepare(
      'UPDATE tasks SET beat_at_ms = ? WHERE tenant = ? AND id = ? AND beat_at_ms IS NOT NULL', // null once it has ended
    ),
    overdue: database.prepare('UPDATE tasks SET beat_at_ms = ? WHERE beat_at_ms < ? AND expires_at > ? RETURNING *'),
    forget: [
      forget('grants', 'expires_at'),
      forget('tasks', 'expires_at'),
      forget('ended', 'until'),
      forget('counts', 'until'),
      forget('calls', 'until'),
    ],
    forgetSeen: database.prepare('DELETE FROM seen WHERE until_ms <= ?'),
  }
}

type Row = Readonly<Record<string, unknown>>

function standingOf(row: Row | undefined): Standing | undefined {
  if (row === undefined) return undefined
  const { ended, is_suspended: isSuspended } = row as { ended: string | null; is_suspended: number }
  return { stored: storedOf(row), ended: ended ?? undefined, isSuspended: isSuspended === 1 }
}

function storedOf(row: Row): StoredGrant {
  const { tenant, id, task, body } = row as { tenant: string; id: string; task: string; body: string }
  const rest = row as { handle_digest: string | null; expires_at: number; marks: string; parent: string | null }
  return {
    tenant,
    id,
    task,
    handleDigest: rest.handle_digest ?? undefined,
    body,
    expiresAt: rest.expires_at,
    marks: JSON.parse(rest.marks) as readonly string[],
    ...(rest.parent !== null && { parent: rest.parent }),
  }
}

function taskOf(row: Row): StoredTask {
  const { tenant, id, body, version } = row as { tenant: string; id: string; body: string; version: number }
  const rest = row as { expires_at: number; beat_at_ms: number | null; is_suspended: number }
  return {
    tenant,
    id,
    body,
    version,
    expiresAt: rest.expires_at,
    watched: rest.beat_at_ms !== null,
    isSuspended: rest.is_suspended === 1,
  }
}

function knownTaskOf(row: Row | undefined): KnownTask | undefined {
  return row && { ...taskOf(row), ended: (row.ended as string | null) ?? undefined }
}

function attempt<T>(work: () => T): T {
  try {
    return work()
  } catch (cause) {
    throw storeUnavailable(cause)
  }
}
