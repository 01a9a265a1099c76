/** Time as an argument, so that tests can move it. Wall time for expiries and records, monotonic time for durations. */
export interface Clock {
  /** Milliseconds since the Unix epoch. */
  nowMs(): number
  /** Milliseconds on a clock that never goes back. Only differences mean anything. */
  elapsedMs(): number
}

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  elapsedMs: () => performance.now(),
}
