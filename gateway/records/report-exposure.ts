/** How long credentials could have been misused: their lifetimes, how much of it was used, the trend, and what leaked. */
import type { Database } from './database.ts'
import { type Condition, type Span, within } from './inquiry.ts'
import { type Counted, countOf, quantile } from './quantile.ts'

/** What short-lived credentials are compared with: a key that is changed every 90 days. */
export const COMPARED_S = 90 * 24 * 3600

export interface ExposureWeek {
  /** Monday 00:00 UTC, milliseconds since the epoch. */
  readonly week: number
  readonly issued: number
  readonly median_s: number | null
  readonly leaks: number
}

export interface Exposure {
  readonly span: Span
  /** Credentials that end by themselves. */
  readonly issued: number
  readonly median_s: number | null
  readonly p95_s: number | null
  /** 90 days divided by the median. */
  readonly factor: number | null
  /** Credential-seconds: from issue to the end, and from the first to the last call made with them. */
  readonly valid_s: number
  readonly used_s: number
  /** Names of credentials that do not end: no lifetime of theirs is in the numbers above. */
  readonly static_credentials: readonly string[]
  /** Credentials that came back in answers, and of others in requests. */
  readonly leaks: { readonly detected: number; readonly foreign: number }
  readonly weeks: readonly ExposureWeek[]
}

/** 1970-01-05 was a Monday. */
const MONDAY_MS = 345_600_000
const WEEK_MS = 604_800_000

interface LifeRow {
  readonly week: number
  readonly life: number
  readonly leases: number
  readonly valid: number
}

export async function exposure(database: Database, span: Span): Promise<Exposure> {
  const ephemeral = within({ sql: 'ephemeral = 1 AND expires IS NOT NULL', values: [] }, span, 'issued')
  const rows = await database.all<LifeRow>(
    `SELECT (issued - ${MONDAY_MS}) / ${WEEK_MS} AS week, (expires - issued + 500) / 1000 AS life, COUNT(*) AS leases,
       CAST(SUM(CASE WHEN ended IS NOT NULL AND ended < expires THEN ended ELSE expires END - issued) AS BIGINT) AS valid
     FROM leases WHERE ${ephemeral.sql} GROUP BY (issued - ${MONDAY_MS}) / ${WEEK_MS}, (expires - issued + 500) / 1000`,
    ephemeral.values,
  )
  const leaks = await leaksIn(database, span)
  const lives = rows.map(lifeOf)
  const median = quantile(lives, 0.5)
  return {
    span,
    issued: countOf(lives),
    median_s: median,
    p95_s: quantile(lives, 0.95),
    factor: median === null || median === 0 ? null : Math.round(COMPARED_S / median),
    valid_s: rows.reduce((sum, { valid }) => sum + valid, 0) / 1000,
    used_s: await usedSeconds(database, ephemeral),
    static_credentials: await staticIn(database, span),
    leaks: { detected: sumOf(leaks, 'leak.detected'), foreign: sumOf(leaks, 'leak.foreign') },
    weeks: weeksOf(rows, leaks),
  }
}

function lifeOf({ life, leases }: LifeRow): Counted {
  return { value: life, count: leases }
}

interface LeakRow {
  readonly week: number
  readonly kind: string
  readonly leaks: number
}

async function leaksIn(database: Database, span: Span): Promise<LeakRow[]> {
  const { sql, values } = within({ sql: `kind LIKE 'leak.%'`, values: [] }, span)
  return database.all<LeakRow>(
    `SELECT (ts - ${MONDAY_MS}) / ${WEEK_MS} AS week, kind, COUNT(*) AS leaks FROM records WHERE ${sql}
     GROUP BY (ts - ${MONDAY_MS}) / ${WEEK_MS}, kind`,
    values,
  )
}

function sumOf(leaks: readonly LeakRow[], kind: string): number {
  return leaks.reduce((sum, one) => sum + (one.kind === kind ? one.leaks : 0), 0)
}

async function usedSeconds(database: Database, { sql, values }: Condition): Promise<number> {
  const [row] = await database.all<{ used: number | null }>(
    `SELECT CAST(ROUND(SUM(last - first)) AS BIGINT) AS used FROM
       (SELECT cred_id, MIN(ts) AS first, MAX(ts + COALESCE(dur_ms, 0)) AS last FROM records
        WHERE kind = 'call' AND cred_id IN (SELECT cred_id FROM leases WHERE ${sql}) GROUP BY cred_id) AS uses`,
    values,
  )
  return (row?.used ?? 0) / 1000
}

async function staticIn(database: Database, span: Span): Promise<string[]> {
  const { sql, values } = within({ sql: 'ephemeral = 0 AND credential IS NOT NULL', values: [] }, span, 'issued')
  const rows = await database.all<{ credential: string }>(
    `SELECT DISTINCT credential FROM leases WHERE ${sql} ORDER BY credential`,
    values,
  )
  return rows.map(({ credential }) => credential)
}

function weeksOf(rows: readonly LifeRow[], leaks: readonly LeakRow[]): ExposureWeek[] {
  const weeks = new Set([...rows, ...leaks].map(({ week }) => week))
  return [...weeks]
    .sort((a, b) => a - b)
    .map((week) => {
      const lives = rows.filter((row) => row.week === week).map(lifeOf)
      return {
        week: week * WEEK_MS + MONDAY_MS,
        issued: countOf(lives),
        median_s: quantile(lives, 0.5),
        leaks: leaks.reduce((sum, one) => sum + (one.week === week ? one.leaks : 0), 0),
      }
    })
}
