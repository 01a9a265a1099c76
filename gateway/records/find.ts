/** Pages of records: newest or oldest first, each page beginning where the one before ended, whatever has come in between. */
import type { Database } from './database.ts'
import { type Bound, boundsOf, cursorOf, type Forms, groupsOf, invalid, readCursor, selection } from './matching.ts'
import type { Filter, Found, Page, Query } from './query.ts'
import { COLUMNS } from './row.ts'

export const MAX_LIMIT = 1000
const MAX_PAGE_CHARS = 4 * 1024 * 1024

const LISTED = COLUMNS.map((column) => `records.${column}`).join(', ')

/** @throws {GatewayError} `instruction_invalid` */
export async function findRecords(database: Database, query: Query, forms?: Forms): Promise<Omit<Page, 'lag'>> {
  const { limit, after, order = 'newest' } = query
  if (!Number.isSafeInteger(limit) || limit < 1 || limit > MAX_LIMIT)
    throw invalid(`limit: got ${limit}, allowed is a whole number, 1 to ${MAX_LIMIT}.`)
  const isNewest = order === 'newest'
  const start: Bound[] = after === undefined ? [] : [{ sign: isNewest ? '<' : '>', ...readCursor(after) }]
  const { from, id, where } = selection(database.dialect, groupsOf(query, forms), [...boundsOf(query), ...start])
  const way = isNewest ? 'DESC' : 'ASC'
  const then = database.dialect === 'sqlite' ? '' : `, records.log ${way}`
  const sql = `SELECT ${LISTED} FROM ${from} ${where.sql && `WHERE ${where.sql}`} ORDER BY ${id} ${way}${then} LIMIT ?`
  // One more than is shown: whether there is a next page.
  const rows = await database.all<Record<string, string | number | null>>(sql, [...where.values, limit + 1])
  const records = rows.slice(0, Math.min(limit, sizeable(rows))).map(foundOf)
  const last = records.at(-1)
  return { records, ...(rows.length > records.length && last !== undefined && { next: cursorOf(last) }) }
}

/** How many of these fit into an answer; at least one. What agents and instructions say can be long. */
function sizeable(rows: readonly Record<string, string | number | null>[]): number {
  let chars = 0
  const tooMany = rows.findIndex(({ detail, path, ua, policy_ids }) => {
    for (const long of [detail, path, ua, policy_ids]) chars += String(long ?? '').length
    return chars > MAX_PAGE_CHARS
  })
  return tooMany < 0 ? rows.length : Math.max(1, tooMany)
}

export async function countRecords(database: Database, filter: Filter, forms?: Forms): Promise<number> {
  const { source, where } = selection(database.dialect, groupsOf(filter, forms), boundsOf(filter))
  const sql = `SELECT COUNT(*) AS n FROM ${source} ${where.sql && `WHERE ${where.sql}`}`
  const [row] = await database.all<{ n: number }>(sql, where.values)
  return row?.n ?? 0
}

const JSON_COLUMNS: ReadonlySet<string> = new Set(['policy_ids', 'detail'])

export function foundOf(row: Record<string, string | number | null>): Found {
  const said = Object.entries(row).filter(([, value]) => value !== null)
  const read = ([name, value]: [string, unknown]) => [name, JSON_COLUMNS.has(name) ? JSON.parse(String(value)) : value]
  return Object.fromEntries(said.map(read)) as unknown as Found
}
