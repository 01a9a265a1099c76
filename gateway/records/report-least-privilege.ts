/**
 * What agents were granted against what they used, and a policy that takes the difference away. The policy is a `forbid` with
 * exceptions: added to the policies in force it can only take away, whatever they say, and their obligations stay.
 */
import { NAMEABLE, quoted, slugOf } from '../policy/cedar-text.ts'
import { isOperationPattern } from '../protocol/authority.ts'
import type { Authority } from '../protocol/grant.ts'
import type { Database } from './database.ts'
import { type Ref, refOf } from './granted.ts'
import { type Span, within } from './inquiry.ts'
import { privilegeOf, reachOf, type Vocabulary } from './reach.ts'

export interface UsedOperation {
  readonly operation: string
  readonly hosts: readonly string[]
  readonly calls: number
  /** The last call. */
  readonly entry: Ref
}

export interface LeastPrivilege {
  readonly agent: string
  readonly owner: string | null
  readonly grants: number
  readonly granted: readonly string[]
  readonly used: readonly UsedOperation[]
  /** What others used under what it delegated: it has to be granted it to pass it on. */
  readonly passed_on: readonly string[]
  readonly unused: readonly string[]
  /** Privilege that was never used, of all that was granted: 0 to 1. */
  readonly excess: number
  /** What to ask for in grants: exactly what was used, by itself or below it. */
  readonly scope: string
  /**
   * Cedar, on what it calls itself; null when it called nothing, so that nothing is known of what it needs, or when its id has
   * characters that Cedar's validator refuses in names.
   */
  readonly policy: string | null
}

export interface LeastPrivilegeReport {
  readonly span: Span
  readonly source: Vocabulary['source']
  /** Largest excess first. */
  readonly agents: readonly LeastPrivilege[]
}

interface GrantedRow {
  readonly agent: string
  readonly authority: string
  readonly owner: string | null
  readonly grants: number
  readonly last: number
}

interface UsedRow {
  readonly log: string
  readonly agent: string
  readonly operation: string
  readonly host: string
  readonly calls: number
  readonly seq: number
}

/** @param vocabulary without the catalogue, what a pattern covers beyond what was ever asked for is not known. */
export async function leastPrivilege(
  database: Database,
  span: Span,
  vocabulary: Vocabulary,
): Promise<LeastPrivilegeReport> {
  const made = within({ sql: 'agent IS NOT NULL', values: [] }, span, 'issued')
  const granted = await database.all<GrantedRow>(
    `SELECT agent, authority, owner, COUNT(*) AS grants, MAX(issued) AS last FROM grants WHERE ${made.sql}
     GROUP BY agent, authority, owner`,
    made.values,
  )
  const { sql, values } = within(
    { sql: `kind = 'call' AND effect = 'allow' AND agent IS NOT NULL AND operation IS NOT NULL`, values: [] },
    span,
  )
  const used = await database.all<UsedRow>(
    `SELECT log, agent, operation, host, COUNT(*) AS calls, MAX(seq) AS seq FROM records WHERE ${sql}
     GROUP BY log, agent, operation, host`,
    values,
  )
  const below = await database.all<{ agent: string; operation: string }>(
    `SELECT DISTINCT chains.actor AS agent, calls.operation AS operation
     FROM (SELECT DISTINCT chain, operation FROM records WHERE ${sql}) AS calls
     JOIN chains ON chains.chain = calls.chain AND chains.kind = 'ai_agent'`,
    values,
  )
  const uses = Map.groupBy(used, ({ agent }) => agent)
  const passed = Map.groupBy(below, ({ agent }) => agent)
  const agents = [...Map.groupBy(granted, ({ agent }) => agent)].map(([agent, rows]) => {
    const names = (passed.get(agent) ?? []).map(({ operation }) => operation)
    return heldAgainst(agent, rows, { used: uses.get(agent) ?? [], below: names, vocabulary })
  })
  return {
    span,
    source: vocabulary.source,
    agents: agents.toSorted((a, b) => b.excess - a.excess || a.agent.localeCompare(b.agent)),
  }
}

function heldAgainst(
  agent: string,
  rows: readonly GrantedRow[],
  o: { readonly used: readonly UsedRow[]; readonly below: readonly string[]; readonly vocabulary: Vocabulary },
): LeastPrivilege {
  const authority = rows.flatMap((row) => JSON.parse(row.authority) as Authority[])
  const reach = reachOf([{ authority }], o.vocabulary)
  const used = [...Map.groupBy(o.used, ({ operation }) => operation)].map(([operation, group]) =>
    usedOperation(operation, group),
  )
  const own = new Set(used.map(({ operation }) => operation))
  const names = new Set([...own, ...o.below])
  const unused = reach.filter(({ operation }) => !names.has(operation))
  const all = privilegeOf(reach)
  const { owner } = rows.reduce((a, b) => (b.last > a.last ? b : a))
  return {
    agent,
    owner,
    grants: rows.reduce((sum, { grants }) => sum + grants, 0),
    granted: reach.map(({ operation }) => operation).sort(),
    used: used.toSorted((a, b) => b.calls - a.calls),
    passed_on: [...names].filter((operation) => !own.has(operation)).sort(),
    unused: unused.map(({ operation }) => operation).sort(),
    excess: all === 0 ? 0 : privilegeOf(unused) / all,
    scope: [...names].filter(isOperationPattern).sort().join(' '),
    policy: used.length === 0 || !NAMEABLE.test(agent) ? null : narrowedPolicy(agent, owner, used),
  }
}

function usedOperation(operation: string, group: readonly UsedRow[]): UsedOperation {
  const newest = group.reduce((a, b) => (b.seq > a.seq ? b : a))
  return {
    operation,
    hosts: [...new Set(group.map(({ host }) => host))].sort(),
    calls: group.reduce((sum, { calls }) => sum + calls, 0),
    entry: refOf(newest),
  }
}

/**
 * Forbids the agent everything but these operations at these hosts. Texts come from entries: they are quoted so that they cannot
 * be anything but texts.
 */
export function narrowedPolicy(
  agent: string,
  owner: string | null,
  used: readonly Pick<UsedOperation, 'operation' | 'hosts'>[],
): string {
  const places = [...Map.groupBy(used, ({ hosts }) => JSON.stringify(hosts.toSorted()))].sort(([a], [b]) =>
    a < b ? -1 : 1,
  )
  const exceptions = places.map(([hosts, operations]) => {
    const actions = operations.map(({ operation }) => `Action::${quoted(operation)}`).sort()
    const at = (JSON.parse(hosts) as string[]).map(quoted).join(', ')
    return `  (action in [${actions.join(', ')}] && [${at}].contains(resource.host))`
  })
  return [
    `@id(${quoted(`only-what-was-used-${slugOf(agent)}`)})`,
    `@owner(${quoted(owner?.trim() || 'security')})`,
    `forbid (principal == Agent::${quoted(agent)}, action, resource is Endpoint)`,
    'unless',
    '{',
    exceptions.join(' ||\n'),
    '};',
    '',
  ].join('\n')
}
