/**
 * Merkle proofs from the hashes beside the log: `leaves`, and above them one file for every eighth level. A perfect subtree of
 * 256^L leaves is one hash in the file of level L, so a proof in a log of millions costs a few reads. What is read is a copy for speed:
 * a proof made from a damaged one is wrong and no checker takes it.
 */
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import { readAt } from '../files/seekable.ts'
import { files } from '../lines.ts'
import { EMPTY_ROOT, largestPowerBelow, nodeHash } from './merkle.ts'

/** Hashes in a full tile, and leaves under one hash of level 1. */
export const TILE_WIDTH = 256
export const HASH_BYTES = 32
/** C2SP tlog-tiles has 64 levels of trees, 8 in a tile: 256^7 leaves are more than numbers count here. */
export const TILE_LEVELS = 7

export interface Hashes {
  /** Leaf hashes that are stored. The last few may not be covered by a checkpoint. */
  readonly size: number
  /** @throws {RangeError} when the index or the size is not in the tree; the same below. */
  leaf(index: number): Promise<Buffer>
  /** Root over the first `size` leaves. Default all. */
  root(size?: number): Promise<Buffer>
  /** Roots of the perfect subtrees of the first `size` leaves, largest first: what a `Frontier` is made of. */
  peaks(size: number): Promise<Buffer[]>
  /** RFC 9162 §2.1.3: siblings on the way from leaf `index` to the root of the first `size` leaves. */
  inclusionProof(index: number, size?: number): Promise<Buffer[]>
  /** RFC 9162 §2.1.4: shows that the first `size1` leaves are a prefix of the first `size2`. */
  consistencyProof(size1: number, size2?: number): Promise<Buffer[]>
  /** Hashes `n * 256` to `n * 256 + width` of a level: 0 leaves, 1 subtrees of 256 leaves, and so on. */
  tile(level: number, n: number, width: number): Promise<Buffer>
  close(): Promise<void>
}

/** File of the hashes of perfect subtrees of 256^level leaves. */
export function levelFile(level: number): string {
  return level === 0 ? files.leaves : `tiles-${level}`
}

/** @throws {Error} ENOENT when there are no hashes in `dir`. */
export async function openHashes(dir: string): Promise<Hashes> {
  const leaves = await open(join(dir, files.leaves), 'r')
  const levels = [leaves]
  for (let level = 1; level <= TILE_LEVELS; level++) {
    const file = await open(join(dir, levelFile(level)), 'r').catch((cause: NodeJS.ErrnoException) => {
      if (cause.code === 'ENOENT') return undefined
      throw cause
    })
    // Lost: the level below has what it is made from.
    if (!file) break
    levels.push(file)
  }
  return new StoredHashes(levels, Math.floor((await leaves.stat()).size / HASH_BYTES))
}

/** About 8 MB. */
const MAX_TILES = 1024

class StoredHashes implements Hashes {
  readonly size: number
  readonly #levels: readonly FileHandle[]
  /** `level/n` → full tile. */
  readonly #tiles = new Map<string, Buffer>()

  constructor(levels: readonly FileHandle[], size: number) {
    this.#levels = levels
    this.size = size
  }

  async leaf(index: number): Promise<Buffer> {
    this.#mustHold(index, 0, this.size - 1)
    return this.#perfect(0, index)
  }

  root(size = this.size): Promise<Buffer> {
    this.#mustHold(size, 0, this.size)
    return size === 0 ? Promise.resolve(EMPTY_ROOT) : this.#range(0, size)
  }

