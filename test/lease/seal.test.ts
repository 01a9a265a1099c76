import { createSecretKey, randomBytes } from 'node:crypto'
import { inspect } from 'node:util'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createSeal, type Sealable } from '../../gateway/lease/seal.ts'
import { Secret } from '../../gateway/protocol/secret.ts'

const key = (): ReturnType<typeof createSecretKey> => createSecretKey(randomBytes(32))
const seal = createSeal(key())

const sealable: fc.Arbitrary<Sealable> = fc.record({
  tenant: fc.string(),
  name: fc.string(),
  identity: fc.string({ unit: 'binary' }),
  service: fc.string(),
  secret: fc.string({ unit: 'grapheme', minLength: 1 }).map((value) => new Secret(value)),
  expiresAt: fc.oneof(fc.nat(), fc.constant(Number.POSITIVE_INFINITY)),
  ephemeral: fc.boolean(),
  scope: fc.option(fc.string(), { nil: undefined }),
  parts: fc.option(
    fc.dictionary(
      fc.string(),
      fc.string().map((value) => new Secret(value)),
    ),
    { nil: undefined },
  ),
  sinceMs: fc.nat(),
  untilMs: fc.nat(),
  renewAtMs: fc.oneof(fc.nat(), fc.constant(Number.POSITIVE_INFINITY)),
})

const open = (one: Sealable | undefined): unknown =>
  one && {
    ...one,
    secret: one.secret.reveal(),
    parts: one.parts && Object.entries(one.parts).map(([part, secret]) => [part, secret.reveal()]),
  }

test('opens to exactly what was sealed, under the same key only', () => {
  fc.assert(
    fc.property(sealable, fc.string(), fc.string(), (value, place, other) => {
      const sealed = seal.seal(place, value)
      expect(open(seal.open(place, sealed))).toEqual(open(value))
      if (other !== place) expect(seal.open(other, sealed)).toBeUndefined()
    }),
  )
})

test('a value changed in any one bit, cut or extended does not open', () => {
  const value = fc.sample(sealable, 1)[0]
  if (value === undefined) throw new Error('no sample')
  const sealed = seal.seal('place', value)
  fc.assert(
    fc.property(fc.nat(sealed.length * 8 - 1), (bit) => {
      const changed = Buffer.from(sealed)
      changed.writeUInt8(changed.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3)
      expect(seal.open('place', changed)).toBeUndefined()
    }),
  )
  fc.assert(
    fc.property(fc.nat(sealed.length - 1), (length) => seal.open('place', sealed.subarray(0, length)) === undefined),
  )
  expect(seal.open('place', Buffer.concat([sealed, Buffer.of(0)]))).toBeUndefined()
})

test('arbitrary bytes never open', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => seal.open('place', Buffer.from(bytes)) === undefined),
  )
})

test('never seals to the same bytes twice, and the bytes hold no secret', () => {
  const value: Sealable = {
    tenant: 'default',
    name: 'billing',
    identity: 'issuer',
    service: 'billing',
    secret: new Secret('canary-credential-1234'),
    expiresAt: 1,
    ephemeral: true,
    scope: undefined,
    parts: { id: new Secret('canary-part-5678') },
    sinceMs: 1,
    untilMs: 1,
    renewAtMs: 1,
  }
  const all = Array.from({ length: 100 }, () => seal.seal('place', value))
  expect(new Set(all.map((sealed) => sealed.subarray(1, 13).toString('hex'))).size).toBe(100)
  for (const sealed of all) expect(sealed.includes('canary')).toBe(false)
  expect(inspect(seal.open('place', all[0] ?? Buffer.alloc(0)), { depth: 9, showHidden: true })).not.toContain('canary')
})

test('opens under no other gateway key', () => {
  const value = fc.sample(sealable, 1)[0]
  if (value === undefined) throw new Error('no sample')
  expect(createSeal(key()).open('place', seal.seal('place', value))).toBeUndefined()
})

test('credential ids are equal for equal secrets, differ between gateways, and are 16 bytes', () => {
  fc.assert(
    fc.property(fc.string({ minLength: 1 }), fc.string({ minLength: 1 }), (one, other) => {
      const id = seal.credentialId(new Secret(one))
      expect(Buffer.from(id, 'base64url')).toHaveLength(16)
      expect(seal.credentialId(new Secret(other)) === id).toBe(one === other)
      expect(createSeal(key()).credentialId(new Secret(one))).not.toBe(id)
    }),
  )
})

test('refuses a key of the wrong size', () => {
  expect(() => createSeal(createSecretKey(randomBytes(16)))).toThrow('32-byte')
})

test('a text is sealed for its place alike, and is never taken for a credential', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', minLength: 1 }), fc.string(), fc.string(), (text, place, elsewhere) => {
      const sealed = seal.sealText(place, text)
      expect(seal.openText(place, sealed)).toBe(text)
      if (elsewhere !== place) expect(seal.openText(elsewhere, sealed)).toBeUndefined()
      expect(seal.open(place, sealed)).toBeUndefined()
      expect(createSeal(key()).openText(place, sealed)).toBeUndefined()
    }),
  )
})
