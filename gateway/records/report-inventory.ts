/** Identities that are no humans: agents, and the upstream credentials they act with, ranked by what they could do and for how long. */
import type { Authority } from '../protocol/grant.ts'
import type { Database } from './database.ts'
import { type Span, within } from './inquiry.ts'
import { privilegeOf, reachOf, type Vocabulary } from './reach.ts'

export interface Identity {
  readonly kind: 'agent' | 'credential'
  readonly id: string
  readonly owner: string | null
  readonly risk_tier: string | null
  /** 1 a read, 3 a write or unknown, 10 what is admin, irreversible or answers with a credential; of its widest grant. */
  readonly privilege: number
  /** Longest life, seconds; null: it does not end by itself. */
  readonly lifetime_s: number | null
  /** `privilege` × `lifetime_s`; null is worse than any number. */
  readonly risk: number | null
  readonly ephemeral: boolean
  /** Grants made, or leases issued. */
  readonly issued: number
  readonly calls: number
  /** Milliseconds since the epoch; null: never used. */
  readonly last_use: number | null
  /** Ended without a call, and nothing was delegated from them. */
  readonly unused_grants: number
  /** Used from several addresses. */
  readonly shared_grants: readonly string[]
}

export interface Inventory {
  readonly span: Span
  readonly identities: readonly Identity[]
  readonly humans: number
  /** What auditors flag: each identity counts once under each. */
  readonly flags: {
    readonly static_credentials: number
    readonly unowned_agents: number
    readonly agents_with_shared_grants: number
    readonly agents_with_unused_grants: number
  }
}

export interface InventoryOptions {
  readonly vocabulary: Vocabulary
  readonly nowMs: number
}

export async function inventory(database: Database, span: Span, o: InventoryOptions): Promise<Inventory> {
  const agents = await agentsIn(database, span, o)
  const credentials = await credentialsIn(database, span, o)
  const identities = [...agents, ...credentials].toSorted(byRisk)
  const made = within({ sql: 'human IS NOT NULL', values: [] }, span, 'issued')
  const [row] = await database.all<{ humans: number }>(
    `SELECT COUNT(DISTINCT human) AS humans FROM grants WHERE ${made.sql}`,
    made.values,
  )
  return {
    span,
    identities,
    humans: row?.humans ?? 0,
    flags: {
      static_credentials: credentials.filter(({ ephemeral }) => !ephemeral).length,
      unowned_agents: agents.filter(({ owner }) => owner === null || owner === '').length,
      agents_with_shared_grants: agents.filter(({ shared_grants }) => shared_grants.length > 0).length,
      agents_with_unused_grants: agents.filter(({ unused_grants }) => unused_grants > 0).length,
    },
  }
}

function byRisk(a: Identity, b: Identity): number {
  const [riskA, riskB] = [a.risk ?? Number.POSITIVE_INFINITY, b.risk ?? Number.POSITIVE_INFINITY]
  return (riskA === riskB ? 0 : riskB - riskA) || b.privilege - a.privilege || a.id.localeCompare(b.id)
}

interface GrantedRow {
  readonly agent: string
  readonly authority: string
  readonly life: number
  readonly grants: number
  readonly owner: string | null
  readonly risk_tier: string | null
  readonly last: number
}

async function agentsIn(database: Database, span: Span, o: InventoryOptions): Promise<Identity[]> {
  const made = within({ sql: 'agent IS NOT NULL', values: [] }, span, 'issued')
  const rows = await database.all<GrantedRow>(
    `SELECT agent, authority, expires - issued AS life, owner, risk_tier, COUNT(*) AS grants, MAX(issued) AS last FROM grants
     WHERE ${made.sql} GROUP BY agent, authority, expires - issued, owner, risk_tier`,
    made.values,
  )
  const used = await usedBy(database, 'agent', span)
  const unused = await unusedGrants(database, span, o.nowMs)
  const shared = await sharedGrants(database, span)
  return [...Map.groupBy(rows, ({ agent }) => agent)].map(([id, group]) => {
    const newest = group.reduce((a, b) => (b.last > a.last ? b : a))
    const weighed = group.map(({ authority, life }) => ({
      privilege: privilegeIn(authority, o.vocabulary),
      life: life / 1000,
    }))
    return {
      kind: 'agent',
      id,
      owner: newest.owner,
      risk_tier: newest.risk_tier,
      privilege: Math.max(...weighed.map(({ privilege }) => privilege)),
      lifetime_s: Math.max(...weighed.map(({ life }) => life)),
      risk: Math.max(...weighed.map(({ privilege, life }) => privilege * life)),
      ephemeral: true,
      issued: group.reduce((sum, { grants }) => sum + grants, 0),
      calls: used.get(id)?.calls ?? 0,
      last_use: used.get(id)?.last ?? null,
      unused_grants: unused.get(id) ?? 0,
      shared_grants: shared.get(id) ?? [],
    }
  })
}

