/**
 * What became of a credential, a grant, an agent or a task: what it could reach, what it did, who gave it and under which policy,
 * and whether it looks stolen, misconfigured or too broad. Everything is computed from entries and names them.
 */

import { type Blast, blastOf } from './blast.ts'
import { wasTooBroad } from './breadth.ts'
import type { Database } from './database.ts'
import { type Deeds, deedsOf } from './deeds.ts'
import { above, byId, listIn } from './granted.ts'
import { grantorsOf, type Hop } from './grantors.ts'
import { type Inquiry, inquire, merged, SEEN, type Seen, type SeenRow, type Span, type Subject } from './inquiry.ts'
import { wasMisconfigured } from './misconfigured.ts'
import { type Noted, notedOf } from './noted.ts'
import { privilegeOf, type Reachable, reachOf, type Vocabulary, vocabularyIn } from './reach.ts'
import { wasStolen } from './stolen.ts'
import type { Verdict } from './verdict.ts'

export interface Reached extends Reachable {
  /** Grants concerned that allowed it. */
  readonly grants: number
  /** Calls that were allowed. */
  readonly calls: number
}

export interface PolicyUse extends Seen {
  readonly policies: readonly string[]
  readonly policy_set: string | null
  readonly effect: string
}

export interface Investigation {
  readonly subject: Subject
  readonly span: Span
  /** How many grants are concerned, and how many were looked at one by one. */
  readonly grants: { readonly all: number; readonly read: number }
  readonly reach: {
    readonly source: Vocabulary['source']
    readonly privilege: number
    readonly operations: readonly Reached[]
  }
  readonly deeds: Deeds
  readonly grantors: readonly Hop[]
  /** What people and rules did about it, newest first. */
  readonly noted: readonly Noted[]
  readonly policies: readonly PolicyUse[]
  readonly verdicts: readonly Verdict[]
  readonly blast: Blast
}

export interface InvestigateOptions {
  /** Services of the gateway; undefined: what the log knows. */
  readonly vocabulary?: Vocabulary
  readonly nowMs: number
}

/** @returns undefined when the index knows nothing under that name. */
export async function investigate(
  database: Database,
  { subject, span }: { readonly subject: Subject; readonly span: Span },
  { vocabulary, nowMs }: InvestigateOptions,
): Promise<Investigation | undefined> {
  const inquiry = await inquire(database, subject, span)
  if (inquiry === undefined) return undefined
  const words = vocabulary ?? (await vocabularyIn(database))
  const deeds = await deedsOf(database, inquiry)
  const reached = reachedBy(inquiry, words, deeds)
  return {
    subject,
    span,
    grants: { all: await countOf(database, inquiry), read: inquiry.grants.length },
    reach: { source: words.source, privilege: privilegeOf(reached), operations: reached },
    deeds,
    grantors: await grantorsOf(database, inquiry),
    noted: await notedOf(database, inquiry),
    policies: await policiesOf(database, inquiry),
    verdicts: [
      await wasStolen(database, inquiry),
      await wasMisconfigured(database, inquiry, words),
      await wasTooBroad(database, inquiry, { words, nowMs }),
    ],
    blast: await blastOf(database, inquiry, nowMs),
  }
}

async function countOf(database: Database, { subject, grants }: Inquiry): Promise<number> {
  if (subject.kind !== 'agent' && subject.kind !== 'task') return grants.length
  const sql = `SELECT COUNT(*) AS grants FROM grants WHERE ${subject.kind} = ?`
  const [row] = await database.all<{ grants: number }>(sql, [subject.id])
  return row?.grants ?? grants.length
}

/** Used operations that it did not reach are none: policy decides on top of it. */
function reachedBy({ grants, parents }: Inquiry, words: Vocabulary, deeds: Deeds): Reached[] {
  const known = byId([...parents, ...grants])
  const calls = new Map<string, number>()
  for (const { operation, calls: n } of deeds.operations)
    if (operation !== null) calls.set(operation, (calls.get(operation) ?? 0) + n)
  const all = new Map<string, { one: Reachable; grants: number }>()
  // Of thousands of grants most cover the same.
  const alike = Map.groupBy(grants, (grant) =>
    JSON.stringify([...above(known, grant.id), grant].map((one) => one.authority)),
  )
  for (const group of alike.values()) {
    const [head] = group
    if (head === undefined) continue
    for (const one of reachOf([...above(known, head.id), head], words)) {
      const before = all.get(one.operation)
      const hosts = [...new Set([...(before?.one.hosts ?? []), ...one.hosts])].sort()
      all.set(one.operation, { one: { ...one, hosts }, grants: (before?.grants ?? 0) + group.length })
    }
  }
  return [...all.values()]
    .map(({ one, grants: n }) => ({ ...one, grants: n, calls: calls.get(one.operation) ?? 0 }))
    .toSorted((a, b) => b.calls - a.calls || a.operation.localeCompare(b.operation))
}

interface PolicyRow extends SeenRow {
  readonly policy_ids: string | null
  readonly policy_set: string | null
  readonly effect: string
}

async function policiesOf(database: Database, { calls }: Inquiry): Promise<PolicyUse[]> {
  const rows = await database.all<PolicyRow>(
    `SELECT ${SEEN}, policy_ids, policy_set, effect FROM records WHERE ${calls.sql} AND policy_set IS NOT NULL
     GROUP BY log, policy_ids, policy_set, effect`,
    calls.values,
  )
  return merged(rows, (row) => [row.policy_ids, row.policy_set, row.effect])
    .map(({ policy_ids, policy_set, effect, ...row }) => ({
      policies: listIn(policy_ids),
      policy_set,
      effect,
      ...{ calls: row.calls, first: row.first, last: row.last },
      ...{ first_entry: row.first_entry, last_entry: row.last_entry },
    }))
    .toSorted((a, b) => b.calls - a.calls)
}
