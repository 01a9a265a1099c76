/**
 * Whether the time can be trusted to give grants an end (standards.md H24). A clock that was set back would have them live for
 * longer than anybody decided, so nothing is made until it is right again, and what has expired stays so. What takes away
 * needs no time.
 */
import type { Clock } from '../../protocol/clock.ts'
import { GatewayError } from '../../protocol/problem.ts'

const TOLERATED_MS = 60_000

export interface ClockWatch {
  /** @throws {GatewayError} `clock_set_back` when it is more than 60 s earlier than it has to be by what was seen of it */
  check(): void
  /** Milliseconds since the epoch: the clock's, unless it is more than 60 s behind; then never earlier than that. */
  nowMs(): number
}

/** State: the latest time seen, and when that was by the clock that never goes back. Written only by `check()`. */
export function watchClock(clock: Clock): ClockWatch {
  let latest = { wallMs: clock.nowMs(), atMs: clock.elapsedMs() }
  return {
    nowMs: () => Math.max(clock.nowMs(), latest.wallMs + clock.elapsedMs() - latest.atMs - TOLERATED_MS),
    check() {
      const now = { wallMs: clock.nowMs(), atMs: clock.elapsedMs() }
      const behindMs = latest.wallMs + now.atMs - latest.atMs - now.wallMs
      if (behindMs <= 0) latest = now
      if (behindMs <= TOLERATED_MS) return
      throw new GatewayError(
        'clock_set_back',
        `The clock of this gateway is ${Math.round(behindMs / 1000)} s behind what it has shown, so no grant is made. Set it right; if it was wrong before, restart the gateway.`,
      )
    },
  }
}
