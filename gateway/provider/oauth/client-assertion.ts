/**
 * Client authentication with a private key (RFC 7523 §2.2): the key as PEM (PKCS#8) or JWK, the algorithm taken from the key
 * and never from elsewhere (RFC 8725 §3.1), fully specified (RFC 9864).
 */
import type { KeyObject } from 'node:crypto'
import * as oauth from 'oauth4webapi'
import type { Clock } from '../../protocol/clock.ts'
import { GatewayError } from '../../protocol/problem.ts'
import type { Secret } from '../../protocol/secret.ts'
import { keptKey, type PrivateJwk, readSigningKey } from '../jwt-key.ts'

/** Seconds an assertion is valid: enough for one request and a clock that is half a minute off. */
const ASSERTION_LIFE_S = 60

interface AssertionOptions {
  /** The settings that refer to the key. */
  readonly owner: object
  readonly key: Secret
  readonly kid: string | undefined
  /** The issuer identifier as a single string: a list would let one server replay the assertion at another. */
  readonly audience: string
  readonly clock: Clock
}

/** @throws {GatewayError} `credential_unconfigured` for a key that is none, or of a kind that cannot sign assertions. */
export async function clientAssertion({
  owner,
  key,
  kid,
  audience,
  clock,
}: AssertionOptions): Promise<oauth.ClientAuth> {
  const { signingKey, keyId } = keptKey(owner, key.reveal(), () => signingKeyOf(key))
  const ownKid = kid ?? keyId
  return oauth.PrivateKeyJwt(ownKid === undefined ? signingKey : { key: signingKey, kid: ownKid }, {
    [oauth.modifyAssertion](_header, claims) {
      const nowS = Math.floor(clock.nowMs() / 1000)
      claims.aud = audience
      claims.iat = nowS
      claims.nbf = nowS
      claims.exp = nowS + ASSERTION_LIFE_S
    },
  })
}

/** Nothing of its text: what is made of it is kept. */
function signingKeyOf(key: Secret) {
  const { keyObject, jwk } = readSigningKey(key) ?? missing()
  const keyId = typeof jwk?.kid === 'string' ? jwk.kid : undefined
  return { signingKey: keyObject.toCryptoKey(algorithmOf(keyObject, jwk), false, ['sign']), keyId }
}

type SigningAlgorithm = Parameters<KeyObject['toCryptoKey']>[0]

function missing(): never {
  throw unusable('it is neither an unencrypted PEM private key (PKCS#8) nor a private JWK')
}

function algorithmOf(key: KeyObject, jwk: PrivateJwk | undefined): SigningAlgorithm {
  switch (key.asymmetricKeyType) {
    case 'ec':
      if (key.asymmetricKeyDetails?.namedCurve === 'prime256v1') return { name: 'ECDSA', namedCurve: 'P-256' }
      throw unusable('its curve is not P-256')
    case 'rsa':
      requireStrength(key)
      return { name: jwk?.alg === 'PS256' ? 'RSA-PSS' : 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' }
    case 'rsa-pss':
      requireStrength(key)
      return { name: 'RSA-PSS', hash: 'SHA-256' }
    case 'ed25519':
      return { name: 'Ed25519' }
    default:
      throw unusable('its kind cannot sign client assertions')
  }
}

/** RFC 7518 §3.3. */
function requireStrength(key: KeyObject): void {
  if ((key.asymmetricKeyDetails?.modulusLength ?? 0) < 2048) throw unusable('it is an RSA key of less than 2048 bits')
}

function unusable(why: string): GatewayError {
  return new GatewayError(
    'credential_unconfigured',
    `The key for private_key_jwt cannot be used: ${why}. Supported: P-256 (ES256), RSA (RS256), RSA-PSS (PS256), Ed25519.`,
  )
}
