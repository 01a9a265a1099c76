/** What was done under some grants: calls by operation and host, refusals, bytes, leaks, and what had not been seen before. */
import type { Database } from './database.ts'
import { among, type Ref, refOf } from './granted.ts'
import { type Condition, type Inquiry, merged, SEEN, type Seen, type SeenRow, within } from './inquiry.ts'

export interface Deed extends Seen {
  readonly operation: string | null
  readonly host: string | null
  readonly bytes_in: number
  readonly bytes_out: number
}

export interface Refusal extends Seen {
  readonly code: string | null
  readonly operation: string | null
}

export interface Leak {
  readonly entry: Ref
  readonly ts: number
  readonly kind: string
  readonly detail: Readonly<Record<string, unknown>>
}

/** Something that the agents concerned had not done before. */
export interface Unusual extends Seen {
  readonly what: 'operation' | 'host' | 'address'
  readonly value: string
}

export interface Deeds {
  readonly calls: number
  readonly allowed: number
  readonly refused: number
  readonly first: number | null
  readonly last: number | null
  readonly bytes_in: number
  readonly bytes_out: number
  /** Credentials that came back in answers and were overwritten. */
  readonly scrubbed: number
  readonly operations: readonly Deed[]
  readonly refusals: readonly Refusal[]
  readonly leaks: readonly Leak[]
  /** Compared with `baseline` earlier calls of the same agents; none of them: there is nothing to compare with. */
  readonly unusual: readonly Unusual[]
  readonly baseline: number
}

interface DoneRow extends SeenRow {
  readonly operation: string | null
  readonly host: string | null
  readonly effect: string
  readonly code: string | null
  readonly bytes_in: number | null
  readonly bytes_out: number | null
  readonly scrubbed: number | null
}

const LEAKS_SHOWN = 100

export async function deedsOf(database: Database, inquiry: Inquiry): Promise<Deeds> {
  const { sql, values } = inquiry.calls
  const rows = await database.all<DoneRow>(
    `SELECT ${SEEN}, operation, host, effect, code, CAST(SUM(bytes_in) AS BIGINT) AS bytes_in,
       CAST(SUM(bytes_out) AS BIGINT) AS bytes_out, CAST(SUM(scrubbed) AS BIGINT) AS scrubbed
     FROM records WHERE ${sql} GROUP BY log, operation, host, effect, code`,
    values,
  )
  const allowed = rows.filter(({ effect }) => effect === 'allow')
  const refused = rows.filter(({ effect }) => effect !== 'allow')
  const sum = (of: (row: DoneRow) => number | null) => rows.reduce((total, row) => total + (of(row) ?? 0), 0)
  const first = rows.length === 0 ? null : Math.min(...rows.map((row) => row.first))
  return {
    calls: sum((row) => row.calls),
    allowed: allowed.reduce((total, row) => total + row.calls, 0),
    refused: refused.reduce((total, row) => total + row.calls, 0),
    first,
    last: rows.length === 0 ? null : Math.max(...rows.map((row) => row.last)),
    bytes_in: sum((row) => row.bytes_in),
    bytes_out: sum((row) => row.bytes_out),
    scrubbed: sum((row) => row.scrubbed),
    operations: mostFirst(merged(totalled(allowed), (row) => [row.operation, row.host]).map(deedOf)),
    refusals: mostFirst(merged(refused, (row) => [row.code, row.operation]).map(refusalOf)),
    leaks: await leaksOf(database, inquiry),
    ...(await unusualIn(database, inquiry, first)),
  }
}

/** Bytes are added here: merging looks at what is seen only. */
function totalled(rows: readonly DoneRow[]): DoneRow[] {
  const groups = Map.groupBy(rows, ({ operation, host }) => JSON.stringify([operation, host]))
  return [...groups.values()].flatMap((group) => {
    const bytes_in = group.reduce((sum, row) => sum + (row.bytes_in ?? 0), 0)
    const bytes_out = group.reduce((sum, row) => sum + (row.bytes_out ?? 0), 0)
    return group.map((row) => ({ ...row, bytes_in, bytes_out }))
  })
}

function deedOf({ operation, host, bytes_in, bytes_out, ...row }: DoneRow & Seen): Deed {
  return { operation, host, ...seenIn(row), bytes_in: bytes_in ?? 0, bytes_out: bytes_out ?? 0 }
}

function refusalOf({ code, operation, ...row }: DoneRow & Seen): Refusal {
  return { code, operation, ...seenIn(row) }
}

function seenIn({ calls, first, last, first_entry, last_entry }: Seen): Seen {
  return { calls, first, last, first_entry, last_entry }
}

function mostFirst<Row extends Seen>(rows: readonly Row[]): Row[] {
  return rows.toSorted((a, b) => b.calls - a.calls || a.first - b.first)
}

async function leaksOf(database: Database, { grants, span, subject }: Inquiry): Promise<Leak[]> {
  const own = {
    sql: `kind LIKE 'leak.%' AND (${among(database, 'grant_id')} OR credential = ? OR cred_id = ?)`,
    values: [JSON.stringify(grants.map(({ id }) => id)), subject.id, subject.id],
  }
  const { sql, values } = within(own, span)
  const rows = await database.all<{ log: string; seq: number; ts: number; kind: string; detail: string | null }>(
    `SELECT log, seq, ts, kind, detail FROM records WHERE ${sql} ORDER BY ts DESC LIMIT ${LEAKS_SHOWN}`,
    values,
  )
  return rows.map(({ log, seq, ts, kind, detail }) => ({
    entry: refOf({ log, seq }),
    ts,
    kind,
    detail: detail === null ? {} : JSON.parse(detail),
  }))
}

const COLUMNS_OF_NOTE = [
  ['operation', 'operation'],
  ['host', 'host'],
  ['address', 'ip'],
] as const

/** `since`, or the first call concerned, parts what was usual from what is asked about. */
async function unusualIn(
  database: Database,
  inquiry: Inquiry,
  first: number | null,
): Promise<Pick<Deeds, 'unusual' | 'baseline'>> {
  const agents = [...new Set(inquiry.grants.flatMap(({ agent }) => agent ?? []))]
  const from = inquiry.span.since ?? first
  if (agents.length === 0 || from === null) return { unusual: [], baseline: 0 }
  const theirs = `kind = 'call' AND effect = 'allow' AND ${among(database, 'agent')}`
  const values = [JSON.stringify(agents)]
  const [before] = await database.all<{ calls: number }>(
    `SELECT COUNT(*) AS calls FROM records WHERE ${theirs} AND ts < ?`,
    [...values, from],
  )
  const baseline = Number(before?.calls ?? 0)
  if (baseline === 0) return { unusual: [], baseline }
  const until = inquiry.span.until ?? Number.MAX_SAFE_INTEGER
  const condition = { sql: theirs, values }
  const unusual: Unusual[] = []
  for (const [what, column] of COLUMNS_OF_NOTE)
    unusual.push(...(await newIn(database, condition, { what, column, from, until })))
  return { unusual, baseline }
}

async function newIn(
  database: Database,
  { sql, values }: Condition,
  o: { readonly what: Unusual['what']; readonly column: string; readonly from: number; readonly until: number },
): Promise<Unusual[]> {
  const rows = await database.all<SeenRow & { value: string | null }>(
    `SELECT ${SEEN}, ${o.column} AS value FROM records WHERE ${sql} GROUP BY log, ${o.column}`,
    values,
  )
  return merged(rows, ({ value }) => value).flatMap(({ value, ...row }) =>
    value !== null && row.first >= o.from && row.first < o.until ? [{ what: o.what, value, ...seenIn(row) }] : [],
  )
}
