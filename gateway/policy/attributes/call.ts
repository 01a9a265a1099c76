/** Everything that policies can read of a call, under the name by which they read it. */
import type { CedarValueJson } from '@cedar-policy/cedar-wasm/nodejs'
import { patternCovers } from '../../protocol/authority.ts'
import type { Ask, Past } from '../../protocol/decision.ts'
import type { Grant } from '../../protocol/grant.ts'
import { countOf, countsUnder } from '../../protocol/past.ts'
import type { Table, Value } from './attribute.ts'
import { agent, agentsOf, chain, isOnBehalf, time } from './chain.ts'

const ip = (value: Value): CedarValueJson => ({ __extn: { fn: 'ip', arg: plainAddress(String(value)) } })

/** `::ffff:10.0.0.1` is how a dual-stack socket shows an IPv4 peer; zone ids name an interface of this machine. */
function plainAddress(address: string): string {
  const zone = address.indexOf('%')
  const bare = zone === -1 ? address : address.slice(0, zone)
  return bare.startsWith('::ffff:') && bare.includes('.') ? bare.slice(7) : bare
}

/** The entity whose tags are the counts by operation. */
export const PAST = { type: 'Past', id: 'task' } as const
export const PAST_NAME = 'context.past'

/** Attribute → the field of the past that it rests on; of a list, how long it is. */
const PAST_FIELDS: Readonly<Record<string, string>> = {
  'context.past_calls': 'n',
  'context.past_reads': 'a:read',
  'context.past_writes': 'a:write',
  'context.past_admin': 'a:admin',
  'context.past_public': 's:public',
  'context.past_internal': 's:internal',
  'context.past_confidential': 's:confidential',
  'context.past_restricted': 's:restricted',
}
const PAST_KINDS = ['context.past_operations', 'context.past_services', 'context.past_labels']

/** @returns fields that a decision rests on where policies read these; none: it rests on nothing that happened. */
export function pastFields(names: readonly string[]): readonly string[] {
  const fields = names.flatMap((name) => {
    if (name === PAST_NAME) return ['n']
    return PAST_KINDS.includes(name) ? ['d'] : (PAST_FIELDS[name] ?? [])
  })
  return [...new Set(fields)]
}

const pastCounts: Table<Ask> = Object.fromEntries(
  Object.entries(PAST_FIELDS).map(([name, field]) => [name, { read: (ask) => countOf(pastOf(ask), field) }]),
)

const NOTHING: Past = Object.freeze({})

/** Where nothing is known `evaluation.ts` has refused before. */
function pastOf({ past }: Ask): Past {
  return past ?? NOTHING
}

function operationsBefore(ask: Ask): readonly string[] {
  return Object.keys(countsUnder(pastOf(ask), 'o:')).sort()
}

function servicesBefore(ask: Ask): readonly string[] {
  return [...new Set(operationsBefore(ask).map((name) => name.slice(0, name.indexOf(':'))))]
}

export const callTable: Table<Ask> = {
  ...agent<Ask>((ask) => ask.grant.agent),
  'principal tags': { read: (ask) => ask.grant.workload?.attributes ?? {} },
  'resource.scheme': { read: (ask) => ask.endpoint.scheme },
  'resource.host': { read: (ask) => ask.endpoint.host },
  'resource.port': { read: (ask) => ask.endpoint.port },
  'resource.path': { read: (ask) => ask.endpoint.path },
  'resource tags': { read: (ask) => ask.endpoint.params },
  ...chain<Ask>(),
  'context.parent_agent': { read: (ask) => agentsOf(ask.grant).at(-2) ?? '' },
  'context.on_plan': { read: isOnPlan },
  'context.on_behalf': { read: (ask) => isOnBehalf(ask.grant) },
  'context.workload_kind': { read: (ask) => ask.grant.workload?.kind ?? '' },
  'context.workload_issuer': { read: (ask) => ask.grant.workload?.issuer ?? '' },
  'context.break_glass': { read: (ask) => isBreakGlass(ask.grant) },
  'context.grant_id': { read: (ask) => ask.grant.id },
  'context.ttl_s': { read: (ask) => Math.floor(ask.grant.expiresAt - ask.nowMs / 1000) },
  'context.method': { read: (ask) => ask.method },
  'context.websocket': { read: (ask) => ask.isUpgrade === true },
  'context.door': { read: (ask) => ask.mode ?? '' },
  'context.source_ip': { read: (ask) => ask.sourceAddress, cedar: ip },
  'context.source_regions': { read: (ask) => ask.regionsOf?.(ask.sourceAddress) ?? [] },
  'context.params': { read: paramsOf },
  'context.calls_left': { read: (ask) => ask.left?.calls },
  'context.bytes_left': { read: (ask) => ask.left?.bytes },
  ...pastCounts,
  'context.past_operations': { read: operationsBefore },
  'context.past_services': { read: servicesBefore },
  'context.past_labels': { read: (ask) => Object.keys(countsUnder(pastOf(ask), 'l:')).sort() },
  [PAST_NAME]: {
    read: (ask) => countsUnder(pastOf(ask), 'o:'),
    cedar: () => ({ __entity: PAST }),
  },
  ...time<Ask>(),
}

/** False also where there is no plan: nobody foresaw anything. */
function isOnPlan({ grant, endpoint }: Ask): boolean {
  return (grant.task.plan ?? []).some((pattern) => patternCovers(pattern, endpoint.operation.name))
}

function isBreakGlass(grant: Grant & { readonly breakGlass?: unknown }): boolean {
  return grant.breakGlass !== undefined
}

/** Every operation that names parameters has them all, as far as the request does. */
function paramsOf({ endpoint, params }: Ask): Value | undefined {
  return endpoint.operation.parameters === undefined ? undefined : (params ?? {})
}
