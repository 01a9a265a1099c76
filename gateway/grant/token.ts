/**
 * Signed grants: RFC 9068 `at+jwt`, Ed25519, verified as LG/1 §1.6 steps 1 to 5 say. Nothing in a token chooses how it is
 * verified: algorithm and key come from the table by `kid`, and a header member that could name another key is refused.
 */
import { createPublicKey, hash, type KeyObject } from 'node:crypto'
import { compactVerify, SignJWT } from 'jose'
import type { Grant } from '../protocol/grant.ts'
import { GatewayError } from '../protocol/problem.ts'
import { ClaimError, type ClaimedGrant, claimsOf, grantOf } from './claims.ts'

const ALGORITHM = 'Ed25519' // RFC 9864: the fully specified name, not EdDSA
const TYPE = 'at+jwt'
/** LG/1 §1.6 step 1. */
export const TOKEN_LIMIT = 16 * 1024

export interface TokenSeal {
  /** The grant as a compact JWS. */
  sign(grant: Grant): Promise<string>
  /**
   * Signature and claims; time, tenant and revocation are for the caller, who checks them on every use.
   * @throws {GatewayError} `grant_invalid`
   */
  verify(token: string): Promise<ClaimedGrant>
  /** RFC 7517 key set with the public half, for others who read grants. */
  jwks(): { readonly keys: readonly Record<string, string>[] }
}

/** @param issuer exact value of `iss` and `aud`. */
export function createTokenSeal(issuer: string, signingKey: KeyObject): TokenSeal {
  const publicKey = createPublicKey(signingKey)
  const jwk = publicKey.export({ format: 'jwk' })
  if (jwk.crv !== 'Ed25519' || jwk.x === undefined) throw new TypeError('grants are signed with an Ed25519 key')
  const kid = thumbprint(jwk.x)
  return {
    sign: (grant) =>
      new SignJWT(claimsOf(grant, issuer)).setProtectedHeader({ typ: TYPE, alg: ALGORITHM, kid }).sign(signingKey),
    async verify(token) {
      checkHeader(token, kid)
      const payload = await checkSignature(token, publicKey)
      try {
        return grantOf(parseOnce(payload), issuer)
      } catch (cause) {
        if (cause instanceof ClaimError) throw invalid(`its ${cause.message}`, cause)
        throw cause
      }
    },
    jwks: () => ({ keys: [{ kty: 'OKP', crv: 'Ed25519', x: jwk.x as string, kid, alg: ALGORITHM, use: 'sig' }] }),
  }
}

/** RFC 7638 §3.2, RFC 8037 §2: the required members in lexicographic order. */
function thumbprint(x: string): string {
  return hash('sha256', `{"crv":"Ed25519","kty":"OKP","x":"${x}"}`, 'base64url')
}

/** Before any cryptography. Everything read here is the attacker's until the signature has been checked. */
function checkHeader(token: string, kid: string): void {
  if (token.length > TOKEN_LIMIT) throw invalid(`it is longer than ${TOKEN_LIMIT} characters`)
  const parts = token.split('.')
  if (parts.length !== 3) throw invalid(`it has ${parts.length} parts where a signed grant has 3`)
  const [head, , signature] = parts as [string, string, string]
  const header = parseOnce(decode(head)) as Record<string, unknown> | null
  if (typeof header !== 'object' || header === null) throw invalid('its header is not an object')
  if (header.typ !== TYPE) throw invalid(`its type is not ${TYPE}`) // RFC 8725 §3.11: another kind of JWT is not a grant
  if (header.kid !== kid) throw invalid('it names a key that this gateway does not sign with')
  if (header.alg !== ALGORITHM) throw invalid(`its algorithm is not ${ALGORITHM}`)
  // crit, jku, x5u, jwk, x5c, b64: each would let the token say how it is to be verified.
  if (Object.keys(header).length !== 3) throw invalid('its header has members besides typ, alg and kid')
  decode(signature)
}

async function checkSignature(token: string, key: KeyObject): Promise<string> {
  try {
    const { payload } = await compactVerify(token, key, { algorithms: [ALGORITHM] })
    return Buffer.from(payload).toString('utf8')
  } catch (cause) {
    throw invalid('its signature does not verify', cause)
  }
}

/** base64url in its one canonical form: the last character of a signature has bits that a lax decoder drops. */
function decode(part: string): string {
  const bytes = Buffer.from(part, 'base64url')
  if (bytes.toString('base64url') !== part) throw invalid('it is not base64url')
  return bytes.toString('utf8')
}

/**
 * JSON that means the same to every reader. Our own tokens are what `JSON.stringify` writes, so a text that does not come
 * back equal has a duplicate key, which `JSON.parse` would hide, or another second reading.
 */
function parseOnce(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text)
    if (JSON.stringify(value) === text) return value
  } catch (cause) {
    throw invalid('it does not hold JSON', cause)
  }
  throw invalid('its JSON can be read in two ways')
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
