/**
 * A task as the tree of what descends from it: the human, the agents, their grants with the policies behind them, what each
 * called, and why it ended. And the sentence of one call, from the index alone.
 */
import type { Entry, Step } from '../audit/entries/entry.ts'
import { sentence } from '../audit/entries/lineage.ts'
import type { Database } from './database.ts'
import { among, byId, type Granted, grantById, grantsWhere, listIn, type Ref, refOf } from './granted.ts'
import { merged, SEEN, type Seen, type SeenRow } from './inquiry.ts'
import { COLUMNS } from './row.ts'

export interface TreeCall extends Seen {
  readonly operation: string | null
  readonly host: string | null
  readonly effect: string
  readonly code: string | null
}

export interface TreeGrant {
  readonly grant: Granted
  /** What ended it, in words; null while it lives. */
  readonly end: string | null
  readonly isSought: boolean
  readonly calls: readonly TreeCall[]
  readonly children: readonly TreeGrant[]
}

export interface TaskTree {
  readonly task: string
  readonly purpose: string | null
  readonly human: string | null
  readonly human_iss: string | null
  /** Root grants, oldest first: later ones took the place of earlier ones, or went on beside them. */
  readonly roots: readonly TreeGrant[]
  /** Grants of the task that are not in the tree because there are more than `GRANTS_SHOWN`. */
  readonly left_out: number
}

export interface Lineage {
  /** Of the call that was asked about. */
  readonly sentence: string | null
  readonly entries: readonly Ref[]
  /** Newest first; more than one only for an agent. */
  readonly tasks: readonly TaskTree[]
}

const GRANTS_SHOWN = 500
const TASKS_SHOWN = 10

/**
 * @param id of a call or instruction, `log:seq` or the number of an entry, of a grant, of a task, or of an agent.
 * @returns undefined when the index knows no such thing.
 */
export async function lineageOf(database: Database, id: string, nowMs: number): Promise<Lineage | undefined> {
  const record = await recordOf(database, id)
  const sought = record?.grant_id ?? id
  const tasks = record === undefined ? await tasksOf(database, id) : [record.task].filter((task) => task !== null)
  if (record === undefined && tasks.length === 0) return undefined
  const trees: TaskTree[] = []
  for (const task of tasks) trees.push(await treeOf(database, task, { sought, nowMs }))
  return {
    sentence: record === undefined ? null : await sentenceOf(database, record),
    entries:
      record === undefined
        ? []
        : [refOf(record), ...(record.end_seq ? [refOf({ ...record, seq: record.end_seq })] : [])],
    tasks: trees,
  }
}

interface CallRecord {
  readonly log: string
  readonly seq: number
  readonly end_seq: number | null
  readonly kind: string
  readonly ts: number
  readonly human: string | null
  readonly human_iss: string | null
  readonly task: string | null
  readonly purpose: string | null
  readonly grant_id: string | null
  readonly chain: string | null
  readonly operation: string | null
  readonly service: string | null
  readonly method: string | null
  readonly scheme: string | null
  readonly host: string | null
  readonly port: number | null
  readonly path: string | null
  readonly effect: string | null
  readonly code: string | null
  readonly policy_ids: string | null
  readonly status: number | null
  readonly error: string | null
  readonly ip: string | null
}

/** By its id, or by the number of either of its entries. A grant's id is no record's. */
async function recordOf(database: Database, id: string): Promise<CallRecord | undefined> {
  const numbered = /^(?:(?<log>.+):)?#?(?<seq>\d{1,15})$/.exec(id)?.groups
  const sql = numbered
    ? `SELECT ${COLUMNS.join(', ')} FROM records WHERE (seq = ? OR end_seq = ?)${numbered.log === undefined ? '' : ' AND log = ?'} LIMIT 2`
    : `SELECT ${COLUMNS.join(', ')} FROM records WHERE req = ? ORDER BY CASE kind WHEN 'call' THEN 0 ELSE 1 END, ts, seq LIMIT 1`
  const seq = Number(numbered?.seq)
  const values = numbered ? [seq, seq, ...(numbered.log === undefined ? [] : [numbered.log])] : [id]
  const found = await database.all<CallRecord>(sql, values)
  if (found.length > 1)
    throw new Error(`Several logs have an entry ${id}. Write which, as in ${found.map(refOf).join(' or ')}.`)
  return found[0]
}

async function tasksOf(database: Database, id: string): Promise<string[]> {
  const grant = await grantById(database, id)
  if (grant) return grant.task === null ? [] : [grant.task]
  const rows = await database.all<{ task: string }>(
    `SELECT task, MAX(issued) AS last FROM grants WHERE (task = ? OR agent = ?) AND task IS NOT NULL
     GROUP BY task ORDER BY last DESC LIMIT ${TASKS_SHOWN}`,
    [id, id],
  )
  return rows.map(({ task }) => task)
}

interface TreeOptions {
  readonly sought: string
  readonly nowMs: number
}

