/**
 * What is personal, under the key of one person: deterministic authenticated encryption, so that equal values stay equal and can
 * be looked for by whoever has the key, and are noise to everybody once it is destroyed. Pure but for its cache.
 *
 * AES-256-GCM with a synthetic nonce: HMAC-SHA-256 over field and value, under a key of its own (the construction of SIV, RFC 5297
 * §1.1, for which a repeated nonce means a repeated value). What it tells without the key: that two values are equal, and their length.
 */
import { createCipheriv, createDecipheriv, createHmac, hkdfSync, randomFillSync } from 'node:crypto'

/** What a value is. Its place here is in what is sealed, so that no value can be passed off as another kind. */
export const FIELDS = ['human', 'purpose', 'intent', 'address', 'user_agent', 'detail'] as const
export type Field = (typeof FIELDS)[number]

const NONCE_BYTES = 12
const TAG_BYTES = 16
/** Values of a kind that one person has at a time: a few purposes, addresses, clients. */
const MAX_CACHED = 256

/** `sealed:<key id>:<base64url>`. */
export const SEALED = /^sealed:([A-Za-z0-9_-]{16}):([A-Za-z0-9_-]{39,})$/

export class Seal {
  /** Random: says nothing of whose key it is. */
  readonly id: string
  #isDestroyed = false
  readonly #cipherKey: Buffer
  readonly #nonceKey: Buffer
  /** By field: value → sealed. */
  readonly #known = FIELDS.map(() => new Map<string, string>())

  /** @param key 32 bytes. */
  constructor(id: string, key: Uint8Array) {
    this.id = id
    this.#cipherKey = Buffer.from(hkdfSync('sha256', key, '', 'keyless personal cipher', 32))
    this.#nonceKey = Buffer.from(hkdfSync('sha256', key, '', 'keyless personal nonce', 32))
  }

  /** Then it opens nothing, and what it closes is lost. */
  get isDestroyed(): boolean {
    return this.#isDestroyed
  }

  close(field: Field, value: string): string {
    const code = FIELDS.indexOf(field)
    const cached = this.#known[code] as Map<string, string>
    const known = cached.get(value)
    if (known !== undefined) return known
    const kind = Buffer.of(code)
    const nonce = createHmac('sha256', this.#nonceKey).update(kind).update(value).digest().subarray(0, NONCE_BYTES)
    const cipher = createCipheriv('aes-256-gcm', this.#cipherKey, nonce).setAAD(this.#context(kind))
    const text = Buffer.concat([kind, nonce, cipher.update(value, 'utf8'), cipher.final(), cipher.getAuthTag()])
    const sealed = `sealed:${this.id}:${text.toString('base64url')}`
    // Whoever sends many kinds of a value fills no memory.
    if (cached.size >= MAX_CACHED) cached.clear()
    if (!this.#isDestroyed) cached.set(value, sealed)
    return sealed
  }

  /** @param text the part after the key id. @returns undefined when this key did not close it, or is destroyed. */
  open(text: string): string | undefined {
    if (this.#isDestroyed) return undefined
    const bytes = Buffer.from(text, 'base64url')
    const [kind, nonce] = [bytes.subarray(0, 1), bytes.subarray(1, 1 + NONCE_BYTES)]
    try {
      const decipher = createDecipheriv('aes-256-gcm', this.#cipherKey, nonce, { authTagLength: TAG_BYTES })
      decipher.setAAD(this.#context(kind)).setAuthTag(bytes.subarray(-TAG_BYTES))
      const value = decipher.update(bytes.subarray(1 + NONCE_BYTES, -TAG_BYTES), undefined, 'utf8')
      return value + decipher.final('utf8')
    } catch {
      return undefined
    }
  }

  destroy(): void {
    this.#isDestroyed = true
    // Not zero: whoever still closes something under it must not do so under a key that everybody knows.
    randomFillSync(this.#cipherKey)
    randomFillSync(this.#nonceKey)
    for (const cached of this.#known) cached.clear()
  }

  #context(kind: Buffer): Buffer {
    return Buffer.concat([kind, Buffer.from(this.id)])
  }
}
