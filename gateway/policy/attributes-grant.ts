/** Everything that policies can read where a grant is asked for: a root grant, or one below another. */
import type { GrantAsk, Table } from './attribute.ts'
import { agent, chain, time } from './attributes-chain.ts'

export const mintTable: Table<GrantAsk> = {
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

export const delegateTable: Table<GrantAsk> = {
  ...mintTable,
  'context.delegator': { read: (ask) => ask.delegator, standIn: '' },
  'context.on_behalf': { read: (ask) => ask.isOnBehalf, standIn: false },
}
