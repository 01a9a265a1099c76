import { createSecretKey, randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { encodeAuthority, type LeaseAuthority, leaseKey } from '../../gateway/lease/key.ts'

const macKey = createSecretKey(randomBytes(32))

/** Every sequence of UTF-16 code units, lone surrogates included. */
const units = fc
  .array(fc.nat({ max: 0xffff }), { minLength: 0, maxLength: 12 })
  .map((codes) => String.fromCharCode(...codes))

/** Every string JavaScript has, lone surrogates and delimiters included. */
const text = fc.oneof(
  units,
  fc.string({ unit: fc.constantFrom('a', '|', '\0', ':', ',', '"', '\\', '\u0001', '\ud800', '\ufffd'), maxLength: 6 }),
  fc.constantFrom('', 'undefined', 'null', '0', 'single-use', '\0\0\0\0', '\ud800', '\udfff', '\ufffd', 'é', 'e\u0301'),
)

const authority: fc.Arbitrary<LeaseAuthority> = fc.record({
  tenant: text,
  service: text,
  credential: text,
  provider: text,
  identity: text,
  role: fc.option(text, { nil: undefined }),
  grant: text,
  lineageHash: text,
  ttlS: fc.option(fc.oneof(fc.nat(), fc.double({ noNaN: true })), { nil: undefined }),
  singleUse: fc.boolean(),
})

function same(one: LeaseAuthority, other: LeaseAuthority): boolean {
  const names = Object.keys(one) as (keyof LeaseAuthority)[]
  return names.every((name) => one[name] === other[name])
}

test('two different authorities never share a key, and equal ones always do', () => {
  fc.assert(
    fc.property(authority, authority, (one, other) => {
      expect(leaseKey(one, macKey) === leaseKey(other, macKey)).toBe(same(one, other))
      expect(encodeAuthority(one).equals(encodeAuthority(other))).toBe(same(one, other))
    }),
    { numRuns: 2_000 },
  )
})

test('changing any one field, by any other value, changes the key', () => {
  fc.assert(
    fc.property(authority, authority, fc.constantFrom<keyof LeaseAuthority>(...fields()), (one, other, name) => {
      fc.pre(one[name] !== other[name])
      expect(leaseKey({ ...one, [name]: other[name] }, macKey)).not.toBe(leaseKey(one, macKey))
    }),
    { numRuns: 2_000 },
  )
})

test('moving text across the border of two fields changes the key', () => {
  fc.assert(
    fc.property(authority, text, text, fc.nat(5), (base, head, tail, at) => {
      fc.pre(tail !== '')
      const names = ['tenant', 'service', 'credential', 'provider', 'identity', 'grant', 'lineageHash'] as const
      const [left, right] = [names[at] ?? 'tenant', names[at + 1] ?? 'service']
      const one = { ...base, [left]: head + tail, [right]: '' }
      const other = { ...base, [left]: head, [right]: tail }
      expect(leaseKey(one, macKey)).not.toBe(leaseKey(other, macKey))
    }),
  )
})

test('another gateway key gives another name', () => {
  const one = fc.sample(authority, 1)[0]
  if (one === undefined) throw new Error('no sample')
  expect(leaseKey(one, createSecretKey(randomBytes(32)))).not.toBe(leaseKey(one, macKey))
})

function fields(): (keyof LeaseAuthority)[] {
  return ['tenant', 'service', 'credential', 'provider', 'identity', 'grant', 'lineageHash', 'ttlS', 'singleUse']
}
