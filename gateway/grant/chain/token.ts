/**
 * Signed grants: RFC 9068 `at+jwt`, Ed25519, verified as LG/1 §1.6 steps 1 to 5 say. Nothing in a token chooses how it is
 * verified: algorithm and key come from the table by `kid`, and a header member that could name another key is refused.
 */
import { createPublicKey, type KeyObject } from 'node:crypto'
import type { Grant } from '../../protocol/grant.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { ClaimError } from '../members.ts'
import { onBehalf } from './attest.ts'
import type { Hop } from './attestation.ts'
import { type ClaimedGrant, claimsOf, grantOf } from './claims.ts'
import {
  algorithmOf,
  hashOf,
  inputOf,
  isSignedBy,
  type Jws,
  JwsError,
  publicJwk,
  readJws,
  signingInput,
  signJws,
  thumbprintOf,
} from './jws.ts'

const ALGORITHM = 'Ed25519' // RFC 9864: the fully specified name, not EdDSA
const TYPE = 'at+jwt'
/** LG/1 §1.6 step 1. */
export const TOKEN_LIMIT = 16 * 1024

/** A change of the key is noticed within this time. */
export const SIGN_AGE_MS = 1000
/** Whoever sends tokens under unknown key ids makes us look at most this often. */
export const UNKNOWN_AGE_MS = 100

/** The keys that sign grants, as they are when they are looked at. */
export interface SigningKeys {
  /** Ed25519 private key. */
  readonly current: KeyObject
  /** Public keys that signed before and still verify: grants under them may be alive until `untilS`, epoch seconds. */
  readonly retired: readonly { readonly key: KeyObject; readonly untilS: number }[]
  /**
   * Take over what a rotation changed, here or at another replica, unless that was looked for less than `maxAgeMs` ago.
   * Absent: they never change. @throws {GatewayError} `store_unavailable`
   */
  refresh?(maxAgeMs: number): Promise<void>
}

export interface TokenSeal {
  /** The grant as a compact JWS, and the hash that its children name as `par_hash`. */
  sign(grant: Grant): Promise<{ readonly token: string; readonly signedHash: string }>
  /**
   * Signature and claims; time, tenant and revocation are for the caller, who checks them on every use.
   * @throws {GatewayError} `grant_invalid`, `store_unavailable`
   */
  verify(token: string): Promise<ClaimedGrant>
  /** Attestation of a hop for a holder without a key. @throws {GatewayError} `delegation_refused` when it has one, and must sign itself */
  attest(hop: Hop): Promise<string>
  /**
   * What was signed of a grant, made again: Ed25519 signs the same bytes the same way. `token` is undefined once the private key is
   * gone; the whole is, when `signedHash` cannot be met any more.
   */
  signedAgain(grant: Grant): { readonly input: string; readonly token: string | undefined } | undefined
  /** RFC 7517 key set with the public halves, current one first, for others who read grants. */
  jwks(): { readonly keys: readonly Record<string, string>[] }
  /** The public key of this id, if it still verifies. */
  keyOf(kid: string): KeyObject | undefined
  /** @see SigningKeys.refresh */
  refresh(maxAgeMs: number): Promise<void>
}

