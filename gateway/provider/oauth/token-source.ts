/**
 * What is presented to a token endpoint: an assertion that the gateway signs about human and agent, or a token that somebody else put where
 * settings say, such as a projected Kubernetes token or a JWT-SVID.
 */
import { z } from 'zod'
import type { Grant } from '../../protocol/grant.ts'
import { GatewayError } from '../../protocol/problem.ts'
import type { Secret } from '../../protocol/secret.ts'
import { claimsTemplate, fillClaims } from '../claims-template.ts'
import type { Assertions } from '../provider.ts'
import { type ReadSecret, secretReference } from '../reference.ts'

/** Members that the gateway alone decides: an assertion with another issuer or end would not be its own. */
const OWN = ['iss', 'aud', 'iat', 'exp', 'nbf', 'jti']

const assertion = z.strictObject({
  assertion: z.strictObject({
    /** `aud`: who is to read it. Default: the issuer that the server's client assertions name, or `token_url`. */
    audience: z.string().min(1).optional(),
    /** RS256 for verifiers that know nothing newer. */
    algorithm: z.enum(['ES256', 'RS256']).default('ES256'),
    /** Seconds, at most 600. Some servers let their token live no longer. */
    lifetime_s: z.int().min(30).max(600).default(120),
    /** Added to what is said of human, agent and task, or in its place: `sub: "agents/{agent}"`. */
    claims: claimsTemplate
      .refine((claims) => !OWN.some((name) => name in claims), { error: `must not hold ${OWN.join(', ')}` })
      .default({}),
  }),
})

/** Default: an assertion. */
export const tokenSource = z.union([assertion, secretReference], {
  error:
    'is neither { assertion: { audience: … } } nor a reference: { file: path }, { env: NAME }, { sealed: NAME }, { exec: [command] }',
})

export type TokenSource = z.infer<typeof tokenSource>

/** An assertion of the default form. */
export const ownAssertion = tokenSource.default(() => assertion.parse({ assertion: {} }))

export interface SourceTools {
  readonly assertions: Assertions
  readonly readSecret: ReadSecret
}

export interface Presented {
  readonly grant: Grant
  /** What an assertion says, settings apart. */
  readonly claims: object
  /** Its `aud`, unless settings say. */
  readonly audience: string
}

/** @throws {GatewayError} `credential_unconfigured`, `credential_unavailable` */
export async function tokenFrom(
  source: TokenSource,
  { assertions, readSecret }: SourceTools,
  { grant, claims, audience }: Presented,
  signal: AbortSignal,
): Promise<Secret> {
  if ('assertion' in source) {
    const { algorithm, lifetime_s: lifeS, ...own } = source.assertion
    const all = { ...claims, ...fillClaims(own.claims, grant) }
    return assertions.sign(all, { audience: own.audience ?? audience, lifeS, algorithm })
  }
  const token = await readSecret(source, signal)
  // Whoever writes such files ends them with a line, or two.
  if (/\s/.test(token.reveal()))
    throw new GatewayError(
      'credential_unconfigured',
      'The token that settings name holds white space, as none does. Check what its file or command really has.',
    )
  return token
}
