/** Promises in time, held against the entries: how fast credentials are issued, how fast a revocation stops everything, how often policy answered. */
import type { Database } from './database.ts'
import type { Ref } from './granted.ts'
import { type Span, within } from './inquiry.ts'
import { type Counted, countOf, meanOf, quantile } from './quantile.ts'

export const TARGETS = { issuance_p99_ms: 100, revoke_mean_ms: 5 * 60_000 } as const

export interface Slo {
  readonly span: Span
  /** From the question to a provider to its answer, milliseconds. */
  readonly issuance: {
    readonly issued: number
    readonly p50_ms: number | null
    readonly p99_ms: number | null
    /** Null: nothing was issued. */
    readonly isMet: boolean | null
  }
  /** From the entry that ends a grant to the last call under it, the last byte of calls under way, and until its credentials were let go of. */
  readonly revocation: {
    readonly revocations: number
    readonly mean_ms: number | null
    readonly p99_ms: number | null
    readonly slowest: { readonly entry: Ref; readonly ms: number } | null
    /** Calls that were allowed after the end of their grant. */
    readonly late_calls: number
    /** Credentials of ended grants that nobody confirmed the end of: they were used no more, and lived on until they expired. */
    readonly unconfirmed: { readonly credentials: number; readonly longest_s: number | null }
    readonly isMet: boolean | null
    /** Of people, signals and rules (`revocation.ordered`): how many, how many could not be carried out wholly at first, and how long those that were took. */
    readonly orders: { readonly given: number; readonly failed: number; readonly p99_ms: number | null }
  }
  readonly decisions: {
    readonly calls: number
    /** Refused because the gateway itself could not decide or record. */
    readonly failed: number
    /** Refused while the log could not be written, as `log.recovered` says. */
    readonly unrecorded: number
    /** 0 to 1; null without calls. */
    readonly availability: number | null
  }
}

/** Refusals that are no answer of policy, but a failure of ours. */
const FAILURES = `('internal', 'store_unavailable', 'audit_unavailable', 'clock_set_back')`

export async function slo(database: Database, span: Span): Promise<Slo> {
  const issuance = await issuanceOf(database, span)
  const revocation = await revocationOf(database, span)
  const decisions = await decisionsOf(database, span)
  return { span, issuance, revocation, decisions }
}

async function issuanceOf(database: Database, span: Span): Promise<Slo['issuance']> {
  const { sql, values } = within({ sql: `kind = 'lease.issued' AND issue_ms IS NOT NULL`, values: [] }, span, 'issued')
  const measured = await database.all<Counted>(
    `SELECT issue_ms AS value, COUNT(*) AS count FROM leases WHERE ${sql} GROUP BY issue_ms`,
    values,
  )
  const p99 = quantile(measured, 0.99)
  return {
    issued: countOf(measured),
    p50_ms: quantile(measured, 0.5),
    p99_ms: p99,
    isMet: p99 === null ? null : p99 <= TARGETS.issuance_p99_ms,
  }
}

interface EndRow {
  readonly ended_by: Ref
  /** Milliseconds from the end to the last of what is measured; below 0 or null: nothing came after it. */
  readonly ms: number | null
}

/** Policy had allowed it, and its grant was seen to be dead before it got a credential: nothing left the gateway. */
const STOPPED = `(COALESCE(r.error, '') IN ('grant_revoked', 'task_suspended') AND r.cred_id IS NULL)`

