/** Private keys as settings refer to them: PEM (PKCS#8) or JWK. */
import { createPrivateKey, type KeyObject, type webcrypto } from 'node:crypto'
import type { Secret } from '../protocol/secret.ts'

/** RFC 7517 §4: `kid` and `alg` describe the key; the DOM type leaves `kid` out. */
export type PrivateJwk = webcrypto.JsonWebKey & { readonly kid?: unknown }

/** @returns undefined for what is neither. Parser errors quote their input, which is a private key: nothing of them is kept. */
export function readSigningKey(key: Secret): { keyObject: KeyObject; jwk: PrivateJwk | undefined } | undefined {
  const text = key.reveal()
  try {
    if (!text.trimStart().startsWith('{')) return { keyObject: createPrivateKey(text), jwk: undefined }
    const jwk: PrivateJwk = JSON.parse(text)
    return { keyObject: createPrivateKey({ key: jwk, format: 'jwk' }), jwk }
  } catch {
    return undefined
  }
}
