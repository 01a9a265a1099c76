/** Proofs from the hashes that are stored beside a log are the same that the whole tree gives, for any size and any entry. */
import { hash } from 'node:crypto'
import { rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { HashFiles } from '../../gateway/audit/tree/hash-files.ts'
import * as merkle from '../../gateway/audit/tree/merkle.ts'
import { type Hashes, openHashes } from '../../gateway/audit/tree/proofs.ts'
import { tileAt } from '../../gateway/audit/tree/tiles.ts'
import vectors from '../vectors/tlog-go.json' with { type: 'json' }
import { temporaryDir } from './log.fixture.ts'

const SIZE = 3000
const leaves = Array.from({ length: SIZE }, (_, i) => hash('sha256', `leaf ${i}`, 'buffer'))
const roots: Buffer[] = []
let hashes: Hashes

beforeAll(async () => {
  const dir = await temporaryDir()
  await writeFile(join(dir, 'leaves'), Buffer.concat(leaves))
  hashes = await openHashes(dir)
  const frontier = new merkle.Frontier()
  for (const leaf of leaves) {
    roots.push(frontier.root())
    frontier.append(leaf)
  }
  roots.push(frontier.root())
})

afterAll(() => hashes.close())

const sizes = fc.oneof(
  fc.integer({ min: 1, max: SIZE }),
  fc.constantFrom(1, 2, 255, 256, 257, 511, 512, 513, 1024, 2048, 2049, SIZE),
)

describe('stored hashes', () => {
  it('name the root of every size', async () => {
    for (let size = 0; size <= SIZE; size += 97)
      expect((await hashes.root(size)).equals(roots[size] as Buffer)).toBe(true)
    expect(hashes.size).toBe(SIZE)
  })

  it('prove every entry against every size, as the whole tree does', () =>
    fc.assert(
      fc.asyncProperty(sizes, fc.nat(), async (size, any) => {
        const index = any % size
        const proof = await hashes.inclusionProof(index, size)
        expect(proof).toEqual(merkle.inclusionProof(leaves.slice(0, size), index))
        const leaf = await hashes.leaf(index)
        expect(merkle.verifyInclusion(leaf, { index, size }, proof, roots[size] as Buffer)).toBe(true)
      }),
      { numRuns: 30 },
    ))

  it('prove that every size is a prefix of every later one', () =>
    fc.assert(
      fc.asyncProperty(sizes, sizes, async (a, b) => {
        const [first, second] = [Math.min(a, b), Math.max(a, b)]
        const proof = await hashes.consistencyProof(first, second)
        expect(proof).toEqual(merkle.consistencyProof(leaves.slice(0, second), first))
        const [old, all] = [
          { size: first, root: roots[first] as Buffer },
          { size: second, root: roots[second] as Buffer },
        ]
        expect(merkle.verifyConsistency(old, all, proof)).toBe(true)
      }),
      { numRuns: 30 },
    ))

  it('refuse what is not in the tree', async () => {
    expect(() => hashes.inclusionProof(SIZE)).toThrow(RangeError)
    expect(() => hashes.inclusionProof(-1)).toThrow(RangeError)
    expect(() => hashes.consistencyProof(2, 1)).toThrow(RangeError)
    expect(() => hashes.root(SIZE + 1)).toThrow(RangeError)
    await expect(hashes.leaf(SIZE)).rejects.toThrow(RangeError)
    await expect(hashes.tile(1, 0, 12)).rejects.toThrow(RangeError)
    expect((await hashes.tile(1, 0, 11)).length).toBe(11 * 32)
  })
})

describe('the tree of the Go reference (golang.org/x/mod/sumdb/tlog)', () => {
  it('has the same roots, tiles and proofs', async () => {
    const { size, roots, tiles, inclusion, consistency } = vectors
    const dir = await temporaryDir()
    const entries = Array.from({ length: size }, (_, i) => merkle.leafHash(Buffer.from(`entry ${i}`)))
    await writeFile(join(dir, 'leaves'), Buffer.concat(entries))
    await writeFile(join(dir, 'checkpoint'), `log\n${size}\n`)
    // Once from the leaves alone, and once from the levels that a log keeps above them.
    for (let level = 0; level < 2; level++) {
      const stored = await openHashes(dir)
      const text = (proof: Buffer[]) => proof.map((one) => one.toString('base64'))
      for (const { size: at, root } of roots) expect(text([await stored.root(at)])).toEqual([root])
      for (const one of inclusion) expect(text(await stored.inclusionProof(one.index, one.size))).toEqual(one.proof)
      for (const one of consistency)
        expect(text(await stored.consistencyProof(one.size1, one.size2))).toEqual(one.proof)
      await stored.close()
      for (const { path, bytes, sha256 } of tiles) {
        const tile = (await tileAt(dir, path)) as Buffer
        expect([path, tile.length, hash('sha256', tile, 'base64')]).toEqual([path, bytes, sha256])
      }
      const files = await HashFiles.open(dir)
      await files.complete(size)
      await files.close()
    }
    expect((await stat(join(dir, 'tiles-2'))).size).toBe(32)
    await rm(dir, { recursive: true })
  })
})
