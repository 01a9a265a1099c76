/**
 * Every value that policies can read, under the name by which they read it: of a call, of a root grant, of a delegation. What
 * is said of the chain comes from the grant, which this gateway verified hop by hop; a foreign nested `act` never comes here.
 */
import type { CedarValueJson } from '@cedar-policy/cedar-wasm/nodejs'
import type { Ask } from '../protocol/decision.ts'
import type { Agent, Grant } from '../protocol/grant.ts'
import type { Workload } from '../protocol/identity.ts'

export type Value = string | number | boolean | readonly (string | number)[] | Readonly<Record<string, string>>

interface Attribute<A> {
  read(ask: A): Value
  readonly standIn: Value
  readonly cedar?: (value: Value) => CedarValueJson
}

/** `mint`: a root grant. `delegate`: a grant below another. */
export type GrantAction = 'mint' | 'delegate'

/** What making a grant asks of one service. */
export interface GrantAsk {
  readonly action: GrantAction
  readonly service: string
  readonly operations: readonly string[]
  /** As it would be made. */
  readonly grant: Grant
  readonly agent: Agent
  readonly ttlS: number
  /** Agent of the grant above; empty for a root grant. */
  readonly delegator: string
  /** Some hop of the chain, this one included, is attested by the gateway for a holder without a key. */
  readonly isOnBehalf: boolean
  readonly workload: Workload | undefined
  readonly nowMs: number
}

type Table<A> = Readonly<Record<string, Attribute<A>>>

const DAY_MS = 86_400_000

const ip = (value: Value): CedarValueJson => ({ __extn: { fn: 'ip', arg: plainAddress(String(value)) } })
const datetime = (value: Value): CedarValueJson => ({
  __extn: { fn: 'datetime', arg: new Date(Number(value) * 1000).toISOString() },
})

/** `::ffff:10.0.0.1` is how a dual-stack socket shows an IPv4 peer; zone ids name an interface of this machine. */
function plainAddress(address: string): string {
  const zone = address.indexOf('%')
  const bare = zone === -1 ? address : address.slice(0, zone)
  return bare.startsWith('::ffff:') && bare.includes('.') ? bare.slice(7) : bare
}

const agent = <A>(of: (ask: A) => Agent): Table<A> => ({
  principal: { read: (ask) => of(ask).id, standIn: '' },
  'principal.owner': { read: (ask) => of(ask).owner, standIn: '' },
  'principal.purpose': { read: (ask) => of(ask).purpose, standIn: '' },
  'principal.risk_tier': { read: (ask) => of(ask).riskTier, standIn: '' },
})

/** Who stands behind a grant, and through whom it came. */
const chain = <A extends { readonly grant: Grant }>(): Table<A> => ({
  'context.task_id': { read: (ask) => ask.grant.task.id, standIn: '' },
  'context.purpose': { read: (ask) => ask.grant.task.purpose, standIn: '' },
  'context.human': { read: (ask) => ask.grant.human.sub, standIn: '' },
  'context.human_iss': { read: (ask) => ask.grant.human.iss, standIn: '' },
  'context.human_amr': { read: (ask) => ask.grant.human.amr ?? [], standIn: [] },
  'context.human_hops': { read: (ask) => humanHops(ask.grant), standIn: [] },
  'context.lineage_depth': { read: (ask) => ask.grant.depth, standIn: 0 },
  'context.attested': { read: (ask) => ask.grant.attested === true, standIn: false },
  'context.preset': { read: (ask) => ask.grant.preset ?? '', standIn: '' },
  'context.step': { read: (ask) => ask.grant.step ?? '', standIn: '' },
})

function humanHops({ lineage }: Grant): readonly number[] {
  return lineage.flatMap(({ n, type }) => (type === 'human' ? [n] : []))
}

const time = <A extends { readonly nowMs: number }>(): Table<A> => ({
  'context.now': { read: (ask) => Math.floor(ask.nowMs / 1000), standIn: 0, cedar: datetime },
  'context.hour_utc': { read: (ask) => Math.floor((ask.nowMs % DAY_MS) / 3_600_000), standIn: 0 },
  // 1970-01-01 was a Thursday, the fourth day of the week.
  'context.weekday_utc': { read: (ask) => ((Math.floor(ask.nowMs / DAY_MS) + 3) % 7) + 1, standIn: 1 },
})

