/** What lives until it ends, in the entries that say so: grants and credentials. Pure. */
import type { Entry } from '../audit/entries/entry.ts'
import { type Actor, flag, msOf, objectIn, type Row, text, whole } from './row.ts'

/** A row of `grants`, without its end. */
export interface GrantRow {
  readonly values: Readonly<Record<string, string | number | null>>
  readonly id: string
  /** What would end it: itself, every grant above it, the one it was given beside, its task. */
  readonly marks: readonly string[]
  /** Orders that would: about its human, an agent of its lineage, its policies, everything. */
  readonly orders: readonly string[]
}

/** A row of `leases`, without its end. */
export interface LeaseRow {
  readonly values: Readonly<Record<string, string | number | null>>
  readonly mark: string
}

/** What an order of `revocation.ordered` ends: whatever was issued before it. */
export interface Order {
  readonly target: 'agent' | 'human' | 'policy_set' | 'everything'
  readonly tenant: string
  readonly name: string
  /** Of a human. */
  readonly iss: string
}

/** A row of `ends`. */
export interface End {
  readonly mark: string
  /** Absent: it names a grant, a task, or a credential with its grant. */
  readonly order?: Order
  readonly log: string
  readonly seq: number
  readonly ts: number
}

const MAKING: ReadonlySet<string> = new Set([
  ...['grant.issued', 'grant.delegated', 'grant.replaced'],
  'breakglass.opened',
])
const LEASING: ReadonlySet<string> = new Set(['lease.issued', 'lease.renewed', 'lease.captured'])

export function grantRowOf(entry: Entry, row: Row, actors: readonly Actor[]): GrantRow | undefined {
  if (!MAKING.has(entry.kind) || row.grant_id === null) return undefined
  const grant = objectIn(entry.grant)
  const agent = objectIn(grant.agent)
  const facts = objectIn(entry.facts)
  const grants = actors.filter(({ kind }) => kind === 'grant').map(({ id }) => id)
  const { log, seq, kind, tenant, human, human_iss, task, purpose, chain, policy_ids, policy_set, ts } = row
  const values = {
    ...{ id: row.grant_id, log, seq, kind, tenant, human, human_iss, agent: row.agent, task, purpose, chain },
    parent: text(grant.parent),
    root: grants[0] ?? row.grant_id,
    replaces: text(facts.replaces),
    beside: text(facts.beside),
    depth: whole(grant.depth),
    max_depth: whole(grant.max_depth),
    delegable: flag(grant.delegable),
    owner: text(agent.owner),
    agent_purpose: text(agent.purpose),
    risk_tier: text(agent.risk_tier),
    attested: flag(grant.attested),
    workload: json(facts.workload),
    authority: json(grant.authority) ?? '[]',
    cnf: json(grant.cnf),
    ...{ policy_ids, policy_set },
    issued: msOf(grant.issued) ?? ts,
    expires: msOf(grant.expires) ?? ts,
  }
  const marks = [row.grant_id, ...grants, task, text(facts.beside)].filter(isText)
  return { values, id: row.grant_id, marks: [...new Set(marks)], orders: ordersAbout(row, actors) }
}

function ordersAbout({ tenant, human, human_iss, policy_set }: Row, actors: readonly Actor[]): string[] {
  const about = { tenant: tenant ?? '', name: '', iss: '' }
  const agents = actors.filter(({ kind }) => kind === 'ai_agent')
  return [
    orderMark({ ...about, target: 'everything' }),
    orderMark({ ...about, target: 'human', name: human ?? '', iss: human_iss ?? '' }),
    ...agents.map(({ id }) => orderMark({ ...about, target: 'agent', name: id })),
    ...(policy_set === null ? [] : [orderMark({ ...about, target: 'policy_set', name: policy_set })]),
  ]
}

/** Nothing that names a grant, a task or a credential looks like it. */
function orderMark({ tenant, target, name, iss }: Order): string {
  return JSON.stringify([tenant, target, name, iss])
}

export function leaseRowOf(entry: Entry, row: Row): LeaseRow | undefined {
  if (!LEASING.has(entry.kind) || row.cred_id === null) return undefined
  const facts = objectIn(entry.facts)
  const { log, seq, kind, tenant, cred_id, credential, provider, service, grant_id, human, agent, task } = row
  const values = {
    ...{ log, seq, kind, tenant, cred_id, credential, provider, service, grant_id, human, agent, task },
    ephemeral: row.ephemeral,
    cause: text(facts.cause),
    issue_ms: typeof facts.ms === 'number' ? facts.ms : null,
    issued: row.ts,
    expires: row.cred_expires,
  }
  return { values, mark: leaseMark(cred_id, grant_id) }
}

/** What ends here: usually nothing, and a revoked task ends under two names. */
export function endOf(entry: Entry, row: Row): End[] {
  const { log, seq, ts } = row
  const order = orderIn(entry, row)
  if (order !== undefined) return [{ mark: orderMark(order), order, log, seq, ts }]
  return marksEnded(entry, row).map((mark) => ({ mark, log, seq, ts }))
}

/** Under orders about a service or a credential grants live on. */
function orderIn(entry: Entry, { tenant, human, human_iss }: Row): Order | undefined {
  if (entry.kind !== 'revocation.ordered') return undefined
  const { target, name } = objectIn(entry.facts)
  const about = { tenant: tenant ?? '', name: '', iss: '' }
  if (target === 'everything') return { ...about, target }
  if (target === 'human') return { ...about, target, name: human ?? '', iss: human_iss ?? '' }
  return target === 'agent' || target === 'policy_set' ? { ...about, target, name: text(name) ?? '' } : undefined
}

function marksEnded(entry: Entry, row: Row): string[] {
  const facts = objectIn(entry.facts)
  if (entry.kind === 'grant.revoked') {
    const isTask = facts.instruction === 'task.complete'
    return [row.grant_id, isTask ? row.task : null].filter((mark) => mark !== null)
  }
  // One that was renewed lives on until its own expiry (protocol/instruction.ts).
  if (entry.kind === 'grant.replaced' && facts.reason !== 'renewed') return [facts.replaces].filter(isText)
  if (entry.kind === 'revocation.ordered' && (facts.target === 'grant' || facts.target === 'task'))
    return [facts.name].filter(isText)
  if (entry.kind === 'breakglass.closed') return [row.grant_id].filter(isText)
  // A credential that nobody could revoke lives until it expires.
  if (entry.kind === 'lease.revoked' && facts.outcome === 'revoked' && row.cred_id !== null)
    return [leaseMark(row.cred_id, row.grant_id)]
  return []
}

function leaseMark(credId: string, grant: string | null): string {
  return `${credId} ${grant ?? ''}`
}

function isText(value: unknown): value is string {
  return typeof value === 'string'
}

function json(value: unknown): string | null {
  return value === undefined || value === null ? null : JSON.stringify(value).replaceAll('\\u0000', '\\ufffd')
}
