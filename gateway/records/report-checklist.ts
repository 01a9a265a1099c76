/**
 * What short-lived authentication needs in production, point by point: verified from settings, log and index, or said to be
 * beyond them. A point without evidence is never taken for granted.
 */
import type { Database } from './database.ts'
import { type Ref, refOf } from './granted.ts'
import { type Span, within } from './inquiry.ts'
import { exposure } from './report-exposure.ts'
import { inventory } from './report-inventory.ts'
import { slo } from './report-slo.ts'

export interface Point {
  readonly point: string
  /** `unknown`: it cannot be verified from here. */
  readonly state: 'yes' | 'no' | 'unknown'
  readonly why: string
  readonly entries: readonly Ref[]
}

export interface Checklist {
  readonly span: Span
  readonly points: readonly Point[]
}

/** What the points look at of the settings of a gateway. */
export interface CheckedSettings {
  readonly grants: { readonly ttl: { readonly defaultS: number; readonly maxS: number } }
  readonly agents: readonly { readonly id: string; readonly owner: string }[]
  readonly credentials: Readonly<Record<string, { readonly provider: string }>>
  readonly trust: { readonly issuers: readonly unknown[] }
  readonly redis: object | undefined
  readonly audit: {
    readonly durability: string
    readonly keepDays: number | undefined
    readonly witnesses: Readonly<Record<string, unknown>>
    readonly exports: Readonly<Record<string, unknown>>
  }
}

export interface ChecklistOptions {
  readonly settings: CheckedSettings | undefined
  readonly nowMs: number
}

type Answer = Pick<Point, 'state' | 'why'> & { readonly entries?: readonly Ref[] }

/** A life that S3's matrix allows for interactive work, and the ceiling of any grant. */
const DEFAULT_TTL_S = 900
const MAX_TTL_S = 3600
/** PCI DSS 10.5.1. */
const KEEP_DAYS = 365

export async function checklist(database: Database, span: Span, o: ChecklistOptions): Promise<Checklist> {
  const log = await answersOfLog(database, span, o)
  const settings = o.settings === undefined ? undefined : answersOfSettings(o.settings)
  const unread: Answer = { state: 'unknown', why: 'Only settings can say: name them with --config.' }
  const points = POINTS.map(([point, from, key]): Point => {
    const { entries = [], ...answer } = (from === 'log' ? log[key] : (settings?.[key] ?? unread)) ?? unread
    return { point, ...answer, entries }
  })
  return { span, points: [...points, ...BEYOND] }
}

/** In the order in which they are put into practice. */
const POINTS: readonly (readonly [string, 'log' | 'settings', string])[] = [
  ['Credentials end by themselves; no static key is configured', 'settings', 'ephemeral'],
  ['Credentials that were issued ended by themselves', 'log', 'ephemeral'],
  ['Grants live 15 minutes by default, and 60 at most', 'settings', 'ttl'],
  ['Grants that were made lived 60 minutes at most', 'log', 'ttl'],
  ['An identity provider vouches for humans or workloads', 'settings', 'identity'],
  ['Agents prove who they are', 'log', 'attested'],
  ['Every agent has an owner', 'settings', 'owners'],
  ['Every call is made for a task with a declared intent', 'log', 'intent'],
  ['No grant is shared between instances', 'log', 'shared'],
  ['Credentials are renewed ahead of time, or again when refused', 'log', 'renewal'],
  ['Issuance is fast: 99% within 100 ms', 'log', 'issuance'],
  ['Revocation was used, and stopped everything within 5 minutes', 'log', 'revocation'],
  ['Answers are searched for credentials, and leaks dealt with', 'log', 'leaks'],
  ['Policy is loaded from files, and its digest recorded', 'log', 'policy'],
  ['The record survives a power cut', 'settings', 'durability'],
  ['Others witness the log', 'settings', 'witnesses'],
  ['The log is kept for 12 months', 'settings', 'kept'],
  ['The log goes to where somebody is alerted', 'settings', 'export'],
  ['Replicas share revocations', 'settings', 'replicas'],
  ['The clock was not set back', 'log', 'clock'],
]

/** What no program can verify. */
const BEYOND: readonly Point[] = [
  'Playbooks say what to do about a leak, a stolen grant and a broken issuer, and were rehearsed',
  'Prompts, memory stores, traces and CI artefacts outside of the gateway are scanned for secrets',
  'Upstreams accept calls from the gateway only, so that nobody goes around it',
].map((point) => ({
  point,
  state: 'unknown',
  why: 'Nothing here can verify it: it is for people to confirm.',
  entries: [],
}))

type Answers = Readonly<Record<string, Answer>>

function answersOfSettings({ grants, agents, credentials, trust, redis, audit }: CheckedSettings): Answers {
  const { defaultS, maxS } = grants.ttl
  const fixed = Object.entries(credentials).flatMap(([name, { provider }]) => (provider === 'static' ? [name] : []))
  const unowned = agents.filter(({ owner }) => owner === '').map(({ id }) => id)
  const days = audit.keepDays
  return {
    ephemeral: claim(fixed.length === 0, `Static keys: ${fixed.join(', ') || 'none'}.`),
    ttl: claim(defaultS <= DEFAULT_TTL_S && maxS <= MAX_TTL_S, `grants.ttl_s ${defaultS}, grants.max_ttl_s ${maxS}.`),
    identity: claim(trust.issuers.length > 0, `trust.issuers has ${trust.issuers.length}.`),
    owners: claim(unowned.length === 0, `Without owner: ${unowned.join(', ') || 'none'}.`),
    durability: claim(audit.durability === 'fsync', `audit.durability is ${audit.durability}.`),
    witnesses: claim(
      Object.keys(audit.witnesses).length > 0,
      `audit.witnesses has ${Object.keys(audit.witnesses).length}.`,
    ),
    kept: claim(
      days === undefined || days >= KEEP_DAYS,
      days === undefined ? 'Entries are kept for ever.' : `audit.keep_days is ${days}.`,
    ),
    export: claim(Object.keys(audit.exports).length > 0, `audit.export has ${Object.keys(audit.exports).length}.`),
    replicas: {
      state: redis === undefined ? 'unknown' : 'yes',
      why: redis === undefined ? 'redis is not set: right for one gateway, wrong for several.' : 'redis is set.',
    },
  }
}