/** @param o.issuer exact value of `iss` and `aud`. */
export function createTokenSeal(o: { readonly issuer: string; readonly keys: SigningKeys }): TokenSeal {
  const { issuer, keys } = o
  if (algorithmOf(keys.current) !== ALGORITHM) throw new TypeError('grants are signed with an Ed25519 key')
  const verifying = () => [publicOf(keys.current), ...keys.retired.map(({ key }) => publicOf(key))]
  const find = (kid: string) => verifying().find((known) => known.kid === kid)
  return {
    async sign(grant) {
      await keys.refresh?.(SIGN_AGE_MS)
      const token = signJws({ typ: TYPE, kid: publicOf(keys.current).kid }, claimsOf(grant, issuer), keys.current)
      return { token, signedHash: hashOf(inputOf(token)) }
    },
    async verify(token) {
      const jws = read(token)
      const kid = kidOf(jws)
      // Another replica may have rotated: its tokens arrive here before we have looked.
      if (find(kid) === undefined) await keys.refresh?.(UNKNOWN_AGE_MS)
      const known = find(kid)
      if (known === undefined) throw invalid('it names a key that this gateway does not sign with')
      return claimedBy(jws, known.key, issuer)
    },
    async attest(hop) {
      await keys.refresh?.(SIGN_AGE_MS)
      return onBehalf(hop, keys.current, publicOf(keys.current).kid)
    },
    signedAgain(grant) {
      const claims = claimsOf(grant, issuer)
      for (const { kid } of verifying()) {
        const input = signingInput({ typ: TYPE, kid, alg: ALGORITHM }, claims)
        if (hashOf(input) !== grant.signedHash) continue
        const isCurrent = kid === publicOf(keys.current).kid
        return { input, token: isCurrent ? signJws({ typ: TYPE, kid }, claims, keys.current) : undefined }
      }
      return undefined
    },
    jwks: () => ({ keys: verifying().map(({ kid, key }) => ({ ...publicJwk(key), kid, alg: ALGORITHM, use: 'sig' })) }),
    keyOf: (kid) => find(kid)?.key,
    refresh: async (maxAgeMs) => keys.refresh?.(maxAgeMs),
  }
}

/**
 * A grant that was signed with one of these keys.
 * @param keyOf public key by key id. @throws {GatewayError} `grant_invalid`
 */
export function readGrant(token: string, issuer: string, keyOf: (kid: string) => KeyObject | undefined): ClaimedGrant {
  const jws = read(token)
  const key = keyOf(kidOf(jws))
  if (key === undefined) throw invalid('it names a key that is not among the known ones')
  return claimedBy(jws, key, issuer)
}

function claimedBy(jws: Jws, key: KeyObject, issuer: string): ClaimedGrant {
  if (!isSignedBy(jws, key)) throw invalid('its signature does not verify')
  try {
    return grantOf(jws.payload, issuer)
  } catch (cause) {
    if (cause instanceof ClaimError) throw invalid(`its ${cause.message}`, cause)
    throw cause
  }
}

/** Before any cryptography. Everything read here is the attacker's until the signature has been checked. */
function read(token: string): Jws {
  try {
    return readJws(token, TOKEN_LIMIT)
  } catch (cause) {
    if (cause instanceof JwsError) throw invalid(cause.message, cause)
    throw cause
  }
}

function kidOf({ header }: Jws): string {
  if (header.typ !== TYPE) throw invalid(`its type is not ${TYPE}`) // RFC 8725 §3.11: another kind of JWT is not a grant
  if (header.alg !== ALGORITHM) throw invalid(`its algorithm is not ${ALGORITHM}`)
  // crit, jku, x5u, jwk, x5c, b64: each would let the token say how it is to be verified.
  if (Object.keys(header).length !== 3) throw invalid('its header has members besides typ, alg and kid')
  if (typeof header.kid !== 'string') throw invalid('it does not name the key that signed it')
  return header.kid
}

interface PublicKey {
  readonly kid: string
  readonly key: KeyObject
}

/** Working out a public half and its thumbprint costs more than a signature. */
const publicKeys = new WeakMap<KeyObject, PublicKey>()

function publicOf(key: KeyObject): PublicKey {
  let known = publicKeys.get(key)
  if (known === undefined) {
    const half = key.type === 'private' ? createPublicKey(key) : key
    known = { kid: thumbprintOf(half), key: half }
    publicKeys.set(key, known)
  }
  return known
}

function invalid(why: string, cause?: unknown): GatewayError {
  return new GatewayError(
    'grant_invalid',
    `A signed grant was presented, but ${why}. Present the token as it was issued, or open a new task.`,
    {
      cause,
    },
  )
}
