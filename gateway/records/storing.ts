/** The statements that put a batch into the index. Each may be run again: the same entries make the same rows. */
import type { Gathered } from './batch.ts'
import type { Database, SqlValue, Writer } from './database.ts'
import type { End, GrantRow, LeaseRow, Order } from './living.ts'
import { COLUMNS, type Row } from './row.ts'

type Dialect = Database['dialect']

/** Rows of one statement. Postgres is across a network; SQLite is not, and keeps one statement prepared. */
const ROWS: Readonly<Record<Dialect, number>> = { postgres: 200, sqlite: 1 }

export async function storeBatch(writer: Writer, dialect: Dialect, batch: Gathered): Promise<void> {
  await storeRecords(writer, dialect, batch.records)
  await storeChains(writer, dialect, batch.chains)
  for (const grant of batch.grants) await storeGrant(writer, grant)
  for (const lease of batch.leases) await storeLease(writer, lease)
  for (const end of batch.ends) await storeEnd(writer, end)
  if (batch.grants.length + batch.ends.length > 0) await endBeside(writer)
}

const PLACE = '(CAST(? AS BIGINT) << 20) | (CAST(? AS BIGINT) & 1048575)'
const MARKS = COLUMNS.map(() => '?').join(', ')
const UPDATES = COLUMNS.map((column) => `${column} = excluded.${column}`).join(', ')
const inserted = {
  /** A file has one log, of which `id` names the record. */
  sqlite: `INSERT INTO records (id, ${COLUMNS.join(', ')}) VALUES (${PLACE}, ${MARKS}) ON CONFLICT (id) DO UPDATE SET ${UPDATES}`,
  postgres: (rows: number) =>
    `INSERT INTO records (id, ${COLUMNS.join(', ')}, terms) VALUES ${repeat(`(${PLACE}, ${MARKS}, string_to_array(?, ' '))`, rows)}
     ON CONFLICT (log, seq) DO UPDATE SET ${UPDATES}, terms = excluded.terms`,
}
const TERMS = `INSERT OR REPLACE INTO records_terms (rowid, terms) VALUES (${PLACE}, ?)`

/** Everything that was read from this log. A file has one log; what chains are made of stays where others share it. */
export async function clearLog(writer: Writer, dialect: Dialect, log: string): Promise<void> {
  const tables = ['records', 'grants', 'leases', 'ends', 'progress']
  if (dialect === 'postgres') {
    for (const table of tables) await writer.run(`DELETE FROM ${table} WHERE log = ?`, [log])
    return
  }
  for (const table of [...tables, 'chains']) await writer.run(`DELETE FROM ${table}`)
  await writer.run("INSERT INTO records_terms (records_terms) VALUES ('delete-all')")
}

async function storeRecords(writer: Writer, dialect: Dialect, records: Gathered['records']): Promise<void> {
  if (dialect === 'postgres') {
    await inChunks(records, ROWS.postgres, async (chunk) => {
      const values = chunk.flatMap(({ row, terms }) => [...valuesOf(row), terms])
      await writer.run(inserted.postgres(chunk.length), values)
    })
    return
  }
  for (const { row, terms } of records) {
    await writer.run(inserted.sqlite, valuesOf(row))
    await writer.run(TERMS, [row.ts, row.seq, terms])
  }
}

/** Place, then columns. */
function valuesOf(row: Row): SqlValue[] {
  const values: SqlValue[] = [row.ts, row.seq]
  for (const column of COLUMNS) values.push(row[column])
  return values
}

async function storeChains(writer: Writer, dialect: Dialect, chains: Gathered['chains']): Promise<void> {
  const rows = [...chains].flatMap(([chain, actors]) => actors.map(({ id, n, kind }) => [id, chain, n, kind] as const))
  // Replicas meet the same chains: in one order they wait for each other, in two they lock each other out.
  rows.sort(([actor1, chain1], [actor2, chain2]) => compare(chain1, chain2) || compare(actor1, actor2))
  const sql = (count: number) =>
    `INSERT INTO chains (actor, chain, n, kind) VALUES ${repeat('(?, ?, ?, ?)', count)} ON CONFLICT DO NOTHING`
  await inChunks(rows, ROWS[dialect], async (chunk) => void (await writer.run(sql(chunk.length), chunk.flat())))
}

function compare(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0
}

async function storeGrant(writer: Writer, { id, values, marks, orders }: GrantRow): Promise<void> {
  const [sql, bound] = insertion('grants', values)
  // Shown again to another replica it is the same grant; the first entry counts.
  if ((await writer.run(`${sql} ON CONFLICT DO NOTHING`, bound)) === 0) return
  // Read before it, from the log of another replica: policies of those above it are not looked at.
  const list = (of: readonly string[]) => of.map(() => '?').join(', ')
  const ordered = `mark IN (${list(orders)}) AND log <> ? AND ts >= ? AND ts < ?`
  const earliest = `SELECT ts, log, seq FROM ends WHERE mark IN (${list(marks)}) OR (${ordered}) ORDER BY ts LIMIT 1`
  await writer.run(
    `UPDATE grants SET ended = e.ts, ended_by = e.log || ':' || e.seq FROM (${earliest}) AS e WHERE id = ? AND ended IS NULL`,
    [...marks, ...orders, values.log ?? '', values.issued ?? 0, values.expires ?? 0, id],
  )
}

