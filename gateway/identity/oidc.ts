/** Tokens of any other OIDC issuer that vouches for workloads: Google, Entra, AWS `GetWebIdentityToken`, GitLab, Buildkite. */
import type { Workload } from '../protocol/identity.ts'
import { INERT_HEADERS, type Jwt, type JwtTools, PLAIN_JWT, rulesOf, textOf, verifyJwt } from './jwt.ts'
import { agentOf, attributesOf, scalarAt } from './mapping.ts'
import type { TrustOf } from './trust.ts'

export async function verifyOidc(jwt: Jwt, row: TrustOf<'oidc'>, tools: JwtTools): Promise<Workload> {
  const { refuse } = tools
  const expiresAt = await verifyJwt(
    jwt,
    { ...rulesOf(row), typ: row.typ === 'JWT' ? PLAIN_JWT : [row.typ], inert: INERT_HEADERS },
    tools,
  )
  return {
    id: agentOf(row.agents, (path) => scalarAt(jwt.claims, path), refuse),
    kind: 'oidc',
    issuer: row.issuer,
    ...(row.instance !== undefined && {
      instance: textOf({ instance: scalarAt(jwt.claims, row.instance) }, 'instance', refuse),
    }),
    attributes: { sub: textOf(jwt.claims, 'sub', refuse), ...attributesOf(row.claims, jwt.claims, refuse) },
    expiresAt,
  }
}
