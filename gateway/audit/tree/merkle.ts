/**
 * Merkle trees of RFC 9162 §2.1 over SHA-256: leaves hash with 0x00 in front, nodes with 0x01, so that neither can pass for
 * the other. Pure. A log keeps only the frontier; proofs take the leaf hashes, wherever they are kept.
 */
import { hash } from 'node:crypto'

/** Root of the tree without leaves: SHA-256 of nothing. */
export const EMPTY_ROOT: Buffer = hash('sha256', '', 'buffer')

export function leafHash(entry: Uint8Array): Buffer {
  const prefixed = Buffer.allocUnsafe(entry.length + 1)
  prefixed[0] = 0x00
  prefixed.set(entry, 1)
  return sha256(prefixed)
}

/** Of the entry that is `bytes[start, end)`: the byte in front of it, which nobody may need any more, becomes the prefix, and nothing is copied. */
export function leafHashIn(bytes: Buffer, start: number, end: number): Buffer {
  bytes[start - 1] = 0x00
  return sha256(bytes.subarray(start - 1, end))
}

export function nodeHash(left: Uint8Array, right: Uint8Array): Buffer {
  const joined = Buffer.allocUnsafe(65)
  joined[0] = 0x01
  joined.set(left, 1)
  joined.set(right, 33)
  return sha256(joined)
}

/** By way of a string, because for a buffer Node makes backing memory of its own each time: three times the cost. */
function sha256(bytes: Uint8Array): Buffer {
  return Buffer.from(hash('sha256', bytes, 'latin1'), 'latin1')
}

/** Told the root of every perfect subtree of 256^level leaves when it is complete: level 1, 2, … */
export type OnTile = (level: number, root: Buffer) => void

/** The roots of the perfect subtrees, largest first: all that is needed to append and to name the root. */
export class Frontier {
  #size: number
  readonly #peaks: Buffer[]
  readonly #onTile: OnTile | undefined

  constructor(size = 0, peaks: readonly Buffer[] = [], onTile?: OnTile) {
    if (peaks.length !== onesIn(size))
      throw new RangeError(`a tree of ${size} leaves has ${onesIn(size)} peaks, not ${peaks.length}`)
    this.#size = size
    this.#peaks = [...peaks]
    this.#onTile = onTile
  }

  get size(): number {
    return this.#size
  }

  get peaks(): readonly Buffer[] {
    return this.#peaks
  }

  append(leaf: Buffer): void {
    let node = leaf
    let height = 0
    // Every trailing one-bit of the size is a perfect subtree that the new leaf completes a larger one with.
    for (let n = this.#size; n % 2 === 1; n = (n - 1) / 2) {
      node = nodeHash(this.#peaks.pop() ?? EMPTY_ROOT, node)
      height += 1
      if (height % 8 === 0) this.#onTile?.(height / 8, node)
    }
    this.#peaks.push(node)
    this.#size += 1
  }

  root(): Buffer {
    if (this.#size === 0) return EMPTY_ROOT
    return this.#peaks.reduceRight((right, left) => nodeHash(left, right))
  }

  copy(): Frontier {
    return new Frontier(this.#size, this.#peaks)
  }
}

/** RFC 9162 §2.1.1. */
export function treeRoot(leaves: readonly Buffer[]): Buffer {
  const frontier = new Frontier()
  for (const leaf of leaves) frontier.append(leaf)
  return frontier.root()
}

/** RFC 9162 §2.1.3.1: the siblings on the way from leaf `index` to the root. */
export function inclusionProof(leaves: readonly Buffer[], index: number): Buffer[] {
  if (!(index >= 0 && index < leaves.length)) throw new RangeError(`no leaf ${index} in a tree of ${leaves.length}`)
  if (leaves.length === 1) return []
  const k = largestPowerBelow(leaves.length)
  const left = leaves.slice(0, k)
  const right = leaves.slice(k)
  return index < k
    ? [...inclusionProof(left, index), treeRoot(right)]
    : [...inclusionProof(right, index - k), treeRoot(left)]
}

/** RFC 9162 §2.1.4.1: what shows that the tree of the first `size` leaves is a prefix of this one. */
export function consistencyProof(leaves: readonly Buffer[], size: number): Buffer[] {
  if (!(size >= 0 && size <= leaves.length)) throw new RangeError(`no prefix of ${size} in a tree of ${leaves.length}`)
  return size === 0 ? [] : subproof(leaves, size, true)
}

function subproof(leaves: readonly Buffer[], size: number, isWhole: boolean): Buffer[] {
  if (size === leaves.length) return isWhole ? [] : [treeRoot(leaves)]
  const k = largestPowerBelow(leaves.length)
  const left = leaves.slice(0, k)
  const right = leaves.slice(k)
  return size <= k
    ? [...subproof(left, size, isWhole), treeRoot(right)]
    : [...subproof(right, size - k, false), treeRoot(left)]
}

/** RFC 9162 §2.1.3.2. */
export function verifyInclusion(
  leaf: Buffer,
  at: { index: number; size: number },
  proof: readonly Buffer[],
  root: Buffer,
): boolean {
  if (!(at.index >= 0 && at.index < at.size)) return false
  const way = new Ascent(at.index, at.size - 1)
  let node = leaf
  for (const sibling of proof) {
    if (way.isDone) return false
    node = way.isRight ? nodeHash(sibling, node) : nodeHash(node, sibling)
    way.climb()
  }
  return way.isDone && node.equals(root)
}

/** RFC 9162 §2.1.4.2; a prefix of size 0 is a prefix of everything. */
export function verifyConsistency(
  first: { size: number; root: Buffer },
  second: { size: number; root: Buffer },
  proof: readonly Buffer[],
): boolean {
  if (first.size > second.size) return false
  if (first.size === second.size) return proof.length === 0 && first.root.equals(second.root)
  if (first.size === 0) return proof.length === 0 && first.root.equals(EMPTY_ROOT)
  const path = onesIn(first.size) === 1 ? [first.root, ...proof] : [...proof]
  const start = path.shift()
  if (start === undefined) return false
  const way = new Ascent(first.size - 1, second.size - 1)
  way.skipRights()
  let [old, all] = [start, start]
  for (const sibling of path) {
    if (way.isDone) return false
    if (way.isRight) old = nodeHash(sibling, old)
    all = way.isRight ? nodeHash(sibling, all) : nodeHash(all, sibling)
    way.climb()
  }
  return way.isDone && old.equals(first.root) && all.equals(second.root)
}

/** The walk of §2.1.3.2 and §2.1.4.2: `fn` and `sn` of the RFC, without 32-bit shifts. */
class Ascent {
  #node: number
  #last: number

  constructor(node: number, last: number) {
    this.#node = node
    this.#last = last
  }

  get isDone(): boolean {
    return this.#last === 0
  }

  /** Whether the sibling comes from the left. */
  get isRight(): boolean {
    return this.#node % 2 === 1 || this.#node === this.#last
  }

  climb(): void {
    if (this.isRight) while (this.#node % 2 === 0 && this.#node !== 0) this.#up()
    this.#up()
  }

  skipRights(): void {
    while (this.#node % 2 === 1) this.#up()
  }

  #up(): void {
    this.#node = Math.floor(this.#node / 2)
    this.#last = Math.floor(this.#last / 2)
  }
}

/** The largest power of two below `n`; `n` is at least 2. */
export function largestPowerBelow(n: number): number {
  let k = 1
  while (k * 2 < n) k *= 2
  return k
}

function onesIn(size: number): number {
  let ones = 0
  for (let n = size; n > 0; n = Math.floor(n / 2)) ones += n % 2
  return ones
}
