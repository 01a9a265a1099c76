/**
 * JWT-SVIDs (SPIFFE JWT-SVID §2 to §5), as actor token and as client assertion (draft-ietf-oauth-spiffe-client-auth). The
 * Workload API hands out one SVID many times, so it is not held to a single use; its short life and single audience bound it.
 */
import type { Workload } from '../protocol/identity.ts'
import { type Jwt, type JwtTools, rulesOf, verifyJwt } from './jwt.ts'
import { agentOf, attributesOf, scalarAt } from './mapping.ts'
import { shown } from './refuse.ts'
import { parseSpiffeId } from './spiffe-id.ts'
import type { TrustOf } from './trust.ts'

export async function verifyJwtSvid(jwt: Jwt, row: TrustOf<'jwt-svid'>, tools: JwtTools): Promise<Workload> {
  const { refuse } = tools
  const { sub } = jwt.claims
  const id = typeof sub === 'string' ? parseSpiffeId(sub) : undefined
  if (id?.trustDomain !== row.trust_domain)
    throw refuse(`its subject ${shown(sub)} is no workload of the trust domain ${row.trust_domain}`)
  const expiresAt = await verifyJwt(
    jwt,
    {
      ...rulesOf(row),
      typ: [undefined, 'jwt', 'jose'],
      isIssuedAtOptional: true, // §3 requires only sub, aud and exp
    },
    tools,
  )
  return {
    id: row.agents === undefined ? String(sub) : agentOf(row.agents, (name) => scalarAt(jwt.claims, name), refuse),
    kind: 'jwt-svid',
    issuer: row.trust_domain,
    attributes: { spiffe_id: String(sub), ...attributesOf(row.claims, jwt.claims, refuse) },
    expiresAt,
  }
}
