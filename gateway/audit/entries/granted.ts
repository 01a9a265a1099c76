/** A grant as entries about it hold it: everything that gives authority, and no token. */
import type { Grant } from '../../protocol/grant.ts'
import type { Workload } from '../../protocol/identity.ts'
import type { JsonValue } from '../canonical.ts'
import type { Fields } from './authority.ts'

export function grantOf(grant: Grant): Fields {
  const { id, owner, purpose, riskTier, labels = [] } = grant.agent
  return {
    id: grant.id,
    parent: grant.ancestry.at(-1)?.id,
    parent_hash: grant.parentHash,
    depth: grant.depth,
    max_depth: grant.maxDepth,
    delegable: grant.delegable,
    agent: { id, owner, purpose, risk_tier: riskTier, labels: [...labels] },
    attested: grant.attested ?? false,
    break_glass: grant.breakGlass !== undefined,
    instance: grant.instance,
    cnf: grant.cnf && { ...grant.cnf },
    authority: grant.authority.map((one) => ({ ...one }) as unknown as JsonValue),
    preset: grant.preset,
    step: grant.step,
    trace: grant.trace,
    issued: grant.issuedAt,
    expires: grant.expiresAt,
  }
}

export function workloadOf({ id, kind, issuer, instance }: Workload): Fields {
  return { id, kind, issuer, instance }
}
