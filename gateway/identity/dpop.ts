/**
 * DPoP proofs (RFC 9449): the checks of §4.3, in an order in which nothing is used up before everything else holds. Nonces (§8)
 * are computed, not kept: any replica knows those of another, and they end by themselves.
 */
import { createHmac, hash, type KeyObject, timingSafeEqual } from 'node:crypto'
import { calculateJwkThumbprint, type JWK } from 'jose'
import type { Clock } from '../protocol/clock.ts'
import { DPOP_ALGORITHMS } from '../protocol/identity.ts'
import { GatewayError } from '../protocol/problem.ts'
import { type Claims, checkHeader, checkSignature, checkTimes, readJwt, textOf } from './jwt.ts'
import { canMake, isRecord, publicKeyOf } from './key-set.ts'
import { type Once, useOnce } from './once.ts'
import { type Refuse, refusing, shown } from './refuse.ts'

/** Seconds before or after now at which a proof may say it was made. */
const MAX_AGE_S = 60
const SKEW_S = 30
/** A nonce is good in the window it was given in and the next: one to two minutes. */
const NONCE_WINDOW_S = 60

export interface ProofOptions {
  readonly once: Once
  readonly clock: Clock
  /** 32 bytes, the same on all replicas; what it is also used for elsewhere does not matter. */
  readonly nonceKey: KeyObject
}

/** The request that a proof is about; `url` as settings know this endpoint, never as its Host names it. */
export interface ProvedRequest {
  readonly method: string
  readonly url: string
  /** The token that the proof accompanies. */
  readonly accessToken?: string
}

export interface Proofs {
  /** @returns the RFC 7638 thumbprint of the proved key. @throws {GatewayError} `dpop_invalid`, `dpop_nonce_required` */
  proof(dpop: string, request: ProvedRequest): Promise<{ readonly jkt: string }>
  nonce(): string
}

const refuse: Refuse = refusing('dpop_invalid', 'The DPoP proof')

export function createProofs(o: ProofOptions): Proofs {
  const nowS = () => Math.floor(o.clock.nowMs() / 1000)
  const key = createHmac('sha256', o.nonceKey).update('keyless dpop nonce').digest()
  const nonceOf = (window: number) =>
    createHmac('sha256', key).update(String(window)).digest().subarray(0, 18).toString('base64url')
  const isOurs = (nonce: string) => {
    const window = Math.floor(nowS() / NONCE_WINDOW_S)
    // The next one too: another replica's clock may be ahead.
    return [window - 1, window, window + 1].some((near) => isEqual(nonce, nonceOf(near)))
  }
  return {
    async proof(dpop, request) {
      const jwt = readJwt(dpop, refuse)
      const { publicKey, jkt } = await keyOf(jwt.header)
      const iat = checkProof(jwt.claims, request, nowS())
      await checkSignature(jwt, publicKey, refuse)
      const { nonce } = jwt.claims
      if (typeof nonce !== 'string' || !isOurs(nonce)) {
        const detail =
          'The DPoP proof has no nonce, or an old one. Sign it again with the nonce of this answer’s DPoP-Nonce.'
        throw new GatewayError('dpop_nonce_required', detail)
      }
      const jti = textOf(jwt.claims, 'jti', refuse)
      await useOnce(o.once, { of: `dpop ${jkt}`, jti, untilMs: (iat + MAX_AGE_S + 3 * SKEW_S) * 1000 }, refuse)
      return { jkt }
    },
    nonce: () => nonceOf(Math.floor(nowS() / NONCE_WINDOW_S)),
  }
}

/** The one class of token whose key comes with it: possession is all that it proves. */
async function keyOf(header: Claims): Promise<{ publicKey: KeyObject; jkt: string }> {
  const { alg } = checkHeader(header, { typ: ['dpop+jwt'], algorithms: DPOP_ALGORITHMS, inert: ['jwk'] }, refuse)
  if (header.kid !== undefined) throw refuse('its header has "kid"; the key is the one in jwk')
  const publicKey = isRecord(header.jwk) ? publicKeyOf(header.jwk) : undefined
  if (publicKey === undefined || !canMake(publicKey, alg))
    throw refuse(`its jwk is not a public key for ${alg}, and nothing more`)
  return { publicKey, jkt: await calculateJwkThumbprint(publicKey.export({ format: 'jwk' }) as JWK) }
}

/** @returns `iat` */
function checkProof(claims: Claims, { method, url, accessToken }: ProvedRequest, nowS: number): number {
  if (claims.htm !== method) throw refuse(`it is for the method ${shown(claims.htm)}, not ${method}`)
  const place = placeOf(claims.htu)
  if (place === undefined || place !== placeOf(url)) throw refuse(`it is for ${shown(claims.htu)}, not ${placeOf(url)}`)
  const ath = accessToken === undefined ? undefined : hash('sha256', accessToken, 'base64url')
  if (claims.ath !== ath) throw refuse('its ath is not the hash of the token that it accompanies')
  const { iat } = claims
  if (typeof iat !== 'number' || !Number.isSafeInteger(iat)) throw refuse('its iat is not a time in seconds')
  // A proof has no exp of its own (§4.2); one that is there holds as well.
  checkTimes({ exp: iat + MAX_AGE_S, ...claims }, { skewS: SKEW_S, maxLifetimeS: MAX_AGE_S }, nowS, refuse)
  return iat
}

/** §4.3: without query and fragment, normalised as URLs are (RFC 3986 §6.2.2, §6.2.3). */
function placeOf(text: unknown): string | undefined {
  if (typeof text !== 'string' || !URL.canParse(text)) return undefined
  const url = new URL(text)
  return url.username === '' && url.password === '' ? `${url.origin}${url.pathname}` : undefined
}

function isEqual(presented: string, own: string): boolean {
  const [a, b] = [Buffer.from(presented), Buffer.from(own)]
  return a.length === b.length && timingSafeEqual(a, b)
}
