/** Pages of records: newest or oldest first, each page beginning where the one before ended, whatever has come in between. */
import type { Database } from './database.ts'
import { type Bound, boundsOf, cursorOf, type Forms, groupsOf, invalid, readCursor, selection } from './matching.ts'
import type { Filter, Found, Page, Query } from './query.ts'
import { COLUMNS } from './row.ts'

export const MAX_LIMIT = 1000

const LISTED = COLUMNS.map((column) => `records.${column}`).join(', ')

/** @throws {GatewayError} `instruction_invalid` */
export async function findRecords(database: Database, query: Query, forms?: Forms): Promise<Omit<Page, 'lag'>> {
  const { limit, after, order = 'newest' } = query
  if (!Number.isSafeInteger(limit) || limit < 1 || limit > MAX_LIMIT)
    throw invalid(`limit: got what is none, allowed is a whole number, 1 to ${MAX_LIMIT}.`)
  const isNewest = order === 'newest'
  const start: Bound[] = after === undefined ? [] : [{ sign: isNewest ? '<' : '>', ...readCursor(after) }]
  const { from, id, where } = selection(database.dialect, groupsOf(query, forms), [...boundsOf(query), ...start])
  const way = isNewest ? 'DESC' : 'ASC'
  const then = database.dialect === 'sqlite' ? '' : `, records.log ${way}`
  const sql = `SELECT ${LISTED} FROM ${from} ${where.sql && `WHERE ${where.sql}`} ORDER BY ${id} ${way}${then} LIMIT ?`
  // One more than is shown: whether there is a next page.
  const rows = await database.all<Record<string, string | number | null>>(sql, [...where.values, limit + 1])
  const records = rows.slice(0, limit).map(foundOf)
  const last = records.at(-1)
  return { records, ...(rows.length > limit && last !== undefined && { next: cursorOf(last) }) }
}

export async function countRecords(database: Database, filter: Filter, forms?: Forms): Promise<number> {
  const { source, where } = selection(database.dialect, groupsOf(filter, forms), boundsOf(filter))
  const sql = `SELECT COUNT(*) AS n FROM ${source} ${where.sql && `WHERE ${where.sql}`}`
  const [row] = await database.all<{ n: number }>(sql, where.values)
  return row?.n ?? 0
}

export function foundOf(row: Record<string, string | number | null>): Found {
  return Object.fromEntries(Object.entries(row).filter(([, value]) => value !== null)) as unknown as Found
}
