/** Whoever knows C2SP tlog-tiles can read the log: paths, tiles and bundles are those of the specification. */
import fc from 'fast-check'
import { beforeAll, describe, expect, it } from 'vitest'
import { leafHash } from '../../gateway/audit/tree/merkle.ts'
import { parseTilePath, tileAt, tilePath } from '../../gateway/audit/tree/tiles.ts'
import { linesOf, note, openTestLog, temporaryDir } from './log.fixture.ts'

describe('paths', () => {
  it('are those of the specification', () => {
    expect(parseTilePath('tile/0/x001/x234/067')).toEqual({ level: 0, n: 1234067, width: 256 })
    expect(parseTilePath('tile/63/000.p/1')).toEqual({ level: 63, n: 0, width: 1 })
    expect(parseTilePath('tile/entries/x273/063.p/7')).toEqual({ level: 'entries', n: 273063, width: 7 })
    fc.assert(
      fc.property(
        fc.oneof(fc.constant('entries' as const), fc.integer({ min: 0, max: 63 })),
        fc.nat({ max: 2 ** 40 }),
        fc.integer({ min: 1, max: 256 }),
        (level, n, width) => {
          expect(parseTilePath(tilePath({ level, n, width }))).toEqual({ level, n, width })
        },
      ),
    )
  })

  it.each([
    'tile/64/000',
    'tile/00/000',
    'tile/-1/000',
    'tile/0/0',
    'tile/0/x000/001',
    'tile/0/001/002',
    'tile/0/000.p/0',
    'tile/0/000.p/256',
    'tile/0/000.p/01',
    'tile/0/000/',
    '/tile/0/000',
    'tile/data/000',
    'tile/0/../../log.key',
    'tile/0/x999/x999/x999/x999/x999/x999/999',
  ])('refuse %s', (path) => expect(parseTilePath(path)).toBeUndefined())
})

describe('a log of 603 entries', () => {
  let dir: string
  let lines: string[]

  beforeAll(async () => {
    dir = await temporaryDir()
    const log = await openTestLog(dir)
    await Promise.all(Array.from({ length: 601 }, (_, n) => log.append(note({ n }))))
    await log.close()
    lines = await linesOf(dir)
  })

  it('has tiles of hashes, full and partial, up to its checkpoint and no further', async () => {
    const leaves = Buffer.concat(lines.map((line) => leafHash(Buffer.from(line))))
    expect(await tileAt(dir, 'tile/0/000')).toEqual(leaves.subarray(0, 8192))
    expect(await tileAt(dir, 'tile/0/002.p/91')).toEqual(leaves.subarray(512 * 32))
    expect(await tileAt(dir, 'tile/0/001.p/3')).toEqual(leaves.subarray(256 * 32, 259 * 32))
    expect((await tileAt(dir, 'tile/1/000.p/2'))?.length).toBe(64)
    for (const path of ['tile/0/002', 'tile/0/002.p/92', 'tile/0/003.p/1', 'tile/1/000.p/3', 'tile/2/000.p/1'])
      expect(await tileAt(dir, path)).toBeUndefined()
  })

  it('has bundles of entries with their lengths in front', async () => {
    for (const [path, from, to] of [
      ['tile/entries/001', 256, 512],
      ['tile/entries/002.p/91', 512, 603],
    ] as const) {
      const read: string[] = []
      const bytes = (await tileAt(dir, path)) as Buffer
      for (let at = 0; at < bytes.length; at += 2 + bytes.readUInt16BE(at))
        read.push(bytes.toString('utf8', at + 2, at + 2 + bytes.readUInt16BE(at)))
      expect(read).toEqual(lines.slice(from, to))
    }
    expect(await tileAt(dir, 'tile/entries/002.p/92')).toBeUndefined()
  })
})
