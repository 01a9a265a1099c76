/** Readers find entries by number, and go on from where they were, whatever files the log has been put into meanwhile. */
import { describe, expect, it } from 'vitest'
import { coveredBy, entriesAt, entryAt, firstKept, readEntries, START } from '../../gateway/audit/files/follow.ts'
import { linesOf, note, openTestLog, temporaryDir } from './log.fixture.ts'

describe('a log in one file', () => {
  it('gives every entry by its number, and the stretch from any of them', async () => {
    const dir = await temporaryDir()
    const log = await openTestLog(dir)
    await Promise.all(Array.from({ length: 2000 }, (_, n) => log.append(note({ n, filler: 'x'.repeat(n % 900) }))))
    await log.close()
    const lines = await linesOf(dir)
    const found = await entriesAt(dir, [5, 1999, 0, 5, lines.length, 1000])
    expect(found.map(String)).toEqual([lines[5], lines[1999], lines[0], lines[5], 'undefined', lines[1000]].map(String))
    expect(String(await entryAt(dir, 77))).toBe(lines[77])
    expect(await coveredBy(dir)).toBe(lines.length)
    expect(await firstKept(dir)).toBe(0)
    for (const place of [START, { seq: 1500, segment: 0, offset: 0 }]) {
      const read: string[] = []
      let next = place
      for await (const stretch of readEntries(dir, place)) {
        expect(stretch.from).toBe(next.seq)
        read.push(...stretch.entries.map(String))
        next = stretch.next
      }
      expect(read).toEqual(lines.slice(place.seq))
      for await (const _ of readEntries(dir, next)) throw new Error('nothing has come since')
    }
  })
})
