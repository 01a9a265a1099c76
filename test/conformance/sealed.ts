/** What every store of sealed values must do. Run by `test/provider/sealed.test.ts` on SQLite, Redis and PostgreSQL. */
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { SealedPlace, SealedRows } from '../../gateway/provider/sealed/sealed.ts'

export interface SealedUnderTest {
  /** A store on the same rows as every other one from this variant: a second replica. */
  open(): Promise<SealedRows>
  /** Let a claim of this many milliseconds lapse. */
  pass(ms: number): Promise<void>
  close(): Promise<void>
}

export function describeSealed(name: string, start: () => Promise<SealedUnderTest>): void {
  describe(`sealed rows: ${name}`, () => {
    let variant: SealedUnderTest
    let rows: SealedRows
    let replica: SealedRows
    let n = 0
    const place = (): SealedPlace => ({ tenant: 'acme', name: `secret-${n++}` })
    const value = (text: string) => Buffer.from(text, 'utf8')

    beforeAll(async () => {
      variant = await start()
      rows = await variant.open()
      replica = await variant.open()
    })
    afterAll(async () => {
      await rows?.close()
      await replica?.close()
      await variant?.close()
    })

    it('gives back any bytes, to every replica', async () => {
      await fc.assert(
        fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 200 }), async (bytes) => {
          const at = place()
          const version = await rows.write(at, Buffer.from(bytes), 0)
          expect(await replica.read(at)).toEqual({ value: Buffer.from(bytes), version })
        }),
        { numRuns: 30 },
      )
    })

    it('keeps tenants and names apart, whatever they are', async () => {
      const odd = ['a', 'a b', '","', 'ü/☃', "'; --"]
      const places = odd.flatMap((tenant) => odd.map((one) => ({ tenant, name: one })))
      for (const at of places) await rows.write(at, value(JSON.stringify(at)), 0)
      for (const at of places) expect(String((await replica.read(at))?.value)).toBe(JSON.stringify(at))
      expect(await replica.places()).toEqual(expect.arrayContaining(places))
      for (const at of places) await rows.write(at, null, (await rows.read(at))?.version ?? 0)
      expect((await replica.places()).filter(({ tenant }) => odd.includes(tenant))).toEqual([])
    })

    it('changes a value only for who knows its version', async () => {
      const at = place()
      const first = (await rows.write(at, value('one'), 0)) as number
      expect(await replica.write(at, value('other'), 0)).toBeUndefined()
      const second = (await replica.write(at, value('two'), first)) as number
      expect(second).toBeGreaterThan(first)
      expect(await rows.write(at, value('late'), first)).toBeUndefined()
      expect(await rows.write(at, null, first)).toBeUndefined()
      expect(String((await rows.read(at))?.value)).toBe('two')
      expect(await rows.write(at, null, second)).toBe(second)
      expect(await replica.read(at)).toBeUndefined()
      expect(await replica.write(at, null, second)).toBeUndefined()
      expect(await replica.write(at, value('new'), second)).toBeUndefined()
    })

    it('takes one of fifty simultaneous changes', async () => {
      const at = place()
      const version = (await rows.write(at, value('start'), 0)) as number
      const tried = Array.from({ length: 50 }, (_, i) => (i % 2 ? rows : replica).write(at, value(`${i}`), version))
      expect((await Promise.all(tried)).filter((one) => one !== undefined)).toHaveLength(1)
    })

    it('begins above every version that a removed row had', async () => {
      const at = place()
      let version = (await rows.write(at, value('a'), 0)) as number
      for (let i = 0; i < 3; i++) version = (await rows.write(at, value('a'), version)) as number
      await rows.write(at, null, version)
      await variant.pass(20)
      expect(await rows.write(at, value('b'), 0)).toBeGreaterThan(version)
    })

    it('gives a row to one at a time, and shuts out whoever read it before', async () => {
      const at = place()
      const before = (await rows.write(at, value('a'), 0)) as number
      const claims = await Promise.all(Array.from({ length: 20 }, (_, i) => (i % 2 ? rows : replica).claim(at, 60_000)))
      const taken = claims.filter((one) => one !== 'taken')
      expect(taken).toEqual([{ value: value('a'), version: expect.any(Number) }])
      expect(await replica.write(at, value('late'), before)).toBeUndefined()
      const version = (taken[0] as { version: number }).version
      expect(await rows.write(at, value('b'), version)).toBeGreaterThan(version)
      expect(await replica.claim(at, 60_000)).toMatchObject({ value: value('b') }) // written, so given up
    })

    it('gives it to the next when the holder has died, whose late write changes nothing', async () => {
      const at = place()
      await rows.write(at, value('a'), 0)
      const dead = await rows.claim(at, 30)
      expect(await replica.claim(at, 30)).toBe('taken')
      await variant.pass(50)
      const next = await replica.claim(at, 60_000)
      expect(next).toMatchObject({ value: value('a') })
      expect(await rows.write(at, value('late'), (dead as { version: number }).version)).toBeUndefined()
    })

    it('has nothing to claim where nothing is', async () => {
      expect(await rows.claim(place(), 1000)).toBeUndefined()
    })
  })
}