  async peaks(size: number): Promise<Buffer[]> {
    this.#mustHold(size, 0, this.size)
    const peaks: Buffer[] = []
    for (let from = 0; from < size; ) {
      const count = 2 ** Math.floor(Math.log2(size - from))
      peaks.push(await this.#perfect(Math.log2(count), from / count))
      from += count
    }
    return peaks
  }

  inclusionProof(index: number, size = this.size): Promise<Buffer[]> {
    this.#mustHold(size, 1, this.size)
    this.#mustHold(index, 0, size - 1)
    return this.#path(index, 0, size)
  }

  consistencyProof(size1: number, size2 = this.size): Promise<Buffer[]> {
    this.#mustHold(size2, 0, this.size)
    this.#mustHold(size1, 0, size2)
    return size1 === 0 ? Promise.resolve([]) : this.#subproof(size1, { from: 0, to: size2, isWhole: true })
  }

  async tile(level: number, n: number, width: number): Promise<Buffer> {
    this.#mustHold(level, 0, TILE_LEVELS)
    this.#mustHold(width, 1, TILE_WIDTH)
    this.#mustHold(n * TILE_WIDTH + width, 1, this.#held(level))
    return this.#tile(level, n, width)
  }

  async close(): Promise<void> {
    for (const file of this.#levels) await file.close()
  }

  async #path(index: number, from: number, to: number): Promise<Buffer[]> {
    if (to - from === 1) return []
    const middle = from + largestPowerBelow(to - from)
    return index < middle
      ? [...(await this.#path(index, from, middle)), await this.#range(middle, to)]
      : [...(await this.#path(index, middle, to)), await this.#range(from, middle)]
  }

  async #subproof(size: number, { from, to, isWhole }: Subtree): Promise<Buffer[]> {
    if (size === to) return isWhole ? [] : [await this.#range(from, to)]
    const middle = from + largestPowerBelow(to - from)
    return size <= middle
      ? [...(await this.#subproof(size, { from, to: middle, isWhole })), await this.#range(middle, to)]
      : [...(await this.#subproof(size, { from: middle, to, isWhole: false })), await this.#range(from, middle)]
  }

  /** Root over leaves `from` to `to`, where `from` is a multiple of the power of two that is not below their number. */
  async #range(from: number, to: number): Promise<Buffer> {
    const count = to - from
    const height = Math.log2(count)
    if (Number.isInteger(height)) return this.#perfect(height, from / count)
    const middle = from + largestPowerBelow(count)
    return nodeHash(await this.#range(from, middle), await this.#range(middle, to))
  }

  /** Root of the `n`th perfect subtree of 2^height leaves. */
  async #perfect(height: number, n: number): Promise<Buffer> {
    const level = Math.floor(height / 8)
    const count = 2 ** (height % 8)
    const first = n * count
    const tile = Math.floor(first / TILE_WIDTH)
    const width = Math.min(TILE_WIDTH, this.#held(level) - tile * TILE_WIDTH)
    const at = (first - tile * TILE_WIDTH) * HASH_BYTES
    return fold((await this.#tile(level, tile, width)).subarray(at, at + count * HASH_BYTES))
  }

  async #tile(level: number, n: number, width: number): Promise<Buffer> {
    const name = `${level}/${n}`
    const known = this.#tiles.get(name)
    if (known) return known.subarray(0, width * HASH_BYTES)
    const tile = await this.#read(level, n, width)
    if (this.#tiles.size >= MAX_TILES) this.#tiles.clear()
    if (width === TILE_WIDTH) this.#tiles.set(name, tile)
    return tile
  }

  async #read(level: number, n: number, width: number): Promise<Buffer> {
    const file = this.#levels[level]
    const length = width * HASH_BYTES
    const stored = file ? await readAt(file, n * TILE_WIDTH * HASH_BYTES, length) : Buffer.alloc(0)
    if (stored.length === length) return stored
    if (level === 0) throw new RangeError(`${files.leaves} ends before leaf ${n * TILE_WIDTH + width}`)
    // Not written yet, or lost: each hash is the root of a full tile of the level below.
    const made: Buffer[] = [stored.subarray(0, stored.length - (stored.length % HASH_BYTES))]
    for (let i = Math.floor(stored.length / HASH_BYTES); i < width; i++)
      made.push(fold(await this.#tile(level - 1, n * TILE_WIDTH + i, TILE_WIDTH)))
    return Buffer.concat(made)
  }

  /** Hashes that a level has over the leaves that are there. */
  #held(level: number): number {
    return Math.floor(this.size / TILE_WIDTH ** level)
  }

  #mustHold(value: number, least: number, most: number): void {
    if (!Number.isSafeInteger(value) || value < least || value > most)
      throw new RangeError(`${value} is not in a tree of ${this.size} leaves`)
  }
}

interface Subtree {
  readonly from: number
  readonly to: number
  readonly isWhole: boolean
}

/** Root of a perfect subtree from its hashes, end to end; their number is a power of two. */
function fold(hashes: Buffer): Buffer {
  if (hashes.length === HASH_BYTES) return Buffer.from(hashes)
  const half = hashes.length / 2
  return nodeHash(fold(hashes.subarray(0, half)), fold(hashes.subarray(half)))
}
