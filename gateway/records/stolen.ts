/** Was a grant stolen, this one or one above it? A grant belongs to one running agent, so whatever shows a second holder speaks for it. */
import type { Database } from './database.ts'
import type { Granted, Ref } from './granted.ts'
import { refOf } from './granted.ts'
import { type Inquiry, merged, SEEN, type Seen, type SeenRow } from './inquiry.ts'
import { type Sign, type Verdict, verdictOf } from './verdict.ts'

interface UseRow extends SeenRow {
  readonly grant_id: string | null
  readonly ip: string | null
  readonly effect: string
  readonly code: string | null
}

type Use = UseRow & Seen

const LOOKED_AT = [
  'one grant used from several addresses',
  'uses after the end of a grant',
  'grants shown without the key that they are bound to',
  'children made, or asked for, of a grant that had ended',
  'another key or instance when a grant was replaced',
]
/** Refusals that name the grant that was presented (`client.grant`): it had ended, or its key was not proved. */
const OVER: ReadonlySet<string | null> = new Set(['grant_revoked', 'grant_expired', 'task_suspended'])

export async function wasStolen(database: Database, inquiry: Inquiry): Promise<Verdict> {
  const { sql, values } = inquiry.suspects
  const rows = await database.all<UseRow>(
    `SELECT ${SEEN}, grant_id, ip, effect, code FROM records WHERE ${sql} GROUP BY log, grant_id, ip, effect, code`,
    values,
  )
  const uses = merged(
    rows.map((row) => ({ ...row, ip: plain(row.ip) })),
    ({ grant_id, ip, effect, code }) => [grant_id, ip, effect, code],
  )
  const grants = [...inquiry.parents, ...inquiry.grants]
  const signs = grants.flatMap((grant) => {
    const own = uses.filter(({ grant_id }) => grant_id === grant.id)
    return [...addresses(grant, own), ...afterEnd(grant, own), ...withoutKey(grant, own)]
  })
  signs.push(...lateChildren(grants), ...otherKeys(grants), ...(await askedInVain(database, grants)))
  return verdictOf('stolen_parent', signs, { lookedAt: LOOKED_AT, isBlind: uses.length === 0 })
}

function addresses(grant: Granted, uses: readonly Use[]): Sign[] {
  const [home, ...others] = allowed(uses)
  if (home === undefined || others.length === 0) return []
  return others.map((use) => ({
    what: `${nameOf(grant)} was used ${times(use.calls)} from ${use.ip}; until then it had been used from ${home.ip}`,
    weight: 'strong',
    entries: [home.first_entry, use.first_entry],
  }))
}

/** From where it was always used, an agent that did not notice the end is the likelier reason. */
function afterEnd(grant: Granted, uses: readonly Use[]): Sign[] {
  const homes = new Set(allowed(uses).map(({ ip }) => ip))
  const late = uses.filter(({ effect, code, ip }) => effect === 'deny' && OVER.has(code) && !homes.has(ip))
  return late.map((use) => ({
    what: `${nameOf(grant)} was tried ${times(use.calls)} from ${use.ip} when it was over (${use.code}); ${
      homes.size === 0 ? 'it had never been used' : `it had only been used from ${[...homes].join(', ')}`
    }`,
    weight: homes.size === 0 ? 'weak' : 'strong',
    entries: entriesOf(use, grant.ended_by),
  }))
}

function withoutKey(grant: Granted, uses: readonly Use[]): Sign[] {
  if (grant.cnf === null) return []
  const homes = new Set(allowed(uses).map(({ ip }) => ip))
  const bare = uses.filter(({ effect, code }) => effect === 'deny' && code === 'grant_invalid')
  return bare.map((use) => ({
    what: `${nameOf(grant)} was shown ${times(use.calls)} from ${use.ip} without proof of its key: whoever did has the grant and not the key`,
    weight: homes.has(use.ip) ? 'weak' : 'strong',
    entries: entriesOf(use),
  }))
}

function lateChildren(grants: readonly Granted[]): Sign[] {
  const known = new Map(grants.map((one) => [one.id, one]))
  return grants.flatMap((child) => {
    const parent = known.get(child.parent ?? '')
    if (!parent?.ended || child.issued <= parent.ended) return []
    return [
      {
        what: `${nameOf(child)} was made of ${parent.id} after that had ended`,
        weight: 'strong' as const,
        entries: [child.entry, ...(parent.ended_by ? [parent.ended_by] : [])],
      },
    ]
  })
}

function otherKeys(grants: readonly Granted[]): Sign[] {
  const known = new Map(grants.map((one) => [one.id, one]))
  return grants.flatMap((grant) => {
    const old = known.get(grant.replaces ?? '')
    if (old === undefined) return []
    const changed = [
      ...(old.cnf === grant.cnf ? [] : ['key']),
      ...(old.workload?.instance === grant.workload?.instance ? [] : ['instance']),
    ]
    if (changed.length === 0) return []
    const what = `${nameOf(grant)} took the place of ${old.id} with another ${changed.join(' and ')}`
    return [{ what, weight: 'weak' as const, entries: [old.entry, grant.entry] }]
  })
}

interface DeniedRow {
  readonly log: string
  readonly seq: number
  readonly ts: number
  readonly code: string
  readonly detail: string | null
}

const DENIALS_READ = 10_000

async function askedInVain(database: Database, grants: readonly Granted[]): Promise<Sign[]> {
  const ended = new Map(grants.flatMap((one) => (one.ended === null ? [] : [[one.id, one] as const])))
  if (ended.size === 0) return []
  const since = Math.min(...[...ended.values()].map(({ issued }) => issued))
  const rows = await database.all<DeniedRow>(
    `SELECT log, seq, ts, code, detail FROM records WHERE kind = 'grant.denied' AND ts >= ? ORDER BY ts LIMIT ${DENIALS_READ}`,
    [since],
  )
  return rows.flatMap(({ detail, code, ...row }) => {
    const parent = detail === null ? undefined : (JSON.parse(detail) as { facts?: { parent?: unknown } }).facts?.parent
    const grant = typeof parent === 'string' ? ended.get(parent) : undefined
    if (grant?.ended == null || row.ts < grant.ended) return []
    const what = `a child of ${nameOf(grant)} was asked for after its end, and refused (${code})`
    return [{ what, weight: 'weak' as const, entries: [refOf(row), ...(grant.ended_by ? [grant.ended_by] : [])] }]
  })
}

/** Addresses from which it was allowed something, the first one first. */
function allowed(uses: readonly Use[]): Use[] {
  const passed = uses.filter(({ effect, ip }) => effect === 'allow' && ip !== null)
  return passed.toSorted((a, b) => a.first - b.first)
}

function entriesOf(use: Use, ended?: Ref | null): Ref[] {
  return [...new Set([use.first_entry, use.last_entry, ...(ended ? [ended] : [])])]
}

function nameOf({ id, agent }: Granted): string {
  return `grant ${id} of ${agent ?? 'an unknown agent'}`
}

function times(calls: number): string {
  return calls === 1 ? 'once' : `${calls} times`
}

/** A dual-stack socket shows IPv4 as `::ffff:10.0.0.1`. */
function plain(ip: string | null): string | null {
  return ip?.startsWith('::ffff:') && ip.includes('.') ? ip.slice('::ffff:'.length) : ip
}
