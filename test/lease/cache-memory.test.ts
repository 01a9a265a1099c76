import { expect, test } from 'vitest'
import { createMemoryCache } from '../../gateway/lease/cache-memory.ts'
import { cacheConformance } from '../conformance/cache.ts'
import { fakeClock } from './lease.fixture.ts'

const clock = fakeClock()
let shared = createMemoryCache({ clock })

cacheConformance('memory', () => ({
  open() {
    shared = createMemoryCache({ clock })
    // One process has one cache: its replicas are views of the same object.
    return shared
  },
  pass: async (ms) => clock.advance(ms),
}))

test('keeps a bounded number of values, dropping dead ones first and then the oldest grants', async () => {
  const time = fakeClock()
  const cache = createMemoryCache({ clock: time, maxEntries: 10 })
  const key = (i: number) => ({ id: `id-${i}`, grant: `grant-${i}` })
  await cache.set(key(0), Buffer.from('short'), { ttlMs: 10, fence: null })
  for (let i = 1; i < 10; i += 1) await cache.set(key(i), Buffer.from('long'), { ttlMs: 1_000, fence: null })
  time.advance(10)
  await cache.set(key(10), Buffer.from('long'), { ttlMs: 1_000, fence: null })
  expect(await cache.get(key(1))).toBeDefined()
  await cache.set(key(11), Buffer.from('long'), { ttlMs: 1_000, fence: null })
  expect(await cache.get(key(1))).toBeUndefined()
  expect(await cache.get(key(11))).toBeDefined()
})
