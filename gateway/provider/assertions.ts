/** JWTs about whom the gateway asks for, signed by keys of their own: a grant is signed by another key, so neither passes for the other. */
import type { KeyObject } from 'node:crypto'
import { calculateJwkThumbprint, exportJWK, SignJWT } from 'jose'
import type { Clock } from '../protocol/clock.ts'
import { uuidv7 } from '../protocol/id.ts'
import { Secret } from '../protocol/secret.ts'
import type { Assertions } from './provider.ts'

/** Private keys by algorithm. */
export interface AssertionKeys {
  readonly ES256: KeyObject
  readonly RS256: KeyObject
}

const MAX_LIFE_S = 600

export function createAssertions(keys: AssertionKeys, issuer: string, clock: Clock): Assertions {
  return {
    issuer,
    async sign(claims, { audience, lifeS, algorithm = 'ES256' }) {
      const key = keys[algorithm]
      const nowS = Math.floor(clock.nowMs() / 1000)
      const jwt = new SignJWT({ ...claims })
        .setProtectedHeader({ alg: algorithm, typ: 'JWT', kid: await calculateJwkThumbprint(await exportJWK(key)) })
        .setIssuer(issuer)
        .setAudience(audience)
        .setIssuedAt(nowS)
        .setExpirationTime(nowS + Math.min(lifeS, MAX_LIFE_S))
        .setJti(uuidv7(clock.nowMs()))
      return new Secret(await jwt.sign(key))
    },
  }
}
