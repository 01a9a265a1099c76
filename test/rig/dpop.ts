/** DPoP proofs (RFC 9449 §4.2) as a client makes them, with jose. */
import { createPublicKey, hash, type KeyObject, randomUUID } from 'node:crypto'
import { SignJWT } from 'jose'

export interface Proving {
  readonly htm: string
  readonly htu: string
  readonly nonce?: string
  /** The token that the proof accompanies: `ath`. */
  readonly token?: string | undefined
  /** Changes of the claims; undefined leaves one out. */
  readonly claims?: Readonly<Record<string, unknown>>
}

/** @param key private, Ed25519 or P-256. */
export function proofsBy(key: KeyObject): (o: Proving) => Promise<string> {
  const jwk = createPublicKey(key).export({ format: 'jwk' })
  const alg = key.asymmetricKeyType === 'ed25519' ? 'Ed25519' : 'ES256'
  return ({ htm, htu, nonce, token, claims }) =>
    new SignJWT({
      htm,
      htu,
      iat: Math.floor(Date.now() / 1000),
      jti: randomUUID(),
      ...(nonce !== undefined && { nonce }),
      ...(token !== undefined && { ath: hash('sha256', token, 'base64url') }),
      ...claims,
    })
      .setProtectedHeader({ typ: 'dpop+jwt', alg, jwk })
      .sign(key)
}
