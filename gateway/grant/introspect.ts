/** What a grant is, for those who may know (RFC 7662 §2.2). Everyone else learns no more than that it is not active for them. */
import { formatScope } from '../protocol/authority.ts'
import type { Agent, Grant, Human } from '../protocol/grant.ts'
import type { Workload } from '../protocol/identity.ts'
import { GatewayError } from '../protocol/problem.ts'
import { claimsOf } from './chain/claims.ts'
import { namedGrant } from './life/living.ts'
import type { Room } from './room.ts'

/** Who asks: an authenticated client, a holder of a grant of its own, or the owner of the socket. */
export type Introspector = { readonly client: Workload } | { readonly holder: Grant } | { readonly human: Human }

/** @throws {GatewayError} `store_unavailable`: not known is not the same as dead. */
export async function introspect(token: string, by: Introspector, tenant: string, room: Room): Promise<object> {
  try {
    const grant = await namedGrant(room, tenant, token)
    return maySee(grant, by, room.agents) ? described(grant, room.issuer) : { active: false }
  } catch (cause) {
    if (cause instanceof GatewayError && cause.code !== 'store_unavailable') return { active: false }
    throw cause
  }
}

/** The socket: all. A holder: its own grant and those below it. A client: grants of its lineage, or of agents that it runs. */
function maySee(grant: Grant, by: Introspector, agents: ReadonlyMap<string, Agent>): boolean {
  if ('human' in by) return true
  if ('holder' in by) return grant.id === by.holder.id || grant.ancestry.some(({ id }) => id === by.holder.id)
  const { id } = by.client
  const isOfLineage = grant.lineage.some((step) => step.type === 'ai_agent' && step.id === id)
  return isOfLineage || agents.get(grant.agent.id)?.orchestrators?.includes(id) === true
}

function described(grant: Grant, issuer: string): object {
  const scope = formatScope(grant.authority)
  return {
    active: true,
    token_type: grant.cnf?.jkt === undefined ? 'Bearer' : 'DPoP',
    ...(scope !== '' && { scope }),
    ...claimsOf(grant, issuer),
  }
}
