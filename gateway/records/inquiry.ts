/** What an investigation is about: the grants concerned, those above them, and the calls made under them. */
import type { Database, SqlValue } from './database.ts'
import { above, among, byId, type Granted, grantsWhere, type Ref, refOf } from './granted.ts'

export type SubjectKind = 'credential' | 'grant' | 'agent' | 'task'

export interface Subject {
  readonly kind: SubjectKind
  /** Of a credential: its name in settings, or a `cred_id`. */
  readonly id: string
}

/** Milliseconds since the epoch; `until` exclusive. */
export interface Span {
  readonly since?: number
  readonly until?: number
}

/** SQL over `records`. */
export interface Condition {
  readonly sql: string
  readonly values: readonly SqlValue[]
}

export interface Inquiry {
  readonly subject: Subject
  readonly span: Span
  /** Newest first, at most `GRANTS_READ`. */
  readonly grants: readonly Granted[]
  /** Grants above one of `grants` that are not among them. */
  readonly parents: readonly Granted[]
  /** Calls under `grants`. */
  readonly calls: Condition
  /** The same, and those under `parents`: where a theft would have begun. */
  readonly suspects: Condition
}

/** More grants than this are not looked at one by one; what is counted in the index is counted whole. */
export const GRANTS_READ = 1000

/** @returns undefined when the index knows nothing under that name. */
export async function inquire(database: Database, subject: Subject, span: Span): Promise<Inquiry | undefined> {
  const grants = await grantsOf(database, subject)
  const own = callsOf(database, subject, grants)
  if (grants.length === 0 && !(await isKnown(database, own))) return undefined
  const parents = await parentsOf(database, grants)
  const aboveIds = parents.map(({ id }) => id)
  const wider = `(${own.sql} OR (kind = 'call' AND ${among(database, 'grant_id')}))`
  return {
    subject,
    span,
    grants,
    parents,
    calls: within(own, span),
    suspects: within({ sql: wider, values: [...own.values, JSON.stringify(aboveIds)] }, span),
  }
}

async function grantsOf(database: Database, { kind, id }: Subject): Promise<Granted[]> {
  switch (kind) {
    case 'grant':
      return grantsWhere(
        database,
        'id = ? OR chain IN (SELECT chain FROM chains WHERE actor = ?)',
        [id, id],
        GRANTS_READ,
      )
    case 'task':
      return grantsWhere(database, 'task = ?', [id], GRANTS_READ)
    case 'agent':
      return grantsWhere(database, 'agent = ?', [id], GRANTS_READ)
    case 'credential': {
      const leased = 'SELECT grant_id FROM leases WHERE credential = ? OR cred_id = ?'
      const used = `SELECT grant_id FROM records WHERE kind = 'call' AND (credential = ? OR cred_id = ?)`
      return grantsWhere(database, `id IN (${leased} UNION ${used})`, [id, id, id, id], GRANTS_READ)
    }
    default:
      return kind satisfies never
  }
}

/** A call that was refused before authentication has no agent and no task, only the grant that was presented. */
function callsOf(database: Database, { kind, id }: Subject, grants: readonly Granted[]): Condition {
  switch (kind) {
    case 'credential':
      return { sql: `(kind = 'call' AND (credential = ? OR cred_id = ?))`, values: [id, id] }
    case 'grant': {
      const ids = [...new Set([id, ...grants.map((one) => one.id)])]
      return { sql: `(kind = 'call' AND ${among(database, 'grant_id')})`, values: [JSON.stringify(ids)] }
    }
    case 'agent':
    case 'task': {
      const held = `grant_id IN (SELECT id FROM grants WHERE ${kind} = ?)`
      return { sql: `(kind = 'call' AND (${kind} = ? OR ${held}))`, values: [id, id] }
    }
    default:
      return kind satisfies never
  }
}

/** @param time column that is to lie in the span. */
export function within(
  { sql, values }: Condition,
  { since, until }: Span,
  time: 'ts' | 'issued' | 'ended' = 'ts',
): Condition {
  const from = since === undefined ? '' : ` AND ${time} >= ?`
  const to = until === undefined ? '' : ` AND ${time} < ?`
  const bounds = [since, until].filter((bound) => bound !== undefined)
  return { sql: `${sql}${from}${to}`, values: [...values, ...bounds] }
}

async function isKnown(database: Database, { sql, values }: Condition): Promise<boolean> {
  return (await database.all(`SELECT seq FROM records WHERE ${sql} LIMIT 1`, values)).length > 0
}

async function parentsOf(database: Database, grants: readonly Granted[]): Promise<Granted[]> {
  const known = byId(grants)
  const tasks = [...new Set(grants.flatMap(({ task, depth }) => (task !== null && depth > 0 ? [task] : [])))]
  if (tasks.length === 0) return []
  const ofTasks = byId(await grantsWhere(database, among(database, 'task'), [JSON.stringify(tasks)], GRANTS_READ))
  const found = grants.flatMap(({ id }) => above(ofTasks, id)).filter(({ id }) => !known.has(id))
  return [...byId(found).values()]
}

/** First and last of some calls that are alike. */
export interface Seen {
  readonly calls: number
  readonly first: number
  readonly last: number
  readonly first_entry: Ref
  readonly last_entry: Ref
}

/** Columns that make a `Seen` of a group within one log. */
export const SEEN =
  'log, COUNT(*) AS calls, MIN(ts) AS first, MAX(ts) AS last, MIN(seq) AS first_seq, MAX(seq) AS last_seq'

export interface SeenRow {
  readonly log: string
  readonly calls: number
  readonly first: number
  readonly last: number
  readonly first_seq: number
  readonly last_seq: number
}

/** Groups of several logs put together: those for which `key` says the same. */
export function merged<Row extends SeenRow>(rows: readonly Row[], key: (row: Row) => unknown): (Row & Seen)[] {
  const groups = Map.groupBy(rows, (row) => JSON.stringify(key(row)))
  return [...groups.values()].map((group) => {
    const [head] = group as [Row, ...Row[]]
    const first = group.reduce((a, b) => (b.first < a.first ? b : a))
    const last = group.reduce((a, b) => (b.last > a.last ? b : a))
    return {
      ...head,
      calls: group.reduce((sum, row) => sum + row.calls, 0),
      first: first.first,
      last: last.last,
      first_entry: refOf({ log: first.log, seq: first.first_seq }),
      last_entry: refOf({ log: last.log, seq: last.last_seq }),
    }
  })
}
