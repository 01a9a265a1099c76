/**
 * Takes credentials out of a stream of bytes, wherever it is cut. What it overwrites keeps its length, so Content-Length
 * stays true. It holds back no more than an end that could be the beginning of a credential, so events are not delayed.
 */
import type { Searcher } from './searcher.ts'

const MASK_BYTE = 0x2a // '*'
const EMPTY = Buffer.alloc(0)

export class Scrubber {
  readonly #searcher: Searcher
  readonly #leaked: () => void
  /** The end of what was seen, not yet passed on, as it came. */
  #held: Buffer = EMPTY
  /** Leading bytes of `#held` that belong to a credential whose first bytes were overwritten already. */
  #tainted = 0
  #found = 0

  /** @param leaked called once, when the first credential is overwritten. */
  constructor(searcher: Searcher, leaked: () => void = () => {}) {
    this.#searcher = searcher
    this.#leaked = leaked
  }

  /** Credentials overwritten so far. */
  get found(): number {
    return this.#found
  }

  /**
   * What may be passed on, now that `chunk` has come. Overwrites within `chunk`, which the caller gives away.
   * @param isLast nothing follows: nothing is held back.
   */
  push(chunk: Buffer, isLast: boolean): Buffer {
    const bytes = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk])
    const searcher = this.#searcher
    const end = isLast ? bytes.length : searcher.heldFrom(bytes)
    const first = searcher.next(bytes, 0)
    const held = end === bytes.length ? EMPTY : Buffer.from(bytes.subarray(end))
    const taintedUntil = first === -1 && this.#tainted === 0 ? 0 : this.#overwrite(bytes, first, end)
    this.#held = held
    this.#tainted = Math.max(0, taintedUntil - end)
    return end === bytes.length ? bytes : bytes.subarray(0, end)
  }

  /**
   * Overwrite every credential that starts before `end`; later ones are found again with the next chunk. All are found
   * before any is overwritten, because they may overlap.
   * @returns where the last one ends
   */
  #overwrite(bytes: Buffer, first: number, end: number): number {
    const ranges: [number, number][] = [[0, this.#tainted]]
    let covered = this.#tainted
    for (let at = first; at !== -1 && at < end; at = this.#searcher.next(bytes, at + 1)) {
      if (at >= covered && this.#found++ === 0) this.#leaked()
      covered = Math.max(covered, at + this.#searcher.lengthAt(bytes, at))
      ranges.push([at, covered])
    }
    for (const [from, to] of ranges) bytes.fill(MASK_BYTE, from, to)
    return covered
  }
}
