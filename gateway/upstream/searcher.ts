/**
 * Finds many byte strings at once (Wu and Manber, 1994): most positions are skipped by a table lookup, so the cost of a
 * search hardly depends on how many spellings of a credential are looked for. The only caller of `Secret.needles()`.
 */
import type { Secret } from '../protocol/secret.ts'

const BLOCK = 3
const TABLE = 4096
/** Longest window; a longer one gains nothing and would not fit the table's bytes. */
const MAX_WINDOW = 128
const MASK_BYTE = 0x2a // '*'

export class Searcher {
  readonly #needles: readonly Buffer[]
  readonly #window: number
  readonly #longest: number
  /** Hash of the last three bytes of a window → how far the window may move; 0 where a needle could lie. */
  readonly #shift: Uint8Array
  /** Hash → needles whose window ends so. */
  readonly #buckets: ReadonlyMap<number, readonly Buffer[]>
  readonly #firstBytes = new Uint8Array(256)
  /** Hash of the first two bytes of a needle → 1. */
  readonly #firstPairs = new Uint8Array(TABLE)

  /** @param needles at least one; each at least three bytes, longest match wins. */
  constructor(needles: readonly Buffer[]) {
    this.#needles = needles.toSorted((a, b) => b.length - a.length)
    this.#longest = this.#needles[0]?.length ?? 0
    this.#window = Math.min(MAX_WINDOW, ...needles.map((needle) => needle.length))
    this.#shift = new Uint8Array(TABLE).fill(this.#window - BLOCK + 1)
    const buckets = new Map<number, Buffer[]>()
    for (const needle of this.#needles) {
      this.#firstBytes[needle[0] as number] = 1
      this.#firstPairs[pair(needle, 0)] = 1
      for (let end = BLOCK - 1; end < this.#window; end += 1) {
        const slot = hash(needle, end)
        this.#shift[slot] = Math.min(this.#shift[slot] as number, this.#window - 1 - end)
      }
      const slot = hash(needle, this.#window - 1)
      buckets.set(slot, [...(buckets.get(slot) ?? []), needle])
    }
    this.#buckets = buckets
  }

  /** Where the next needle starts at or after `from`, or -1. */
  next(bytes: Uint8Array, from: number): number {
    const window = this.#window
    const shift = this.#shift
    let end = from + window - 1
    while (end < bytes.length) {
      const slot = hash(bytes, end)
      const skip = shift[slot] as number
      if (skip === 0) {
        const start = end - window + 1
        if (this.#lengthIn(this.#buckets.get(slot), bytes, start) > 0) return start
        end += 1
      } else {
        end += skip
      }
    }
    return -1
  }

  /** Length of the longest needle that starts at `start`, which `next` has found. */
  lengthAt(bytes: Uint8Array, start: number): number {
    return this.#lengthIn(this.#needles, bytes, start)
  }

  /** Where the longest end of `bytes` begins that could be the beginning of a needle; `bytes.length` if there is none. */
  heldFrom(bytes: Uint8Array): number {
    const pairs = this.#firstPairs
    const last = bytes.length - 1
    for (let start = Math.max(0, bytes.length - this.#longest + 1); start < last; start += 1) {
      if (pairs[pair(bytes, start)] === 1 && this.#couldStart(bytes, start)) return start
    }
    if (last >= 0 && this.#firstBytes[bytes[last] as number] === 1) return last
    return bytes.length
  }

  /** Overwrite every needle in `bytes`. @returns how many were found; overlapping ones count as one. */
  mask(bytes: Buffer): number {
    let found = 0
    let covered = 0
    const ranges: [number, number][] = []
    for (let at = this.next(bytes, 0); at !== -1; at = this.next(bytes, at + 1)) {
      const end = at + this.lengthAt(bytes, at)
      if (at >= covered) found += 1
      covered = Math.max(covered, end)
      ranges.push([at, end])
    }
    for (const [start, end] of ranges) bytes.fill(MASK_BYTE, start, end)
    return found
  }

  #lengthIn(needles: readonly Buffer[] | undefined, bytes: Uint8Array, start: number): number {
    if (needles === undefined) return 0
    for (const needle of needles) {
      if (start + needle.length <= bytes.length && matches(needle, bytes, start, needle.length)) return needle.length
    }
    return 0
  }

  #couldStart(bytes: Uint8Array, start: number): boolean {
    const length = bytes.length - start
    return this.#needles.some((needle) => needle.length > length && matches(needle, bytes, start, length))
  }
}

/** One step per secret, so that equal lists of secrets find the searcher made for them; gone when the secrets are. */
interface Node {
  readonly searcher: Searcher | null
  readonly next: WeakMap<Secret, Node>
}

/** Keeps searchers as long as the secrets they are for. */
export class Searchers {
  readonly #root: Node = { searcher: null, next: new WeakMap() }

  /** The searcher for these values; null when there is nothing to search for. */
  for(secrets: readonly Secret[]): Searcher | null {
    let node = this.#root
    for (let i = 0; i < secrets.length; i += 1) {
      const secret = secrets[i] as Secret
      const known = node.next.get(secret)
      const following = known ?? { searcher: searcherOf(secrets.slice(0, i + 1)), next: new WeakMap<Secret, Node>() }
      if (known === undefined) node.next.set(secret, following)
      node = following
    }
    return node.searcher
  }
}

/** For once; null when there is nothing to search for. */
export function searcherOf(secrets: readonly Secret[]): Searcher | null {
  const needles = secrets.flatMap((secret) => secret.needles())
  return needles.length === 0 ? null : new Searcher(needles)
}

function hash(bytes: Uint8Array, end: number): number {
  return (((bytes[end - 2] as number) << 8) ^ ((bytes[end - 1] as number) << 4) ^ (bytes[end] as number)) & (TABLE - 1)
}

function pair(bytes: Uint8Array, start: number): number {
  return ((bytes[start] as number) << 4) ^ (bytes[start + 1] as number)
}

function matches(needle: Uint8Array, bytes: Uint8Array, start: number, length: number): boolean {
  for (let i = 0; i < length; i += 1) {
    if (needle[i] !== bytes[start + i]) return false
  }
  return true
}
