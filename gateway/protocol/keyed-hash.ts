/**
 * HMAC-SHA256 of short texts, for what is hashed on every request. Two one-shot hashes are what HMAC is (RFC 2104 §2), and cost half
 * of an `Hmac` object, which Node makes anew each time.
 */
import { createHmac, type Hmac, hash, type KeyObject } from 'node:crypto'

/** @returns base64url without padding, 43 characters. */
export type KeyedHash = (text: string) => string

/** Begins the hash of a body of this tenant. */
export type StartHash = (tenant: string) => Hmac

/** Begun with the tenant, so that equal bodies of two tenants cannot be matched. */
export function bodyHashes(key: KeyObject): StartHash {
  return (tenant) => createHmac('sha256', key).update(`${tenant}\0`)
}

/** Of one body as it passes. Nothing is made before its first byte: most requests have none. */
export class BodyHash {
  readonly #start: StartHash | undefined
  readonly #tenant: string
  #hash: Hmac | undefined

  /** @param start undefined: nobody wants it. */
  constructor(start: StartHash | undefined, tenant: string) {
    this.#start = start
    this.#tenant = tenant
  }

  add(bytes: Buffer): void {
    this.#hash ??= this.#start?.(this.#tenant)
    this.#hash?.update(bytes)
  }

  /** `hmac:` and base64url of what has passed; undefined when that is nothing. Once. */
  take(): string | undefined {
    return this.#hash && `hmac:${this.#hash.digest('base64url')}`
  }
}

const BLOCK_BYTES = 64
/** Texts up to a third of it: UTF-8 takes at most three bytes for a UTF-16 unit. */
const ROOM_BYTES = 8 * 1024

/** @param key secret key of at most 64 bytes; longer ones would have to be hashed first. */
export function createKeyedHash(key: KeyObject): KeyedHash {
  const inner = padded(key, 0x36, ROOM_BYTES)
  const outer = padded(key, 0x5c, 32)
  return (text) => {
    if (text.length * 3 > ROOM_BYTES) return createHmac('sha256', key).update(text).digest('base64url')
    const end = BLOCK_BYTES + inner.write(text, BLOCK_BYTES, 'utf8')
    outer.write(hash('sha256', inner.subarray(0, end), 'latin1'), BLOCK_BYTES, 'latin1')
    return hash('sha256', outer, 'base64url')
  }
}

/** The key, filled up with zeros and masked, with room behind it. */
function padded(key: KeyObject, mask: number, room: number): Buffer {
  const raw = key.export()
  if (raw.length > BLOCK_BYTES) throw new RangeError(`a key of ${raw.length} bytes is longer than ${BLOCK_BYTES}`)
  const block = Buffer.alloc(BLOCK_BYTES + room)
  raw.copy(block)
  for (let i = 0; i < BLOCK_BYTES; i++) block[i] = (block[i] as number) ^ mask
  return block
}
