/** Everything that policies can read where a grant is asked for: a root grant, or one below another. */
import type { GrantAsk, Table } from './attribute.ts'
import { agent, chain, time } from './chain.ts'

export const mintTable: Table<GrantAsk> = {
  ...agent<GrantAsk>((ask) => ask.agent),
  'principal tags': { read: (ask) => ask.workload?.attributes ?? {} },
  ...chain<GrantAsk>(),
  'context.operations': { read: (ask) => ask.operations },
  'context.ttl_s': { read: (ask) => ask.ttlS },
  'context.delegable': { read: (ask) => ask.grant.delegable },
  'context.workload_kind': { read: (ask) => ask.workload?.kind ?? '' },
  'context.workload_issuer': { read: (ask) => ask.workload?.issuer ?? '' },
  ...time<GrantAsk>(),
}

export const delegateTable: Table<GrantAsk> = {
  ...mintTable,
  'context.delegator': { read: (ask) => ask.delegator },
  'context.on_behalf': { read: (ask) => ask.isOnBehalf },
}
