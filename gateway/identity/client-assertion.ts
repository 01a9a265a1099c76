/**
 * Clients that prove themselves with a key that settings know (`private_key_jwt`, RFC 7523 §3, RFC 7521 §5.2). The audience is
 * this issuer alone, as a single value: an assertion made for another server, or for several, is not for us.
 */
import type { Workload } from '../protocol/identity.ts'
import { type Jwt, type JwtTools, textOf, verifyJwt } from './jwt.ts'
import { type Once, useOnce } from './once.ts'
import { shown } from './refuse.ts'
import type { ClientTrust } from './trust.ts'

/** Seconds. */
const MAX_LIFETIME_S = 300
const SKEW_S = 30

export interface AssertionTools extends JwtTools {
  /** Our own. */
  readonly issuer: string
  readonly once: Once
}

/** @param client the row of settings whose id is the assertion's `sub`. */
export async function verifyClientAssertion(jwt: Jwt, client: ClientTrust, tools: AssertionTools): Promise<Workload> {
  const { refuse, once, issuer } = tools
  if (jwt.claims.sub !== client.id) throw refuse(`its subject is ${shown(jwt.claims.sub)}, not the client`)
  const expiresAt = await verifyJwt(
    jwt,
    {
      typ: [undefined, 'jwt', 'client-authentication+jwt'],
      algorithms: client.algorithms,
      issuer: client.id, // RFC 7523 §3: iss and sub are both the client_id
      audience: [issuer],
      audiences: 'one',
      skewS: SKEW_S,
      maxLifetimeS: MAX_LIFETIME_S,
      isIssuedAtOptional: true,
    },
    tools,
  )
  // Last of all, so that a forged assertion does not use up the jti of a true one.
  const jti = textOf(jwt.claims, 'jti', refuse)
  await useOnce(once, { of: `assertion ${client.id}`, jti, untilMs: (expiresAt + 2 * SKEW_S) * 1000 }, refuse)
  return { id: client.agent ?? client.id, kind: 'private_key_jwt', issuer, attributes: {}, expiresAt }
}
