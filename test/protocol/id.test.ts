import fc from 'fast-check'
import { expect, test } from 'vitest'
import { uuidv7 } from '../../gateway/protocol/id.ts'

const FORM = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

test('every id has the form of a UUIDv7 and carries its millisecond', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 48 - 1 }), (nowMs) => {
      const id = uuidv7(nowMs)
      expect(id).toMatch(FORM)
      expect(Number.parseInt(id.replaceAll('-', '').slice(0, 12), 16)).toBe(nowMs)
    }),
  )
})

test('ids of later milliseconds sort later', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 48 - 2 }), fc.integer({ min: 1, max: 1_000_000 }), (earlier, gap) => {
      const later = Math.min(earlier + gap, 2 ** 48 - 1)
      expect(uuidv7(earlier) < uuidv7(later)).toBe(true)
    }),
  )
})

test('a hundred thousand ids of one millisecond are all different, across pool refills', () => {
  const ids = new Set(Array.from({ length: 100_000 }, () => uuidv7(1_700_000_000_000)))
  expect(ids.size).toBe(100_000)
})

test('every random bit takes both values', () => {
  const bits = Array.from({ length: 74 }, () => new Set<string>())
  for (let i = 0; i < 200; i++) {
    const digits = uuidv7(0).replaceAll('-', '')
    const binary = BigInt(`0x${digits}`).toString(2).padStart(128, '0')
    const random = binary.slice(52, 64) + binary.slice(66)
    for (let bit = 0; bit < 74; bit++) bits[bit]?.add(random[bit] as string)
  }
  expect(bits.every((seen) => seen.size === 2)).toBe(true)
})
