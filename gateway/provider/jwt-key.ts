/** Private keys as settings refer to them: PEM (PKCS#8) or JWK. */
import { createPrivateKey, hash, type KeyObject, type webcrypto } from 'node:crypto'
import type { Secret } from '../protocol/secret.ts'

/** RFC 7517 §4: `kid` and `alg` describe the key; the DOM type leaves `kid` out. */
export type PrivateJwk = webcrypto.JsonWebKey & { readonly kid?: unknown }

/** Settings of a credential → the key that was last read for it, and SHA-256 of its text. They die with it. */
const kept = new WeakMap<object, { readonly digest: string; readonly key: unknown }>()

/**
 * What `read` makes of this text, made once for as long as the text stays the same: the first signature with an RSA key takes twice the
 * work of the next, because what it needs is worked out then. A key that was changed where it is kept takes the place of the one before.
 * @param owner the settings that refer to it. @throws what `read` throws.
 */
export function keptKey<K>(owner: object, text: string, read: () => K): K {
  const digest = hash('sha256', text)
  const before = kept.get(owner)
  if (before?.digest === digest) return before.key as K
  const key = read()
  kept.set(owner, { digest, key })
  return key
}

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