const callTable: Table<Ask> = {
  ...agent<Ask>((ask) => ask.grant.agent),
  'resource.scheme': { read: (ask) => ask.endpoint.scheme, standIn: '' },
  'resource.host': { read: (ask) => ask.endpoint.host, standIn: '' },
  'resource.port': { read: (ask) => ask.endpoint.port, standIn: 0 },
  'resource.path': { read: (ask) => ask.endpoint.path, standIn: '' },
  'resource tags': { read: (ask) => ask.endpoint.params, standIn: {} },
  ...chain<Ask>(),
  'context.on_behalf': { read: (ask) => isOnBehalf(ask.grant), standIn: false },
  'context.grant_id': { read: (ask) => ask.grant.id, standIn: '' },
  'context.ttl_s': { read: (ask) => Math.floor(ask.grant.expiresAt - ask.nowMs / 1000), standIn: 0 },
  'context.method': { read: (ask) => ask.method, standIn: '' },
  'context.source_ip': { read: (ask) => ask.sourceAddress, standIn: '0.0.0.0', cedar: ip },
  ...time<Ask>(),
}

/** Whether the gateway attested some hop for a holder without a key. */
export function isOnBehalf({ depth, lineage }: Grant): boolean {
  return depth > 0 && lineage.some((step) => step.on_behalf === true)
}

const mintTable: Table<GrantAsk> = {
  ...agent<GrantAsk>((ask) => ask.agent),
  'principal tags': { read: (ask) => ask.workload?.attributes ?? {}, standIn: {} },
  ...chain<GrantAsk>(),
  'context.operations': { read: (ask) => ask.operations, standIn: [] },
  'context.ttl_s': { read: (ask) => ask.ttlS, standIn: 0 },
  'context.delegable': { read: (ask) => ask.grant.delegable, standIn: false },
  'context.workload_kind': { read: (ask) => ask.workload?.kind ?? '', standIn: '' },
  'context.workload_issuer': { read: (ask) => ask.workload?.issuer ?? '', standIn: '' },
  ...time<GrantAsk>(),
}

const delegateTable: Table<GrantAsk> = {
  ...mintTable,
  'context.delegator': { read: (ask) => ask.delegator, standIn: '' },
  'context.on_behalf': { read: (ask) => ask.isOnBehalf, standIn: false },
}

/** The attributes of one kind of ask that a slice reads, in a fixed order. */
export interface Selection<A> {
  readonly names: readonly string[]
  readonly table: Table<A>
}

/** @param readings of all policies of a slice; a reading that is in no table is fixed by the operation. */
export function selectCall(readings: ReadonlySet<string>): Selection<Ask> {
  return { names: selected(callTable, readings), table: callTable }
}

export function selectGrant(action: GrantAction, readings: ReadonlySet<string>): Selection<GrantAsk> {
  const table = action === 'mint' ? mintTable : delegateTable
  return { names: selected(table, readings), table }
}

function selected(table: Readonly<Record<string, unknown>>, readings: ReadonlySet<string>): string[] {
  return Object.keys(table).filter((name) => readings.has(name) || readings.has(`${name.split(/[. ]/)[0]} *`))
}

/** Every value read, each with its length, so that no two lists of values look alike. */
export function keyOf<A>(selection: Selection<A>, ask: A): string {
  let key = ''
  for (const name of selection.names) {
    const value = selection.table[name]?.read(ask)
    const text = typeof value === 'object' ? JSON.stringify(value) : String(value)
    key += `${text.length}:${text}`
  }
  return key
}

/** Attribute values by name: those read from the ask, and the stand-ins of all others. */
export function valuesOf<A>(selection: Selection<A>, ask: A): Map<string, CedarValueJson> {
  const read = new Set(selection.names)
  return new Map(
    Object.entries(selection.table).map(([name, attribute]) => {
      const value = read.has(name) ? attribute.read(ask) : attribute.standIn
      return [name, attribute.cedar?.(value) ?? (value as CedarValueJson)]
    }),
  )
}
