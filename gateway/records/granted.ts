/** Grants as the index has them, with those above and below: what inquiries and reports begin with. */
import type { Authority } from '../protocol/grant.ts'
import type { Database, SqlValue } from './database.ts'

/** `log:seq` of an entry: what `keyless log prove` takes. */
export type Ref = string

export interface Granted {
  readonly id: string
  readonly entry: Ref
  readonly log: string
  /** `grant.issued`, `grant.delegated`, `grant.replaced`. */
  readonly kind: string
  readonly parent: string | null
  readonly replaces: string | null
  readonly depth: number
  readonly human: string | null
  readonly human_iss: string | null
  readonly agent: string | null
  readonly owner: string | null
  readonly risk_tier: string | null
  readonly attested: boolean
  /** What the agent proved itself by: kind, issuer, instance. */
  readonly workload: Readonly<Record<string, unknown>> | null
  readonly task: string | null
  readonly purpose: string | null
  readonly chain: string | null
  readonly authority: readonly Authority[]
  /** Key that it is bound to. */
  readonly cnf: string | null
  readonly policy_ids: readonly string[]
  readonly policy_set: string | null
  /** Milliseconds since the epoch, like all times here. */
  readonly issued: number
  readonly expires: number
  readonly ended: number | null
  readonly ended_by: string | null
}

interface Row {
  readonly [column: string]: string | number | null
}

const COLUMNS =
  'id, log, seq, kind, parent, replaces, depth, human, human_iss, agent, owner, risk_tier, attested, workload, task, purpose, chain, authority, cnf, policy_ids, policy_set, issued, expires, ended, ended_by'

/** Newest first. `where` is SQL over `grants`; at most `limit`. */
export async function grantsWhere(
  database: Database,
  where: string,
  values: readonly SqlValue[],
  limit = 1000,
): Promise<Granted[]> {
  const sql = `SELECT ${COLUMNS} FROM grants WHERE ${where} ORDER BY issued DESC, seq DESC LIMIT ?`
  const rows = await database.all<Row>(sql, [...values, limit])
  return rows.map(grantedOf)
}

/** @returns undefined when the index has no such grant. */
export async function grantById(database: Database, id: string): Promise<Granted | undefined> {
  return (await grantsWhere(database, 'id = ?', [id], 1))[0]
}

/** Ids of grants, root first, above one of these; themselves not. */
export function above(grants: ReadonlyMap<string, Granted>, id: string): Granted[] {
  const found: Granted[] = []
  const seen = new Set([id])
  for (let at = grants.get(id)?.parent; at && !seen.has(at); at = grants.get(at)?.parent) {
    seen.add(at)
    const one = grants.get(at)
    if (one) found.unshift(one)
  }
  return found
}

/** A grant and everything delegated from it, however far down. */
export function family(grants: readonly Granted[], id: string): Granted[] {
  const children = Map.groupBy(grants, ({ parent }) => parent)
  const found = grants.filter((one) => one.id === id)
  const seen = new Set([id])
  for (const one of found)
    for (const child of children.get(one.id) ?? []) {
      if (!seen.has(child.id)) found.push(child)
      seen.add(child.id)
    }
  return found
}

export function byId(grants: readonly Granted[]): Map<string, Granted> {
  return new Map(grants.map((one) => [one.id, one]))
}

export function refOf(row: { readonly log: unknown; readonly seq: unknown }): Ref {
  return `${row.log}:${row.seq}`
}

/** SQL: the column is one of so many values, which are bound as one. Databases keep a statement a text: there are few texts. */
export function among({ dialect }: Database, column: string): string {
  return dialect === 'sqlite'
    ? `${column} IN (SELECT value FROM json_each(?))`
    : `${column} IN (SELECT jsonb_array_elements_text(CAST(? AS jsonb)))`
}

/** A column that holds a list. */
export function listIn(text: unknown): string[] {
  return typeof text === 'string' ? (JSON.parse(text) as string[]) : []
}

function grantedOf(row: Row): Granted {
  return {
    ...(row as unknown as Granted),
    entry: refOf(row as { log: string; seq: number }),
    depth: Number(row.depth ?? 0),
    attested: row.attested === 1,
    workload: typeof row.workload === 'string' && row.workload.startsWith('{') ? JSON.parse(row.workload) : null,
    authority: JSON.parse(String(row.authority)) as Authority[],
    policy_ids: listIn(row.policy_ids),
  }
}
