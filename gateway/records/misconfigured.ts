/** Was it a mistake in policy or settings? What was allowed only because policy had just changed, what nobody described, keys that never end. */
import type { Database } from './database.ts'
import { among, type Ref, refOf } from './granted.ts'
import { type Inquiry, merged, SEEN, type Seen, type SeenRow } from './inquiry.ts'
import type { Reachable, Vocabulary } from './reach.ts'
import { type Sign, type Verdict, verdictOf } from './verdict.ts'

/** A change of policy that was in force for longer before it mattered is no likely cause. */
const SHORTLY_MS = 24 * 3600 * 1000

interface AllowedRow extends SeenRow {
  readonly operation: string | null
  readonly policy_set: string | null
  readonly ephemeral: number | null
  readonly credential: string | null
}
type Allowed = AllowedRow & Seen

interface RefusedRow extends SeenRow {
  readonly operation: string | null
  readonly policy_set: string | null
}

interface Loaded {
  readonly set: string
  readonly ts: number
  readonly entry: Ref
}

export async function wasMisconfigured(database: Database, inquiry: Inquiry, words: Vocabulary): Promise<Verdict> {
  const { sql, values } = inquiry.calls
  const rows = await database.all<AllowedRow>(
    `SELECT ${SEEN}, operation, policy_set, ephemeral, credential FROM records WHERE ${sql} AND effect = 'allow'
     GROUP BY log, operation, policy_set, ephemeral, credential`,
    values,
  )
  const allowed = merged(rows, (row) => [row.operation, row.policy_set, row.ephemeral, row.credential])
  const signs = [
    ...(await openedByChange(database, inquiry, allowed)),
    ...allowed.flatMap(undescribed),
    ...standingKeys(allowed, words),
  ]
  const isBlindForKeys = words.source === 'log' && allowed.some(({ ephemeral }) => ephemeral === 0)
  const lookedAt = [
    'operations allowed that policy refused to the same agents before',
    'calls allowed that no service file describes',
    isBlindForKeys
      ? 'static credentials were used; without settings it cannot be told for how sensitive operations (name them with --config)'
      : 'static credentials used for sensitive operations',
  ]
  return verdictOf('misconfiguration', signs, { lookedAt, isBlind: allowed.length === 0 })
}

async function openedByChange(database: Database, inquiry: Inquiry, allowed: readonly Allowed[]): Promise<Sign[]> {
  const agents = [...new Set(inquiry.grants.flatMap(({ agent }) => agent ?? []))]
  const rows = await database.all<RefusedRow>(
    `SELECT ${SEEN}, operation, policy_set FROM records WHERE kind = 'call' AND effect = 'deny'
     AND code IN ('policy_denied', 'host_unmanaged') AND ${among(database, 'agent')} GROUP BY log, operation, policy_set`,
    [JSON.stringify(agents)],
  )
  const refused = merged(rows, ({ operation, policy_set }) => [operation, policy_set])
  if (refused.length === 0) return []
  const loaded = await policiesLoaded(database)
  return allowed.flatMap((pass): Sign[] => {
    const before = refused.find(
      ({ operation, policy_set, first }) =>
        operation === pass.operation && policy_set !== pass.policy_set && first < pass.first,
    )
    if (before === undefined) return []
    // As often as a gateway is started there is an entry: what counts is when the set was new.
    const change = loaded.find(({ set, ts }) => set === pass.policy_set && ts > before.first)
    const isRecent = change !== undefined && pass.first - change.ts <= SHORTLY_MS
    const when = change === undefined ? 'at an unknown time' : `${hours(pass.first - change.ts)} before`
    return [
      {
        what: `${pass.operation} was allowed under policy set ${pass.policy_set}, loaded ${when}; under ${before.policy_set} it had been refused`,
        weight: isRecent ? 'strong' : 'weak',
        entries: [before.first_entry, ...(change ? [change.entry] : []), pass.first_entry],
      },
    ]
  })
}

async function policiesLoaded(database: Database): Promise<Loaded[]> {
  const rows = await database.all<{ log: string; seq: number; ts: number; detail: string | null }>(
    `SELECT log, seq, ts, detail FROM records WHERE kind = 'policy.loaded' ORDER BY ts`,
  )
  return rows.flatMap(({ detail, ...row }) => {
    const facts = detail === null ? undefined : (JSON.parse(detail) as { facts?: { policy_set?: unknown } }).facts
    return typeof facts?.policy_set === 'string' ? [{ set: facts.policy_set, ts: row.ts, entry: refOf(row) }] : []
  })
}

function undescribed({ operation, calls, first_entry, last_entry }: Allowed): Sign[] {
  if (operation === null || !(operation.endsWith(':unlisted') || operation.startsWith('unmanaged:'))) return []
  const what = operation.startsWith('unmanaged:')
    ? `${calls} calls to hosts that belong to no service were allowed (${operation})`
    : `${calls} calls that the service file does not list were allowed (${operation})`
  return [{ what, weight: 'strong', entries: [...new Set([first_entry, last_entry])] }]
}

function standingKeys(allowed: readonly Allowed[], words: Vocabulary): Sign[] {
  const known = new Map(words.operations.map((one) => [one.operation, one]))
  return allowed.flatMap(({ operation, ephemeral, credential, calls, first_entry }): Sign[] => {
    const one = known.get(operation ?? '')
    if (ephemeral !== 0 || one === undefined || !isSensitive(one)) return []
    const what = `the credential ${credential ?? '?'}, a static key, was used ${calls === 1 ? 'once' : `${calls} times`} for ${operation} (${sensitivityOf(one)})`
    return [{ what, weight: 'weak', entries: [first_entry] }]
  })
}

function isSensitive({ sensitivity, access, irreversible, returns_secret }: Reachable): boolean {
  return (
    sensitivity === 'restricted' ||
    sensitivity === 'confidential' ||
    access === 'admin' ||
    irreversible === true ||
    returns_secret === true
  )
}

function sensitivityOf({ sensitivity, access, irreversible, returns_secret }: Reachable): string {
  const marks = [sensitivity, access, irreversible && 'irreversible', returns_secret && 'answers with a credential']
  return marks.filter((mark) => typeof mark === 'string').join(', ')
}

function hours(ms: number): string {
  const minutes = Math.max(0, Math.round(ms / 60_000))
  return minutes < 120 ? `${minutes} min` : `${Math.round(minutes / 60)} h`
}
