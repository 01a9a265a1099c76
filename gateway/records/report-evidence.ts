/** Evidence for an auditor: control → entries that show it, how many, some with their proofs; and plainly where there are none. */

import { CONTROLS, type Control, type Evidence } from './controls.ts'
import type { Database } from './database.ts'
import { FRAMEWORKS, type Framework, REFERENCES } from './frameworks.ts'
import { type Ref, refOf } from './granted.ts'
import { type Span, within } from './inquiry.ts'

export interface Sample {
  readonly entry: Ref
  readonly ts: number
  readonly kind: string
  /** C2SP tlog-proof of the entry; absent when its log is not at hand. */
  readonly proof?: string
}

export interface Shown {
  readonly shows: string
  readonly entries: number
  /** Newest first. */
  readonly samples: readonly Sample[]
}

export interface ControlEvidence {
  readonly control: string
  readonly references: readonly string[]
  /** Only what has entries. */
  readonly shown: readonly Shown[]
  /** What no entry shows. */
  readonly missing: readonly string[]
  /** Nothing at all shows it. */
  readonly isGap: boolean
  readonly elsewhere: string | null
}

export interface EvidenceReport {
  readonly framework: string
  readonly note: string
  readonly span: Span
  /** Entries that the index has in the span: whatever came of them. */
  readonly records: number
  readonly controls: readonly ControlEvidence[]
}

export interface EvidenceOptions {
  readonly framework: Framework
  readonly nowMs: number
  /** @returns undefined when the entry cannot be proved here. */
  prove?(entry: Ref): Promise<string | undefined>
}

const SAMPLES = 3
const NOTE = 'Which entries speak for which control is a proposal: have an auditor confirm it.'

export async function evidence(database: Database, span: Span, o: EvidenceOptions): Promise<EvidenceReport> {
  const { records, counts } = await countAll(database, span, o)
  const controls: ControlEvidence[] = []
  for (const control of CONTROLS.filter((control) => placesOf(control, o.framework).length > 0))
    controls.push(await evidenceOf(database, control, span, { ...o, counts }))
  return { framework: FRAMEWORKS[o.framework], note: NOTE, span, records, controls }
}

function placesOf({ id }: Control, framework: Framework): readonly string[] {
  const places: Readonly<Partial<Record<Framework, readonly string[]>>> = REFERENCES[id]
  return places[framework] ?? []
}

type Counts = ReadonlyMap<Evidence, number>

/** In one pass: an index of a million records is read once, not once for each kind of evidence. */
async function countAll(
  database: Database,
  span: Span,
  { nowMs }: EvidenceOptions,
): Promise<{ readonly records: number; readonly counts: Counts }> {
  const wanted = CONTROLS.flatMap((control) => control.evidence)
  const columns = wanted.map((one, i) => `COUNT(CASE WHEN ${conditionOf(one, nowMs)} THEN 1 END) AS n${i}`)
  const { sql, values } = within({ sql: '1 = 1', values: [] }, span)
  const [row] = await database.all<Record<string, number>>(
    `SELECT COUNT(*) AS records, ${columns.join(', ')} FROM records WHERE ${sql}`,
    values,
  )
  return { records: row?.records ?? 0, counts: new Map(wanted.map((one, i) => [one, row?.[`n${i}`] ?? 0])) }
}

function conditionOf({ where }: Evidence, nowMs: number): string {
  return `(${where.replace(':now', String(nowMs))})`
}

type Looking = EvidenceOptions & { readonly counts: Counts }

async function evidenceOf(database: Database, control: Control, span: Span, o: Looking): Promise<ControlEvidence> {
  const shown: Shown[] = []
  for (const one of control.evidence) shown.push(await shownBy(database, one, span, o))
  const some = shown.filter(({ entries }) => entries > 0)
  return {
    control: control.name,
    references: placesOf(control, o.framework),
    shown: some,
    missing: shown.filter(({ entries }) => entries === 0).map(({ shows }) => shows),
    isGap: some.length === 0,
    elsewhere: control.elsewhere ?? null,
  }
}

async function shownBy(database: Database, one: Evidence, span: Span, o: Looking): Promise<Shown> {
  const entries = o.counts.get(one) ?? 0
  if (entries === 0) return { shows: one.shows, entries, samples: [] }
  const { sql, values } = within({ sql: conditionOf(one, o.nowMs), values: [] }, span)
  const rows = await database.all<{ log: string; seq: number; ts: number; kind: string }>(
    `SELECT log, seq, ts, kind FROM records WHERE ${sql} ORDER BY id DESC LIMIT ${SAMPLES}`,
    values,
  )
  const samples: Sample[] = []
  for (const { ts, kind, ...place } of rows) {
    const entry = refOf(place)
    const proof = await o.prove?.(entry)
    samples.push({ entry, ts, kind, ...(proof !== undefined && { proof }) })
  }
  return { shows: one.shows, entries, samples }
}