function privilegeIn(authority: string, vocabulary: Vocabulary): number {
  return privilegeOf(reachOf([{ authority: JSON.parse(authority) as Authority[] }], vocabulary))
}

interface LeasedRow {
  readonly credential: string | null
  readonly service: string | null
  readonly ephemeral: number | null
  readonly life: number | null
  readonly leases: number
}

/** A key that stands for itself can do whatever its service offers; one that was narrowed is still counted by that. */
async function credentialsIn(database: Database, span: Span, { vocabulary }: InventoryOptions): Promise<Identity[]> {
  const made = within({ sql: 'credential IS NOT NULL', values: [] }, span, 'issued')
  const rows = await database.all<LeasedRow>(
    `SELECT credential, service, ephemeral, MAX(expires - issued) AS life, COUNT(*) AS leases FROM leases
     WHERE ${made.sql} GROUP BY credential, service, ephemeral`,
    made.values,
  )
  const used = await usedBy(database, 'credential', span)
  return [...Map.groupBy(rows, ({ credential }) => credential ?? '')].map(([id, group]) => {
    const services = group.map(({ service }) => `${service}:`)
    const reach = vocabulary.operations.filter(({ operation }) => services.some((name) => operation.startsWith(name)))
    const ephemeral = group.every((one) => one.ephemeral !== 0)
    const privilege = privilegeOf(reach)
    const lifetime_s = ephemeral ? Math.max(...group.map(({ life }) => (life ?? 0) / 1000)) : null
    return {
      kind: 'credential',
      id,
      owner: null,
      risk_tier: null,
      privilege,
      lifetime_s,
      risk: lifetime_s === null ? null : privilege * lifetime_s,
      ephemeral,
      issued: group.reduce((sum, { leases }) => sum + leases, 0),
      calls: used.get(id)?.calls ?? 0,
      last_use: used.get(id)?.last ?? null,
      unused_grants: 0,
      shared_grants: [],
    }
  })
}

async function usedBy(
  database: Database,
  column: 'agent' | 'credential',
  span: Span,
): Promise<Map<string, { readonly calls: number; readonly last: number }>> {
  const { sql, values } = within(
    { sql: `kind = 'call' AND effect = 'allow' AND ${column} IS NOT NULL`, values: [] },
    span,
  )
  const rows = await database.all<{ id: string; calls: number; last: number }>(
    `SELECT ${column} AS id, COUNT(*) AS calls, MAX(ts) AS last FROM records WHERE ${sql} GROUP BY ${column}`,
    values,
  )
  return new Map(rows.map((row) => [row.id, row]))
}

async function unusedGrants(database: Database, span: Span, nowMs: number): Promise<Map<string, number>> {
  const { sql, values } = within(
    { sql: 'agent IS NOT NULL AND (ended IS NOT NULL OR expires <= ?)', values: [nowMs] },
    span,
    'issued',
  )
  const rows = await database.all<{ agent: string; grants: number }>(
    `SELECT agent, COUNT(*) AS grants FROM grants WHERE ${sql}
     AND NOT EXISTS (SELECT 1 FROM records WHERE grant_id = grants.id AND kind = 'call' AND effect = 'allow')
     AND id NOT IN (SELECT parent FROM grants WHERE parent IS NOT NULL) GROUP BY agent`,
    values,
  )
  return new Map(rows.map(({ agent, grants }) => [agent, grants]))
}

async function sharedGrants(database: Database, span: Span): Promise<Map<string, string[]>> {
  const { sql, values } = within({ sql: `kind = 'call' AND effect = 'allow' AND agent IS NOT NULL`, values: [] }, span)
  const rows = await database.all<{ agent: string; grant_id: string }>(
    `SELECT agent, grant_id FROM records WHERE ${sql}
     GROUP BY agent, grant_id HAVING COUNT(DISTINCT REPLACE(ip, '::ffff:', '')) > 1`,
    values,
  )
  const byAgent = Map.groupBy(rows, ({ agent }) => agent)
  return new Map([...byAgent].map(([agent, group]) => [agent, group.map(({ grant_id }) => grant_id)]))
}