function claim(isSo: boolean, why: string, entries: readonly Ref[] = []): Answer {
  return { state: isSo ? 'yes' : 'no', why, entries }
}

function unknown(why: string): Answer {
  return { state: 'unknown', why }
}

async function answersOfLog(database: Database, span: Span, { nowMs }: ChecklistOptions): Promise<Answers> {
  const lives = await exposure(database, span)
  const times = await slo(database, span)
  const owned = await inventory(database, span, { vocabulary: { source: 'log', operations: [] }, nowMs })
  const { issuance, revocation } = times
  const fixed = lives.static_credentials
  const shared = owned.identities.flatMap(({ shared_grants }) => shared_grants)
  return {
    ...(await answersOfEntries(database, span)),
    ephemeral:
      lives.issued === 0 && fixed.length === 0
        ? unknown('No credential was issued.')
        : claim(fixed.length === 0, `${lives.issued} ended by themselves; static: ${fixed.join(', ') || 'none'}.`),
    shared:
      owned.identities.length === 0
        ? unknown('No grant was made.')
        : claim(shared.length === 0, `Used from several addresses: ${shared.slice(0, 5).join(', ') || 'none'}.`),
    issuance:
      issuance.isMet === null
        ? unknown('No credential was issued.')
        : claim(issuance.isMet, `99% within ${issuance.p99_ms} ms, of ${issuance.issued}.`),
    revocation:
      revocation.isMet === null
        ? unknown('Nothing was revoked: rehearse it with `keyless grant revoke`.')
        : claim(
            revocation.isMet && revocation.late_calls === 0,
            `${revocation.revocations} times, ${Math.round(revocation.mean_ms ?? 0)} ms on average; ${revocation.late_calls} calls allowed after it.`,
            revocation.slowest === null ? [] : [revocation.slowest.entry],
          ),
  }
}

const MAKING = `kind IN ('grant.issued', 'grant.delegated', 'grant.replaced')`

async function answersOfEntries(database: Database, span: Span): Promise<Answers> {
  const look = (where: string) => lookFor(database, where, span)
  const made = await look(MAKING)
  const attested = await look(`${MAKING} AND detail LIKE '%"attested":true%'`)
  const calls = await look(`kind = 'call' AND effect = 'allow'`)
  const aimless = await look(`kind = 'call' AND effect = 'allow' AND (task IS NULL OR purpose IS NULL OR purpose = '')`)
  const renewed = await look(
    `kind IN ('lease.issued', 'lease.renewed') AND detail IS NOT NULL AND detail NOT LIKE '%"cause":"needed"%'`,
  )
  const leaks = await look(`kind = 'leak.detected'`)
  const unhandled = await look(`kind = 'leak.detected' AND detail LIKE '%"fate":"standing"%'`)
  const policies = await look(`kind = 'policy.loaded'`)
  const clocks = await look(`kind = 'log.clock_set_back'`)
  const long = within({ sql: `expires - issued > ${MAX_TTL_S * 1000}`, values: [] }, span, 'issued')
  const lasting = await database.all<{ log: string; seq: number }>(
    `SELECT log, seq FROM grants WHERE ${long.sql} LIMIT 3`,
    long.values,
  )
  return {
    ttl:
      made.n === 0
        ? unknown('No grant was made.')
        : claim(lasting.length === 0, `${made.n} grants.`, lasting.map(refOf)),
    attested:
      made.n === 0
        ? unknown('No grant was made.')
        : claim(
            attested.n === made.n,
            `${attested.n} of ${made.n} grants are of agents that proved it.`,
            attested.some,
          ),
    intent:
      calls.n === 0
        ? unknown('No call was allowed.')
        : claim(aimless.n === 0, `${calls.n - aimless.n} of ${calls.n} allowed calls.`, aimless.some),
    renewal:
      renewed.n === 0 ? unknown('No credential had to be renewed.') : claim(true, `${renewed.n} times.`, renewed.some),
    leaks:
      leaks.n === 0
        ? unknown('Every answer is searched; nothing was found that could show it.')
        : claim(
            unhandled.n === 0,
            `${leaks.n} found; of ${unhandled.n} only the owner of the key can change it.`,
            unhandled.n > 0 ? unhandled.some : leaks.some,
          ),
    policy: claim(policies.n > 0, `${policies.n} times.`, policies.some),
    clock: claim(clocks.n === 0, `${clocks.n} times.`, clocks.some),
  }
}

interface Found {
  readonly n: number
  /** The newest. */
  readonly some: readonly Ref[]
}

async function lookFor(database: Database, where: string, span: Span): Promise<Found> {
  const { sql, values } = within({ sql: `(${where})`, values: [] }, span)
  const [row] = await database.all<{ n: number }>(`SELECT COUNT(*) AS n FROM records WHERE ${sql}`, values)
  if (!row?.n) return { n: 0, some: [] }
  const some = await database.all<{ log: string; seq: number }>(
    `SELECT log, seq FROM records WHERE ${sql} ORDER BY id DESC LIMIT 3`,
    values,
  )
  return { n: row.n, some: some.map(refOf) }
}