/**
 * What was given beside a grant ends with it, and so does what was delegated from that; but an order about policies ends what was issued
 * under them alone. Over all of the index: either may have come first, from the log of whichever replica.
 */
async function endBeside(writer: Writer): Promise<void> {
  const ofPolicies = `EXISTS (SELECT 1 FROM ends AS e WHERE e.log || ':' || e.seq = p.ended_by AND e.mark LIKE '%"policy_set"%')`
  const given = `SELECT g.id, g.chain, p.ended, p.ended_by FROM grants AS g JOIN grants AS p ON p.id = g.beside
    WHERE g.beside IS NOT NULL AND p.ended IS NOT NULL AND NOT ${ofPolicies}`
  const below = "grants.chain IN (SELECT c.chain FROM chains AS c WHERE c.actor = o.id AND c.kind = 'grant')"
  const sql = `UPDATE grants SET ended = o.ended, ended_by = o.ended_by FROM (${given}) AS o
    WHERE (grants.id = o.id OR ${below}) AND grants.expires > o.ended AND (grants.ended IS NULL OR grants.ended > o.ended)`
  while ((await writer.run(sql)) > 0);
}

async function storeLease(writer: Writer, { values, mark }: LeaseRow): Promise<void> {
  const [sql, bound] = insertion('leases', values)
  await writer.run(`${sql} ON CONFLICT DO NOTHING`, bound)
  const earliest = 'SELECT ts, log, seq FROM ends WHERE mark = ? AND ts >= ? ORDER BY ts LIMIT 1'
  await writer.run(
    `UPDATE leases SET ended = e.ts, ended_by = e.log || ':' || e.seq FROM (${earliest}) AS e
     WHERE leases.log = ? AND leases.seq = ? AND ended IS NULL`,
    [mark, values.issued ?? 0, values.log ?? '', values.seq ?? 0],
  )
}

async function storeEnd(writer: Writer, { mark, order, log, seq, ts }: End): Promise<void> {
  await writer.run('INSERT INTO ends (mark, log, seq, ts) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING', [
    mark,
    log,
    seq,
    ts,
  ])
  const end = [ts, `${log}:${seq}`]
  const lives = '(ended IS NULL OR ended > ?)'
  if (order !== undefined) {
    const { sql, values } = under(order)
    // What was issued after it lives, unless it was blocked: within a log by its number, for the time of a grant is whole seconds.
    const before = 'CASE WHEN log = ? THEN seq < ? ELSE issued <= ? END'
    await writer.run(
      `UPDATE grants SET ended = ?, ended_by = ? WHERE coalesce(tenant, '') = ? AND ${sql} AND ${before} AND expires > ? AND ${lives}`,
      [...end, order.tenant, ...values, log, seq, ts, ts, ts],
    )
    return
  }
  const below = "chain IN (SELECT chain FROM chains WHERE actor = ? AND kind = 'grant')"
  await writer.run(`UPDATE grants SET ended = ?, ended_by = ? WHERE (id = ? OR task = ? OR ${below}) AND ${lives}`, [
    ...end,
    mark,
    mark,
    mark,
    ts,
  ])
  const [credId = '', grant = ''] = mark.split(' ')
  if (!mark.includes(' ')) return
  await writer.run(
    `UPDATE leases SET ended = ?, ended_by = ? WHERE cred_id = ? AND coalesce(grant_id, '') = ? AND issued <= ? AND ${lives}`,
    [...end, credId, grant, ts, ts],
  )
}

function under({ target, name, iss }: Order): { readonly sql: string; readonly values: readonly SqlValue[] } {
  switch (target) {
    case 'everything':
      return { sql: '1 = 1', values: [] }
    case 'human':
      return { sql: '(human = ? AND human_iss = ?)', values: [name, iss] }
    case 'agent':
      return { sql: "chain IN (SELECT chain FROM chains WHERE actor = ? AND kind = 'ai_agent')", values: [name] }
    case 'policy_set': {
      const above = `SELECT chain FROM chains WHERE kind = 'grant' AND actor IN (SELECT id FROM grants WHERE policy_set = ?)`
      return { sql: `(policy_set = ? OR chain IN (${above}))`, values: [name, name] }
    }
    default:
      return target satisfies never
  }
}

function insertion(table: string, values: GrantRow['values']): [sql: string, values: SqlValue[]] {
  const columns = Object.keys(values)
  return [
    `INSERT INTO ${table} (${columns.join(', ')}) VALUES (${columns.map(() => '?').join(', ')})`,
    Object.values(values),
  ]
}

function repeat(marks: string, count: number): string {
  return Array.from({ length: count }, () => marks).join(', ')
}

async function inChunks<T>(
  all: readonly T[],
  size: number,
  work: (chunk: readonly T[]) => Promise<void>,
): Promise<void> {
  for (let at = 0; at < all.length; at += size) await work(all.slice(at, at + size))
}
