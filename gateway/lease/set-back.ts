/**
 * Whether a time that was written down can be compared with the clock of today. A clock that was set back makes everything from before
 * look younger than it is, so that a credential would outlive its issuer's word: nothing that is dated before such a moment is believed.
 */
import type { Clock } from '../protocol/clock.ts'

/** Milliseconds by which the clocks of two replicas may differ; less than what `lifetime.ts` gives away. */
const CLOCK_SKEW_MS = 500

export class SetBacks {
  readonly #clock: Clock
  /** The latest time that the clock has shown, and when that was by the one that never goes back. Written only by `look`. */
  #latest: { readonly wallMs: number; readonly atMs: number }
  /** What the clock would show now, had it never been set back. The same. */
  #doubtfulUntilMs = Number.NEGATIVE_INFINITY
  #count = 0

  constructor(clock: Clock) {
    this.#clock = clock
    this.#latest = { wallMs: clock.nowMs(), atMs: clock.elapsedMs() }
  }

  /** To be called often: what was set forward and back between two looks is not noticed. */
  look(): void {
    const now = { wallMs: this.#clock.nowMs(), atMs: this.#clock.elapsedMs() }
    const { wallMs, atMs } = this.#latest
    const expectedMs = wallMs + (now.atMs - atMs)
    const isSetBack = now.wallMs < expectedMs - CLOCK_SKEW_MS
    if (isSetBack) {
      this.#doubtfulUntilMs = Math.max(this.#doubtfulUntilMs, expectedMs)
      this.#count += 1
    }
    // Not where it is a little behind: what is set back little by little is set back.
    if (isSetBack || now.wallMs >= expectedMs) this.#latest = now
  }

  /** How often it was set back so far: what was reckoned while this is another number later says nothing. */
  count(): number {
    this.look()
    return this.#count
  }

  /** @param sinceMs milliseconds since the epoch, by our clock or that of another replica. @returns whether its age can be told. */
  canTell(sinceMs: number): boolean {
    this.look()
    return sinceMs > this.#doubtfulUntilMs && sinceMs <= this.#clock.nowMs() + CLOCK_SKEW_MS
  }
}
