/**
 * What policies can read of whoever stands behind a call or a grant that is asked for: agent, human, task, lineage, time. It comes
 * from the grant, which this gateway verified hop by hop; a foreign nested `act` never comes here.
 */
import type { CedarValueJson } from '@cedar-policy/cedar-wasm/nodejs'
import type { Agent, Grant } from '../../protocol/grant.ts'
import type { Table, Value } from './attribute.ts'

const DAY_MS = 86_400_000

const datetime = (value: Value): CedarValueJson => ({
  __extn: { fn: 'datetime', arg: new Date(Number(value) * 1000).toISOString() },
})

export const agent = <A>(of: (ask: A) => Agent): Table<A> => ({
  principal: { read: (ask) => of(ask).id },
  'principal.owner': { read: (ask) => of(ask).owner },
  'principal.purpose': { read: (ask) => of(ask).purpose },
  'principal.risk_tier': { read: (ask) => of(ask).riskTier },
  'principal.labels': { read: (ask) => of(ask).labels ?? [] },
})

/** Who stands behind a grant, and through whom it came. */
export const chain = <A extends { readonly grant: Grant }>(): Table<A> => ({
  'context.task_id': { read: (ask) => ask.grant.task.id },
  'context.purpose': { read: (ask) => ask.grant.task.purpose },
  'context.has_plan': { read: (ask) => ask.grant.task.plan !== undefined },
  'context.plan': { read: (ask) => ask.grant.task.plan ?? [] },
  'context.human': { read: (ask) => ask.grant.human.sub },
  'context.human_iss': { read: (ask) => ask.grant.human.iss },
  'context.human_amr': { read: (ask) => ask.grant.human.amr ?? [] },
  'context.human_hops': { read: (ask) => humanHops(ask.grant) },
  'context.lineage_depth': { read: (ask) => ask.grant.depth },
  'context.lineage': { read: (ask) => hops(ask.grant) },
  'context.lineage_agents': { read: (ask) => agentsOf(ask.grant) },
  'context.root_agent': { read: (ask) => agentsOf(ask.grant)[0] ?? '' },
  'context.attested': { read: (ask) => ask.grant.attested === true },
  'context.proof': { read: (ask) => proofs(ask.grant) },
  'context.preset': { read: (ask) => ask.grant.preset ?? '' },
  'context.step': { read: (ask) => ask.grant.step ?? '' },
})

function humanHops({ lineage }: Grant): readonly number[] {
  return lineage.flatMap(({ n, type }) => (type === 'human' ? [n] : []))
}

function hops({ lineage }: Grant): readonly Value[] {
  return lineage.map(({ n, type, id, on_behalf }) => ({ n, type, id, on_behalf: on_behalf === true }))
}

export function agentsOf({ lineage }: Grant): readonly string[] {
  return lineage.flatMap(({ type, id }) => (type === 'ai_agent' ? [id] : []))
}

/** What every use of the grant proves: the keys that it is bound to. A key that is shown without being asked for protects nothing. */
function proofs({ cnf }: Grant): readonly string[] {
  const bound = [...(cnf?.jkt === undefined ? [] : ['dpop']), ...(cnf?.['x5t#S256'] === undefined ? [] : ['mtls'])]
  return bound.length === 0 ? ['bearer'] : bound
}

export const time = <A extends { readonly nowMs: number }>(): Table<A> => ({
  'context.now': { read: (ask) => Math.floor(ask.nowMs / 1000), cedar: datetime },
  'context.hour_utc': { read: (ask) => Math.floor((ask.nowMs % DAY_MS) / 3_600_000) },
  // 1970-01-01 was a Thursday, the fourth day of the week.
  'context.weekday_utc': { read: (ask) => ((Math.floor(ask.nowMs / DAY_MS) + 3) % 7) + 1 },
})

/** Whether the gateway attested some hop for a holder without a key. */
export function isOnBehalf({ depth, lineage }: Grant): boolean {
  return depth > 0 && lineage.some((step) => step.on_behalf === true)
}
