import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Bounds, isTooShort, lifetimeOf } from '../../gateway/lease/lifetime.ts'

const bounds: fc.Arbitrary<Bounds> = fc.record({
  nowMs: fc.nat({ max: 4e12 }),
  policyTtlS: fc.option(fc.integer({ min: 0, max: 86_400 }), { nil: undefined }),
  grantExpiresAt: fc.nat({ max: 4e9 }),
  credentialExpiresAt: fc.oneof(fc.nat({ max: 4e9 }), fc.constant(Number.POSITIVE_INFINITY)),
  spread: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
})

test('a lease outlives neither policy nor grant nor credential, and is never unbounded', () => {
  fc.assert(
    fc.property(bounds, (b) => {
      const { untilMs, renewAtMs } = lifetimeOf(b)
      expect(Number.isFinite(untilMs)).toBe(true)
      expect(untilMs).toBeLessThanOrEqual(b.grantExpiresAt * 1000)
      expect(untilMs).toBeLessThanOrEqual(b.credentialExpiresAt * 1000)
      if (b.policyTtlS !== undefined) expect(untilMs).toBeLessThanOrEqual(b.nowMs + b.policyTtlS * 1000)
      if (Number.isFinite(renewAtMs) && untilMs > b.nowMs) expect(renewAtMs).toBeLessThan(untilMs)
    }),
  )
})

test('gives up at most a minute and at most a tenth of what the credential has left', () => {
  fc.assert(
    fc.property(fc.nat({ max: 4e12 }), fc.integer({ min: 1, max: 1e6 }), (nowMs, lifeS) => {
      const credentialExpiresAt = Math.ceil(nowMs / 1000) + lifeS
      const bounds = { nowMs, policyTtlS: undefined, grantExpiresAt: 1e10, credentialExpiresAt, spread: 0 }
      const { untilMs } = lifetimeOf(bounds)
      const givenUpMs = credentialExpiresAt * 1000 - untilMs
      expect(givenUpMs).toBeLessThanOrEqual(60_000)
      expect(givenUpMs).toBeLessThanOrEqual((credentialExpiresAt * 1000 - nowMs) / 10 + 1e-3)
    }),
  )
})

test('less of anything never makes a lease longer', () => {
  fc.assert(
    fc.property(bounds, bounds, (one, other) => {
      const least: Bounds = {
        nowMs: one.nowMs,
        policyTtlS: Math.min(one.policyTtlS ?? Number.POSITIVE_INFINITY, other.policyTtlS ?? Number.POSITIVE_INFINITY),
        grantExpiresAt: Math.min(one.grantExpiresAt, other.grantExpiresAt),
        credentialExpiresAt: Math.min(one.credentialExpiresAt, other.credentialExpiresAt),
        spread: other.spread,
      }
      expect(lifetimeOf(least).untilMs).toBeLessThanOrEqual(lifetimeOf(one).untilMs)
    }),
  )
})

test('is renewed when three quarters of its life are over, or up to a fifth of that earlier, and never later', () => {
  fc.assert(
    fc.property(bounds, (b) => {
      const { untilMs, renewAtMs } = lifetimeOf(b)
      const lifeMs = untilMs - b.nowMs
      if (!Number.isFinite(renewAtMs) || lifeMs <= 0) return
      expect(renewAtMs - b.nowMs).toBeLessThanOrEqual(0.75 * lifeMs + 1e-3)
      expect(renewAtMs - b.nowMs).toBeGreaterThanOrEqual(0.6 * lifeMs - 1e-3)
    }),
  )
})

describe('too short', () => {
  test.each([
    [5, true], // 4.5 s after the skew
    [6, false], // 5.4 s
    [0, true],
    [-10, true], // expired when it came
    [3_600, false],
    [Number.POSITIVE_INFINITY, false], // a standing key
    [Number.NaN, true], // no life at all
  ])('a credential that ends in %s s: %s', (lifeS, expected) => {
    const asked = {
      nowMs: 1e12,
      policyTtlS: undefined,
      grantExpiresAt: 2e9,
      credentialExpiresAt: 1e9 + lifeS,
      spread: 0,
    }
    expect(isTooShort(asked)).toBe(expected)
  })

  test('says nothing about policy and grant, which our own clock measures', () => {
    const bounds = { nowMs: 1e12, policyTtlS: 1, grantExpiresAt: 1e9 + 1, credentialExpiresAt: 2e9, spread: 0 }
    expect(isTooShort(bounds)).toBe(false)
  })
})
