/** Time that moves only when a test says so. */
import type { Clock } from '../../gateway/protocol/clock.ts'

export interface ManualClock extends Clock {
  advance(ms: number): void
}

/** @param startMs milliseconds since the epoch; default 2026-06-01T12:00:00Z. */
export function manualClock(startMs: number = Date.UTC(2026, 5, 1, 12)): ManualClock {
  let passedMs = 0
  return {
    nowMs: () => startMs + passedMs,
    elapsedMs: () => passedMs,
    advance(ms) {
      if (ms < 0) throw new RangeError('a clock does not go back')
      passedMs += ms
    },
  }
}
