/** What every lease cache must do; each variant runs this suite (`test/lease/cache-*.test.ts`). */
import { randomBytes, randomUUID } from 'node:crypto'
import { afterEach, describe, expect, test } from 'vitest'
import type { LeaseCache, LeaseKey } from '../../gateway/lease/cache.ts'

export interface CacheVariant {
  /** A fresh view of one and the same store: what one replica has. */
  open(): LeaseCache
  /** Let this much time pass for the store. */
  pass(ms: number): Promise<void>
}

const bytes = (): Buffer => randomBytes(64)
const place = (grant: string = randomUUID()): LeaseKey => ({ id: randomBytes(16).toString('base64url'), grant })

export function cacheConformance(name: string, variant: () => CacheVariant): void {
  describe(`lease cache: ${name}`, () => {
    const opened: LeaseCache[] = []
    const open = (): LeaseCache => {
      const cache = variant().open()
      opened.push(cache)
      return cache
    }
    afterEach(async () => {
      for (const cache of opened.splice(0)) await cache.close()
    })

    test('gives back the same bytes, whatever they are', async () => {
      const cache = open()
      const key = place()
      const value = Buffer.from(Array.from({ length: 256 }, (_, i) => i))
      expect(await cache.get(key)).toBeUndefined()
      expect(await cache.set(key, value, { ttlMs: 60_000, fence: null })).toBe('stored')
      expect((await cache.get(key))?.equals(value)).toBe(true)
    })

    test('keeps places apart by id and by grant', async () => {
      const cache = open()
      const key = place()
      await cache.set(key, bytes(), { ttlMs: 60_000, fence: null })
      expect(await cache.get({ ...key, id: 'other' })).toBeUndefined()
      expect(await cache.get({ ...key, grant: 'other' })).toBeUndefined()
    })

    test('drops a value when its time is over', async () => {
      const cache = open()
      const key = place()
      await cache.set(key, bytes(), { ttlMs: 40, fence: null })
      await variant().pass(40)
      expect(await cache.get(key)).toBeUndefined()
      expect(await cache.purge(key.grant)).toEqual([])
    })

    test('writes without a lock only where nothing is', async () => {
      const cache = open()
      const key = place()
      const first = bytes()
      await cache.set(key, first, { ttlMs: 60_000, fence: null })
      expect(await cache.set(key, bytes(), { ttlMs: 60_000, fence: null })).toBe('superseded')
      expect((await cache.get(key))?.equals(first)).toBe(true)
    })

    test('removes a value only if it is still that one', async () => {
      const cache = open()
      const key = place()
      const value = bytes()
      await cache.set(key, value, { ttlMs: 60_000, fence: null })
      expect(await cache.remove(key, bytes())).toBe(false)
      expect(await cache.get(key)).toBeDefined()
      expect(await cache.remove(key, value)).toBe(true)
      expect(await cache.remove(key, value)).toBe(false)
      expect(await cache.get(key)).toBeUndefined()
    })

    test('lets one hold the lock, until it is given back or its time is over', async () => {
      const cache = open()
      const key = place()
      const first = await cache.lock(key, 60_000)
      expect(first).not.toBeNull()
      expect(await cache.lock(key, 60_000)).toBeNull()
      expect(await cache.lock(place(), 60_000)).not.toBeNull()
      await cache.unlock(key, first ?? 0)
      const second = await cache.lock(key, 40)
      expect(second).toBeGreaterThan(first ?? 0)
      await variant().pass(40)
      expect(await cache.lock(key, 60_000)).toBeGreaterThan(second ?? 0)
    })

    test('keeps the lock of a holder that says it is alive, and of nobody else', async () => {
      const cache = open()
      const key = place()
      const holder = (await cache.lock(key, 60)) ?? 0
      await cache.extend(key, holder, 60_000)
      await variant().pass(60)
      expect(await cache.lock(key, 60_000)).toBeNull()
      await cache.unlock(key, holder)
      const late = (await cache.lock(key, 40)) ?? 0
      await variant().pass(40)
      await cache.extend(key, late, 60_000)
      const next = await cache.lock(key, 40)
      expect(next).toBeGreaterThan(late)
      await cache.extend(key, late, 60_000)
      await variant().pass(40)
      expect(await cache.lock(key, 60_000)).toBeGreaterThan(next ?? 0)
    })

    test('ignores a lock given back by somebody who holds it no more', async () => {
      const cache = open()
      const key = place()
      const late = (await cache.lock(key, 40)) ?? 0
      await variant().pass(40)
      await cache.lock(key, 60_000)
      await cache.unlock(key, late)
      expect(await cache.lock(key, 60_000)).toBeNull()
    })

    test('refuses the write of a holder that was overtaken, even after the next one has finished', async () => {
      const cache = open()
      const key = place()
      const late = await cache.lock(key, 40)
      await variant().pass(40)
      const next = (await cache.lock(key, 60_000)) ?? 0
      expect(await cache.set(key, bytes(), { ttlMs: 60_000, fence: late })).toBe('superseded')
      const value = bytes()
      expect(await cache.set(key, value, { ttlMs: 60_000, fence: next })).toBe('stored')
      await cache.unlock(key, next)
      expect(await cache.set(key, bytes(), { ttlMs: 60_000, fence: late })).toBe('superseded')
      expect((await cache.get(key))?.equals(value)).toBe(true)
    })

    test('purges everything of a grant and nothing else, and says what it was', async () => {
      const cache = open()
      const grant = randomUUID()
      const [one, two, other] = [place(grant), place(grant), place()]
      const values = [bytes(), bytes(), bytes()] as const
      await cache.set(one, values[0], { ttlMs: 60_000, fence: null })
      await cache.set(two, values[1], { ttlMs: 60_000, fence: null })
      await cache.set(other, values[2], { ttlMs: 60_000, fence: null })
      const listed = await cache.list(grant)
      expect(listed.map((stored) => stored.key.id).sort()).toEqual([one.id, two.id].sort())
      const purged = await cache.purge(grant)
      expect(new Map(purged.map((stored) => [stored.key.id, stored.value.toString('hex')]))).toEqual(
        new Map([
          [one.id, values[0].toString('hex')],
          [two.id, values[1].toString('hex')],
        ]),
      )
      expect(purged.every((stored) => stored.key.grant === grant)).toBe(true)
      expect(await cache.get(one)).toBeUndefined()
      expect(await cache.get(two)).toBeUndefined()
      expect(await cache.get(other)).toBeDefined()
    })

    test('takes nothing more for a purged grant, not even from a holder of the lock', async () => {
      const cache = open()
      const key = place()
      const fence = await cache.lock(key, 60_000)
      await cache.purge(key.grant)
      expect(await cache.set(key, bytes(), { ttlMs: 60_000, fence })).toBe('ended')
      expect(await cache.set(place(key.grant), bytes(), { ttlMs: 60_000, fence: null })).toBe('ended')
      expect(await cache.get(key)).toBeUndefined()
    })

    test('tells every replica that a grant was purged', async () => {
      const [one, two] = [open(), open()]
      const heard: string[] = []
      for (const cache of [one, two]) cache.onPurge((grant) => heard.push(grant))
      const grant = randomUUID()
      // A subscription takes a moment to stand; purging again is harmless.
      await expect
        .poll(async () => {
          await one.purge(grant)
          return heard.length
        })
        .toBeGreaterThanOrEqual(2)
      expect(new Set(heard)).toEqual(new Set([grant]))
    })

    test('tells every replica which credential nobody may use any more, and removes it if it is the one kept', async () => {
      const [one, two] = [open(), open()]
      const heard: string[] = []
      for (const cache of [one, two]) cache.onBurn((grant, credential) => heard.push(`${grant} ${credential}`))
      const key = place()
      const [burnt, newer] = [bytes(), bytes()]
      await one.set(key, burnt, { ttlMs: 60_000, fence: null })
      await expect
        .poll(async () => {
          await one.burn(key, burnt, 'credential')
          return heard.length
        })
        .toBeGreaterThanOrEqual(2)
      expect(new Set(heard)).toEqual(new Set([`${key.grant} credential`]))
      expect(await two.get(key)).toBeUndefined()
      await one.set(key, newer, { ttlMs: 60_000, fence: null })
      await two.burn(key, burnt, 'credential')
      expect((await one.get(key))?.equals(newer)).toBe(true)
    })
  })
}
