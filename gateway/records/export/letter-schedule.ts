/** When a message is tried again, and when it is given up (Standard Webhooks 1.0: exponential, with jitter, over several days). */

export const GIVE_UP_MS = 72 * 3_600_000
/** Failures of one message, each while others were taken, after which it is given up. */
export const MAX_OWN_FAILURES = 12
export const LONGEST_REST_MS = 3_600_000

/** Waiting times after the first, second, … failure; the last one repeats. */
const SCHEDULE_MS = [5_000, 30_000, 120_000, 600_000, 1_800_000, 3_600_000] as const

/**
 * Milliseconds until the next attempt. A quarter of it is left to chance, so that replicas do not come back together.
 * @param failures in a row, at least one. @param random from 0 to less than 1.
 */
export function delayMs(failures: number, random: number): number {
  const ms = SCHEDULE_MS[Math.min(failures, SCHEDULE_MS.length) - 1] ?? SCHEDULE_MS[0]
  return ms * (0.875 + random / 4)
}
