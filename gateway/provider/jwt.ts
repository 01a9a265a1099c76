/**
 * A JWT that the gateway signs with a key of the service's, and that is itself the credential: App Store Connect, Snowflake key pairs and
 * their like. Signed here, so nobody is asked, and it lives for minutes although the key stands.
 */
import { createSecretKey, type KeyObject } from 'node:crypto'
import { SignJWT } from 'jose'
import { z } from 'zod'
import type { Clock } from '../protocol/clock.ts'
import { GatewayError } from '../protocol/problem.ts'
import { Secret } from '../protocol/secret.ts'
import { claimsTemplate, fillClaims } from './claims-template.ts'
import { keptKey, readSigningKey } from './jwt-key.ts'
import type { Placement } from './placement/placement.ts'
import type { Provider } from './provider.ts'
import { type ReadSecret, secretReference } from './reference.ts'
import { settingsIdentity } from './settings-identity.ts'
import { credentialTerms } from './terms.ts'

/** Seconds. Shorter ones would end on their way. */
const MIN_LIFE_S = 30
/** Seconds. A credential that lives an hour or longer is none that ends. */
const MAX_LIFE_S = 3540
/** RFC 7518 §3.2: a key of HMAC is at least as long as its hash. */
const MIN_HMAC_BYTES = { HS256: 32, HS384: 48, HS512: 64 } as const

/** Members of the header that say what is signed and how, or let a token bring its own key along. */
const OWN_HEADER = ['alg', 'kid', 'typ', 'crit', 'b64', 'jku', 'x5u', 'jwk', 'x5c']

export const jwtSchema = z.strictObject({
  provider: z.literal('jwt'),
  ...credentialTerms,
  /** Private key, PEM (PKCS#8) or JWK; for HS256 and its like the shared secret. */
  key: secretReference,
  /** How a shared secret is written. */
  key_encoding: z.enum(['utf8', 'base64', 'hex']).default('utf8'),
  /** Never taken from anywhere else (RFC 8725 §3.1). */
  alg: z.enum(['ES256', 'ES384', 'ES512', 'RS256', 'RS384', 'RS512', 'PS256', 'EdDSA', 'HS256', 'HS384', 'HS512']),
  kid: z.string().min(1).optional(),
  typ: z.string().min(1).default('JWT'),
  /** Further members of the header. */
  header: z
    .record(z.string().min(1), z.string())
    .refine((all) => !OWN_HEADER.some((name) => name in all), { error: `must not hold ${OWN_HEADER.join(', ')}` })
    .default({}),
  /** `iat` and `exp` are added. */
  claims: claimsTemplate
    .refine((claims) => !['iat', 'exp'].some((name) => name in claims), { error: 'must not hold iat or exp' })
    .default({}),
  lifetime_s: z.int().min(MIN_LIFE_S).max(MAX_LIFE_S).default(300),
  /** Seconds by which `iat` lies back, for services whose clock may be behind. */
  backdate_s: z.int().min(0).max(300).default(0),
})

export type JwtConfig = z.output<typeof jwtSchema>

interface JwtTools {
  readonly placement: Placement
  readonly readSecret: ReadSecret
  readonly clock: Clock
}

export function createJwt(config: JwtConfig, tools: JwtTools): Provider {
  return {
    name: 'jwt',
    narrows: 'none',
    identity: settingsIdentity(config),
    async issue({ grant, ttlS }, signal) {
      const secret = await tools.readSecret(config.key, signal)
      const key = keptKey(config, secret.reveal(), () => keyFor(config, secret))
      const nowS = Math.floor(tools.clock.nowMs() / 1000)
      const expiresAt = nowS + Math.min(config.lifetime_s, Math.max(MIN_LIFE_S, Math.floor(ttlS)))
      const { alg, kid, typ } = config
      const jwt = new SignJWT({ ...fillClaims(config.claims, grant), iat: nowS - config.backdate_s, exp: expiresAt })
      jwt.setProtectedHeader({ ...config.header, alg, typ, ...(kid !== undefined && { kid }) })
      return { secret: new Secret(await signed(jwt, key, alg)), expiresAt, ephemeral: true }
    },
    attach: (credential, outbound) => tools.placement.place(credential, outbound),
    derived: (credential, service) => tools.placement.derived(credential, service),
  }
}

async function signed(jwt: SignJWT, key: KeyObject, alg: string): Promise<string> {
  try {
    return await jwt.sign(key)
  } catch {
    // What is thrown may describe the key.
    throw unusable(`it is not one for ${alg}`)
  }
}

function keyFor({ alg, key_encoding }: JwtConfig, secret: Secret): KeyObject {
  if (alg === 'HS256' || alg === 'HS384' || alg === 'HS512') {
    const bytes = Buffer.from(secret.reveal(), key_encoding)
    if (bytes.length < MIN_HMAC_BYTES[alg])
      throw unusable(`it has ${bytes.length} bytes, and ${alg} needs ${MIN_HMAC_BYTES[alg]}. Check key_encoding`)
    return createSecretKey(bytes)
  }
  const read = readSigningKey(secret)
  if (read !== undefined) return read.keyObject
  throw unusable('it is neither an unencrypted PEM private key (PKCS#8) nor a private JWK')
}

function unusable(why: string): GatewayError {
  return new GatewayError('credential_unconfigured', `The key that JWTs are to be signed with cannot be used: ${why}.`)
}
