/**
 * `log.heartbeat`: that the gateway was alive and could write, and what it had done by then. Between two of one process there are
 * never more than `everyMs` and a write; a longer gap means that it was stopped, stood still, could not write, or that entries are
 * missing. Which one, the entries around it tell: docs/log.md.
 */
import type { Clock } from '../protocol/clock.ts'
import type { JsonValue } from './canonical.ts'
import type { Tally } from './entries/tally.ts'

export interface HeartbeatParts {
  readonly everyMs: number
  readonly clock: Clock
  readonly tally: Tally
  /** Entries that wait for a disk that failed. */
  kept(): number
  /** Why nothing can be written; then there is no heartbeat, and the gap says so. */
  failure(): Error | undefined
  write(facts: Readonly<Record<string, JsonValue>>): Promise<unknown>
}

/** The first one at once. Keeps no process alive. @returns what ends it. */
export function startHeartbeat(parts: HeartbeatParts): () => void {
  const startedMs = parts.clock.elapsedMs()
  let isWriting = false
  const beat = () => {
    // On a slow disk one of them waits, not many.
    if (isWriting || parts.failure() !== undefined) return
    isWriting = true
    const { allowed, refused, open, turnedAway } = parts.tally
    const upMs = Math.round(parts.clock.elapsedMs() - startedMs)
    const turned_away = { ...turnedAway }
    const facts = { allowed, refused, open, turned_away, kept: parts.kept(), up_ms: upMs, every_ms: parts.everyMs }
    parts
      .write(facts)
      .catch(() => undefined) // the sequencer says what it was when it has recovered
      .finally(() => {
        isWriting = false
      })
  }
  beat()
  const timer = setInterval(beat, parts.everyMs).unref()
  return () => clearInterval(timer)
}