async function treeOf(database: Database, task: string, o: TreeOptions): Promise<TaskTree> {
  const grants = (await grantsWhere(database, 'task = ?', [task], GRANTS_SHOWN)).toReversed()
  const [counted] = await database.all<{ grants: number }>('SELECT COUNT(*) AS grants FROM grants WHERE task = ?', [
    task,
  ])
  const calls = await callsUnder(database, grants)
  const ends = await endsOf(database, grants)
  const known = byId(grants)
  const children = Map.groupBy(grants, ({ parent }) => parent)
  const branch = (grant: Granted): TreeGrant => ({
    grant,
    end: endIn(grant, ends, o.nowMs),
    isSought: grant.id === o.sought || grant.agent === o.sought,
    calls: calls.get(grant.id) ?? [],
    children: (children.get(grant.id) ?? []).map(branch),
  })
  const roots = grants.filter(({ parent }) => parent === null || !known.has(parent))
  const [first] = grants
  return {
    task,
    purpose: first?.purpose ?? null,
    human: first?.human ?? null,
    human_iss: first?.human_iss ?? null,
    roots: roots.map(branch),
    left_out: (counted?.grants ?? grants.length) - grants.length,
  }
}

interface CallRow extends SeenRow, Omit<TreeCall, keyof Seen> {
  readonly grant_id: string
}

async function callsUnder(database: Database, grants: readonly Granted[]): Promise<Map<string, TreeCall[]>> {
  const rows = await database.all<CallRow>(
    `SELECT ${SEEN}, grant_id, operation, host, effect, code FROM records
     WHERE kind = 'call' AND ${among(database, 'grant_id')} GROUP BY log, grant_id, operation, host, effect, code`,
    [JSON.stringify(grants.map(({ id }) => id))],
  )
  const all = merged(rows, (row) => [row.grant_id, row.operation, row.host, row.effect, row.code])
  return Map.groupBy(
    all.toSorted((a, b) => a.first - b.first),
    ({ grant_id }) => grant_id,
  )
}

/** Entry that ended a grant → why. */
async function endsOf(database: Database, grants: readonly Granted[]): Promise<Map<Ref, string>> {
  const refs = [...new Set(grants.flatMap(({ ended_by }) => ended_by ?? []))]
  const rows = await database.all<{ log: string; seq: number; kind: string; detail: string | null }>(
    `SELECT log, seq, kind, detail FROM records WHERE ${among(database, "log || ':' || seq")}`,
    [JSON.stringify(refs)],
  )
  return new Map(rows.map((row) => [refOf(row), reasonIn(row.detail) ?? row.kind]))
}

/** Of `grant.revoked` and its like; of an order. */
interface Ended {
  readonly reason?: unknown
  readonly target?: unknown
  readonly name?: unknown
}

function reasonIn(detail: string | null): string | undefined {
  const { reason, target, name } = detail === null ? {} : ((JSON.parse(detail) as { facts?: Ended }).facts ?? {})
  if (typeof reason === 'string') return reason.replaceAll('_', ' ')
  if (typeof target !== 'string') return undefined
  return ['revoked by an order about', target.replaceAll('_', ' '), typeof name === 'string' ? name : '']
    .join(' ')
    .trim()
}

function endIn({ ended, ended_by, expires }: Granted, ends: ReadonlyMap<Ref, string>, nowMs: number): string | null {
  if (ended !== null) return ends.get(ended_by ?? '') ?? 'ended'
  return expires <= nowMs ? 'expired' : null
}

/** The same words as from the entries themselves: `audit/entries/lineage.ts`. */
async function sentenceOf(database: Database, row: CallRecord): Promise<string | null> {
  if (row.kind !== 'call' || row.host === null) return null
  const actors = await database.all<{ actor: string; n: number; kind: string }>(
    'SELECT actor, n, kind FROM chains WHERE chain = ? ORDER BY n',
    [row.chain],
  )
  const grants = actors.filter(({ kind }) => kind === 'grant')
  const steps = actors
    .filter(({ kind }) => kind !== 'grant')
    .map(({ actor, n, kind }): Step => {
      const grant = grants.find((one) => one.n === n)?.actor
      return { n, type: kind, id: actor, ...(grant !== undefined && { grant }) }
    })
  const makers = await grantsWhere(database, among(database, 'id'), [JSON.stringify(grants.map(({ actor }) => actor))])
  const decision = decisionOf(row, steps)
  const outcome: Entry | undefined =
    row.end_seq === null
      ? undefined
      : { ...decision, kind: 'call.outcome', outcome: { status: row.status ?? 0, error: row.error, dur_ms: 0 } }
  const made = makers.map(
    (one) => [one.id, { ...decision, decision: { effect: 'allow', policy_ids: one.policy_ids } }] as const,
  )
  return sentence(decision, outcome, new Map(made))
}

function decisionOf(row: CallRecord, lineage: readonly Step[]): Entry {
  return {
    v: 'ar/1',
    seq: row.seq,
    ts: new Date(row.ts).toISOString(),
    kind: 'call.decision',
    ...(row.human !== null && { human: { iss: row.human_iss ?? '', sub: row.human } }),
    ...(row.task !== null && { task: { id: row.task, purpose: row.purpose ?? '' } }),
    ...(lineage.length > 0 && { lineage }),
    client: { ip: row.ip ?? '', mode: '' },
    target: {
      scheme: row.scheme ?? 'https',
      host: row.host ?? '',
      port: row.port ?? 443,
      method: row.method ?? '',
      path: row.path ?? '',
      ...(row.operation !== null && { operation: row.operation }),
    },
    decision: {
      effect: row.effect ?? '',
      ...(row.code !== null && { code: row.code }),
      ...(row.status !== null && { status: row.status }),
      policy_ids: listIn(row.policy_ids),
    },
  }
}
