/** What a log has to say of itself before it goes on: that its clock went back, that its disk failed, or that it took its time. */
import { type Draft, draftFrom } from '../canonical.ts'
import { nameOf } from './cause.ts'

/** Beyond this a clock that goes back is put on record; `verify` allows as much without. */
export const CLOCK_SKEW_MS = 30_000

/**
 * A write that takes longer is put on record. What is in it bears the time at which it was given its place, and takes effect when
 * it is stored: whoever reads that a grant ended has to know how long that took.
 */
const STALL_MS = 1000

interface Outage {
  readonly cause: NodeJS.ErrnoException
  readonly sinceMs: number
  refused: number
}

export class Notices {
  readonly #origin: string
  #outage: Outage | undefined
  /** Calls refused because the disk took too long. */
  #turnedAway = 0
  #stall: { readonly from_ms: number; readonly ms: number; readonly refused: number } | undefined

  /** @param origin name of the log. */
  constructor(origin: string) {
    this.#origin = origin
  }

  /** Why nothing can be written at present. */
  get failure(): NodeJS.ErrnoException | undefined {
    return this.#outage?.cause
  }

  failed(cause: NodeJS.ErrnoException, nowMs: number): void {
    this.#outage ??= { cause, sinceMs: nowMs, refused: 0 }
  }

  refused(count: number): void {
    if (this.#outage) this.#outage.refused += count
    else this.#turnedAway += count
  }

  /** What stands in front of the entries of `nowMs`; `latestMs` is the latest time in those before. */
  before(nowMs: number, latestMs: number): Draft[] {
    const drafts: Draft[] = []
    const say = (kind: string, facts: Record<string, number | string>) =>
      drafts.push(draftFrom({ kind, log: this.#origin, facts }))
    if (nowMs < latestMs - CLOCK_SKEW_MS) say('log.clock_set_back', { from_ms: latestMs, to_ms: nowMs })
    if (this.#stall) say('log.stalled', this.#stall)
    if (this.#outage) {
      const { cause, sinceMs, refused } = this.#outage
      say('log.recovered', { reason: 'write_failed', error: nameOf(cause), since_ms: sinceMs, refused })
    }
    return drafts
  }

  /** The entries of `nowMs`, and what stood in front of them, are stored; that took `tookMs`. */
  stored(nowMs: number, tookMs: number): void {
    this.#outage = undefined
    this.#stall = tookMs > STALL_MS ? { from_ms: nowMs, ms: Math.ceil(tookMs), refused: this.#turnedAway } : undefined
    this.#turnedAway = 0
  }
}