async function revocationOf(database: Database, span: Span): Promise<Slo['revocation']> {
  const { sql, values } = within({ sql: 'ended_by IS NOT NULL', values: [] }, span, 'ended')
  const ended = `(SELECT id, ended, ended_by FROM grants WHERE ${sql}) AS g`
  const all = await database.all<{ ended_by: Ref }>(`SELECT DISTINCT ended_by FROM grants WHERE ${sql}`, values)
  const calls = await database.all<EndRow & { calls: number }>(
    `SELECT g.ended_by AS ended_by, MAX(r.ts - g.ended) AS ms, COUNT(*) AS calls FROM ${ended}
     JOIN records r ON r.grant_id = g.id AND r.kind = 'call' AND r.effect = 'allow' AND r.ts > g.ended AND NOT ${STOPPED}
     GROUP BY g.ended_by`,
    values,
  )
  const cut = await database.all<EndRow>(
    `SELECT g.ended_by AS ended_by, MAX(r.ts + r.dur_ms - g.ended) AS ms FROM ${ended}
     JOIN records r ON r.grant_id = g.id AND r.kind = 'call' AND r.effect = 'allow' AND r.ts <= g.ended
       AND r.ts + r.dur_ms > g.ended GROUP BY g.ended_by`,
    values,
  )
  const leases = await database.all<EndRow>(
    `SELECT g.ended_by AS ended_by, MAX(r.ts - g.ended) AS ms FROM ${ended}
     JOIN records r ON r.grant_id = g.id AND r.kind = 'lease.revoked' AND r.ts > g.ended GROUP BY g.ended_by`,
    values,
  )
  const [open] = await database.all<{ credentials: number; longest: number | null }>(
    `SELECT COUNT(*) AS credentials, MAX(l.expires - g.ended) AS longest FROM ${ended}
     JOIN leases l ON l.grant_id = g.id AND l.ended IS NULL AND l.ephemeral = 1 AND l.expires > g.ended`,
    values,
  )
  const late = calls.reduce((sum, row) => sum + row.calls, 0)
  const times = new Map(all.map(({ ended_by }) => [ended_by, 0]))
  for (const { ended_by, ms } of [...calls, ...cut, ...leases])
    times.set(ended_by, Math.max(times.get(ended_by) ?? 0, Math.round(ms ?? 0)))
  return {
    ...timesToRevoke(times),
    late_calls: late,
    orders: await ordersOf(database, span),
    unconfirmed: { credentials: open?.credentials ?? 0, longest_s: open?.longest == null ? null : open.longest / 1000 },
  }
}

async function ordersOf(database: Database, span: Span): Promise<Slo['revocation']['orders']> {
  const { sql, values } = within({ sql: `kind LIKE 'revocation.%'`, values: [] }, span)
  const counts = await database.all<{ kind: string; n: number }>(
    `SELECT kind, COUNT(*) AS n FROM records WHERE ${sql} GROUP BY kind`,
    values,
  )
  const of = (kind: string) => counts.reduce((sum, row) => sum + (row.kind === kind ? row.n : 0), 0)
  const done = within({ sql: `kind = 'revocation.completed' AND detail IS NOT NULL`, values: [] }, span)
  const rows = await database.all<{ detail: string }>(`SELECT detail FROM records WHERE ${done.sql}`, done.values)
  const measured = rows.flatMap(({ detail }) => {
    const ms = numberIn(detail, 'ms')
    return ms === undefined ? [] : [{ value: ms, count: 1 }]
  })
  return {
    given: of('revocation.ordered'),
    failed: of('revocation.failed'),
    p99_ms: quantile(
      measured.toSorted((a, b) => a.value - b.value),
      0.99,
    ),
  }
}

function timesToRevoke(times: ReadonlyMap<Ref, number>) {
  const measured = [...times.values()].map((value) => ({ value, count: 1 }))
  const [entry, ms] = [...times].reduce<readonly [Ref, number]>((a, b) => (b[1] > a[1] ? b : a), ['', 0])
  const mean = meanOf(measured)
  return {
    revocations: times.size,
    mean_ms: mean,
    p99_ms: quantile(measured, 0.99),
    slowest: entry === '' ? null : { entry, ms },
    isMet: mean === null ? null : mean <= TARGETS.revoke_mean_ms,
  }
}

async function decisionsOf(database: Database, span: Span): Promise<Slo['decisions']> {
  const calls = within({ sql: `kind = 'call'`, values: [] }, span)
  const [row] = await database.all<{ calls: number; failed: number }>(
    `SELECT COUNT(*) AS calls, COUNT(CASE WHEN code IN ${FAILURES} THEN 1 END) AS failed FROM records WHERE ${calls.sql}`,
    calls.values,
  )
  const recovered = within({ sql: `kind = 'log.recovered' AND detail IS NOT NULL`, values: [] }, span)
  const rows = await database.all<{ detail: string }>(
    `SELECT detail FROM records WHERE ${recovered.sql}`,
    recovered.values,
  )
  const unrecorded = rows.reduce((sum, { detail }) => sum + refusedIn(detail), 0)
  const [total, failed] = [(row?.calls ?? 0) + unrecorded, (row?.failed ?? 0) + unrecorded]
  return {
    calls: row?.calls ?? 0,
    failed: row?.failed ?? 0,
    unrecorded,
    availability: total === 0 ? null : 1 - failed / total,
  }
}

function refusedIn(detail: string): number {
  return numberIn(detail, 'refused') ?? 0
}

function numberIn(detail: string, fact: string): number | undefined {
  const found = (JSON.parse(detail) as { facts?: Readonly<Record<string, unknown>> }).facts?.[fact]
  return typeof found === 'number' ? found : undefined
}
