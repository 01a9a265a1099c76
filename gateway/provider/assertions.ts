/**
 * JWTs about whom the gateway asks for, and what others verify them with: an OpenID provider's metadata and keys (OpenID Connect
 * Discovery §3). Their keys are of other kinds than those of grants, so neither passes for the other.
 */
import { createPublicKey, hash, type KeyObject } from 'node:crypto'
import { SignJWT } from 'jose'
import type { Clock } from '../protocol/clock.ts'
import { uuidv7 } from '../protocol/id.ts'
import { Secret } from '../protocol/secret.ts'
import type { Assertions } from './provider.ts'

const ALGORITHMS = ['ES256', 'RS256'] as const
type Algorithm = (typeof ALGORITHMS)[number]

/** Keys of one algorithm, as they are when they are looked at. */
export interface AssertionRing {
  /** Private. */
  readonly current: KeyObject
  /** Signed before, and verify until nothing that they signed is alive. */
  readonly retired: readonly { readonly key: KeyObject }[]
  /** Will sign, and are published already. */
  readonly coming: readonly KeyObject[]
  /** Take over what a rotation changed, unless that was looked for less than `maxAgeMs` ago. @throws {GatewayError} `store_unavailable` */
  refresh(maxAgeMs: number): Promise<void>
}

/** Read when first asked for. @throws {GatewayError} as rejection: `credential_unconfigured` */
export type AssertionKeys = Readonly<Record<Algorithm, () => Promise<AssertionRing>>>

/** What is published under `<public_url>/assertions`. */
export interface PublishedAssertions {
  readonly metadata: object
  /** RFC 7517. Every key that signs, did or will. */
  jwks(): Promise<{ readonly keys: readonly object[] }>
  /**
   * Claims of a security event token (RFC 8417), signed: whole, and of a type of its own, so that it passes for no assertion. RS256, which
   * every receiver understands (CAEP interoperability profile).
   */
  signEvent(claims: Readonly<Record<string, unknown>>): Promise<string>
}

const MAX_LIFE_S = 600

/** A change of the keys is noticed within this time: well before a new one signs. */
const LOOK_MS = 60_000

export function createAssertions(keys: AssertionKeys, issuer: string, clock: Clock): Assertions & PublishedAssertions {
  const ringOf = async (algorithm: Algorithm) => {
    const ring = await keys[algorithm]()
    await ring.refresh(LOOK_MS)
    return ring
  }
  return {
    issuer,
    async sign(claims, { audience, lifeS, algorithm = 'ES256' }) {
      const { current } = await ringOf(algorithm)
      const nowS = Math.floor(clock.nowMs() / 1000)
      const jwt = new SignJWT({ ...claims })
        .setProtectedHeader({ alg: algorithm, typ: 'JWT', kid: published(current, algorithm).kid })
        .setIssuer(issuer)
        .setAudience(audience)
        .setIssuedAt(nowS)
        .setExpirationTime(nowS + Math.min(lifeS, MAX_LIFE_S))
        .setJti(uuidv7(clock.nowMs()))
      return new Secret(await jwt.sign(current))
    },
    async signEvent(claims) {
      const { current } = await ringOf('RS256')
      const jwt = new SignJWT({ ...claims })
      return jwt
        .setProtectedHeader({ alg: 'RS256', typ: 'secevent+jwt', kid: published(current, 'RS256').kid })
        .sign(current)
    },
    metadata: {
      issuer,
      jwks_uri: `${issuer}/jwks.json`,
      // Required by OpenID Connect Discovery §3; nobody logs in here.
      response_types_supported: ['id_token'],
      subject_types_supported: ['public'],
      id_token_signing_alg_values_supported: ALGORITHMS,
      claims_supported: 'iss aud iat exp jti sub sub_iss act agent task lineage_hash grant tenant'.split(' '),
    },
    async jwks() {
      const rings = await Promise.all(
        ALGORITHMS.map(async (algorithm) => ({ algorithm, ring: await ringOf(algorithm) })),
      )
      return {
        keys: rings.flatMap(({ algorithm, ring: { current, coming, retired } }) =>
          [current, ...coming, ...retired.map(({ key }) => key)].map((key) => published(key, algorithm)),
        ),
      }
    },
  }
}

interface PublishedKey {
  readonly kid: string
}

/** Working out a public half and its thumbprint costs as much as a signature. */
const known = new WeakMap<KeyObject, PublishedKey>()

function published(key: KeyObject, alg: Algorithm): PublishedKey {
  const before = known.get(key)
  if (before !== undefined) return before
  const { crv, e, kty, n, x, y } = (key.type === 'private' ? createPublicKey(key) : key).export({ format: 'jwk' })
  // RFC 7638 §3.2: the required members in lexicographic order. JSON leaves out those that the kind does not have.
  const members = kty === 'RSA' ? { e, kty, n } : { crv, kty, x, y }
  const kid = hash('sha256', JSON.stringify(members), 'base64url')
  const made = Object.freeze({ ...members, kid, alg, use: 'sig' })
  known.set(key, made)
  return made
}
