import { createHmac, createSecretKey, randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createKeyedHash } from '../../gateway/protocol/keyed-hash.ts'

describe('the keyed hash', () => {
  it('is HMAC-SHA256, for every key and every text', () => {
    const text = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 300 }),
      fc.constantFrom('', 'a'.repeat(2730), 'é'.repeat(2731), '€'.repeat(5000)),
    )
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 64 }), fc.array(text, { maxLength: 5 }), (raw, texts) => {
        const key = createSecretKey(raw)
        const keyed = createKeyedHash(key)
        for (const one of texts) expect(keyed(one)).toBe(createHmac('sha256', key).update(one).digest('base64url'))
      }),
    )
  })

  it('takes no key that HMAC would hash first', () => {
    expect(() => createKeyedHash(createSecretKey(randomBytes(65)))).toThrow('65 bytes')
  })
})
