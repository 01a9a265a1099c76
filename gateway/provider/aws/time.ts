/**
 * What time it is at AWS, which refuses signatures that are more than some minutes old or early. A clock of ours that is wrong is
 * noticed by what its answers say (`Date`) and allowed for: the next signature is right.
 */
import type { Clock } from '../../protocol/clock.ts'

export interface AwsTime {
  /** Milliseconds since the epoch. */
  nowMs(): number
  /** An answer that refused a signature said this. @returns whether the next one will be dated otherwise. */
  learn(dateMs: number | undefined): boolean
  /** Whether an answer of this date could have refused a signature for its time. */
  isOff(dateMs: number | undefined): boolean
}

/** Less than the five minutes that the strictest APIs allow. */
const NOTICED_MS = 4 * 60_000
/** A server that is further off is the one that is wrong. */
const MAX_OFF_MS = 24 * 3_600_000

export function createAwsTime(clock: Clock): AwsTime {
  /** What AWS's clock shows more than ours. Written by `learn` alone. */
  let aheadMs = 0
  const isOff = (dateMs: number | undefined): dateMs is number => {
    if (dateMs === undefined || Math.abs(dateMs - clock.nowMs()) > MAX_OFF_MS) return false
    return Math.abs(dateMs - clock.nowMs() - aheadMs) > NOTICED_MS
  }
  return {
    nowMs: () => clock.nowMs() + aheadMs,
    isOff,
    learn(dateMs) {
      if (!isOff(dateMs)) return false
      aheadMs = dateMs - clock.nowMs()
      return true
    },
  }
}
