/**
 * Every value of a request that policies can read, under the name by which they read it, and the Cedar call made of those
 * that a slice does read. The others are the same stand-in for every request, so the call is a function of the values read.
 */
import type { CedarValueJson, EntityJson } from '@cedar-policy/cedar-wasm/nodejs'
import type { Ask } from '../protocol/decision.ts'
import type { Agent } from '../protocol/grant.ts'
import type { Operation } from '../protocol/service.ts'

export type Value = string | number | readonly string[] | Readonly<Record<string, string>>

interface Attribute<A> {
  read(ask: A): Value
  readonly standIn: Value
  readonly cedar?: (value: Value) => CedarValueJson
}

/** What opening a task asks of one service. */
export interface MintAsk {
  readonly agent: Agent
  readonly service: string
  readonly taskId: string
  readonly purpose: string
  readonly human: string
  readonly humanIss: string
  readonly operations: readonly string[]
  readonly ttlS: number
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

const time = <A extends { readonly nowMs: number }>(): Table<A> => ({
  'context.now': { read: (ask) => Math.floor(ask.nowMs / 1000), standIn: 0, cedar: datetime },
  'context.hour_utc': { read: (ask) => Math.floor((ask.nowMs % DAY_MS) / 3_600_000), standIn: 0 },
  // 1970-01-01 was a Thursday, the fourth day of the week.
  'context.weekday_utc': { read: (ask) => ((Math.floor(ask.nowMs / DAY_MS) + 3) % 7) + 1, standIn: 1 },
})

const callTable: Table<Ask> = {
  principal: { read: (ask) => ask.grant.agent.id, standIn: '' },
  'principal.owner': { read: (ask) => ask.grant.agent.owner, standIn: '' },
  'principal.purpose': { read: (ask) => ask.grant.agent.purpose, standIn: '' },
  'principal.risk_tier': { read: (ask) => ask.grant.agent.riskTier, standIn: '' },
  'resource.scheme': { read: (ask) => ask.endpoint.scheme, standIn: '' },
  'resource.host': { read: (ask) => ask.endpoint.host, standIn: '' },
  'resource.port': { read: (ask) => ask.endpoint.port, standIn: 0 },
  'resource.path': { read: (ask) => ask.endpoint.path, standIn: '' },
  'resource tags': { read: (ask) => ask.endpoint.params, standIn: {} },
  'context.task_id': { read: (ask) => ask.grant.task.id, standIn: '' },
  'context.purpose': { read: (ask) => ask.grant.task.purpose, standIn: '' },
  'context.human': { read: (ask) => ask.grant.human.sub, standIn: '' },
  'context.human_iss': { read: (ask) => ask.grant.human.iss, standIn: '' },
  'context.grant_id': { read: (ask) => ask.grant.id, standIn: '' },
  'context.lineage_depth': { read: (ask) => Math.max(0, ask.grant.lineage.length - 2), standIn: 0 },
  'context.ttl_s': { read: (ask) => Math.floor(ask.grant.expiresAt - ask.nowMs / 1000), standIn: 0 },
  'context.method': { read: (ask) => ask.method, standIn: '' },
  'context.source_ip': { read: (ask) => ask.sourceAddress, standIn: '0.0.0.0', cedar: ip },
  ...time<Ask>(),
}

const mintTable: Table<MintAsk> = {
  principal: { read: (ask) => ask.agent.id, standIn: '' },
  'principal.owner': { read: (ask) => ask.agent.owner, standIn: '' },
  'principal.purpose': { read: (ask) => ask.agent.purpose, standIn: '' },
  'principal.risk_tier': { read: (ask) => ask.agent.riskTier, standIn: '' },
  'context.task_id': { read: (ask) => ask.taskId, standIn: '' },
  'context.purpose': { read: (ask) => ask.purpose, standIn: '' },
  'context.human': { read: (ask) => ask.human, standIn: '' },
  'context.human_iss': { read: (ask) => ask.humanIss, standIn: '' },
  'context.operations': { read: (ask) => ask.operations, standIn: [], cedar: (value) => value as CedarValueJson },
  'context.ttl_s': { read: (ask) => ask.ttlS, standIn: 0 },
  ...time<MintAsk>(),
}

/** The attributes of one kind of ask that a slice reads, in a fixed order. */
export interface Selection<A> {
  readonly names: readonly string[]
  readonly table: Table<A>
}

/** @param readings of all policies of a slice; a reading that is in neither table is fixed by the operation. */
export function selectCall(readings: ReadonlySet<string>): Selection<Ask> {
  return { names: selected(Object.keys(callTable), readings), table: callTable }
}

export function selectMint(readings: ReadonlySet<string>): Selection<MintAsk> {
  return { names: selected(Object.keys(mintTable), readings), table: mintTable }
}

function selected(names: readonly string[], readings: ReadonlySet<string>): string[] {
  return names.filter((name) => readings.has(name) || readings.has(`${name.split(/[. ]/)[0]} *`))
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
function valuesOf<A>(selection: Selection<A>, ask: A): Map<string, CedarValueJson> {
  const read = new Set(selection.names)
  return new Map(
    Object.entries(selection.table).map(([name, attribute]) => {
      const value = read.has(name) ? attribute.read(ask) : attribute.standIn
      return [name, attribute.cedar?.(value) ?? (value as CedarValueJson)]
    }),
  )
}

export interface Request {
  readonly principal: { readonly type: string; readonly id: string }
  readonly action: { readonly type: string; readonly id: string }
  readonly resource: { readonly type: string; readonly id: string }
  readonly context: Record<string, CedarValueJson>
  readonly entities: EntityJson[]
}

export function callRequest(selection: Selection<Ask>, ask: Ask, operation: Operation): Request {
  const values = valuesOf(selection, ask)
  const resource = { type: 'Endpoint', id: operation.name }
  const endpoint: EntityJson = {
    uid: resource,
    attrs: {
      ...under('resource.', values),
      access: operation.access,
      sensitivity: operation.sensitivity,
      returns_secret: operation.returnsSecret,
      irreversible: operation.irreversible,
    },
    parents: [{ type: 'Service', id: operation.name.slice(0, operation.name.indexOf(':')) }],
    tags: values.get('resource tags') as Record<string, CedarValueJson>,
  }
  return requestOf(operation.name, resource, values, [endpoint])
}

export function mintRequest(selection: Selection<MintAsk>, ask: MintAsk): Request {
  return requestOf('mint', { type: 'Service', id: ask.service }, valuesOf(selection, ask), [])
}

function requestOf(
  action: string,
  resource: Request['resource'],
  values: Map<string, CedarValueJson>,
  entities: EntityJson[],
): Request {
  const principal = { type: 'Agent', id: String(values.get('principal')) }
  const agent: EntityJson = { uid: principal, attrs: under('principal.', values), parents: [] }
  return {
    principal,
    action: { type: 'Action', id: action },
    resource,
    context: under('context.', values),
    entities: [agent, ...entities],
  }
}

function under(prefix: string, values: Map<string, CedarValueJson>): Record<string, CedarValueJson> {
  const record: Record<string, CedarValueJson> = {}
  for (const [name, value] of values) if (name.startsWith(prefix)) record[name.slice(prefix.length)] = value
  return record
}
