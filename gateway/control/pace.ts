/** How fast and how many at once: bounds that keep a caller of the OAuth endpoints from guessing or drowning. In memory, per replica. */
import type { Clock } from '../protocol/clock.ts'
import { GatewayError } from '../protocol/problem.ts'

const MAX_CALLERS = 10_000

export interface Pace {
  /** Count one request of this caller. @throws {GatewayError} `too_many_requests` */
  admit(caller: string): void
}

/** At most `n` in each window of `perMs`, per caller. Callers that are forgotten for want of room start afresh. */
export function createPace(o: { readonly n: number; readonly perMs: number; readonly clock: Clock }): Pace {
  /** caller → requests in its current window; oldest window first */
  const counts = new Map<string, { readonly startMs: number; count: number }>()
  return {
    admit(caller) {
      const nowMs = o.clock.elapsedMs()
      let current = counts.get(caller)
      if (current === undefined || nowMs - current.startMs >= o.perMs) {
        counts.delete(caller)
        if (counts.size >= MAX_CALLERS) counts.delete(counts.keys().next().value as string)
        current = { startMs: nowMs, count: 0 }
        counts.set(caller, current)
      }
      current.count += 1
      if (current.count > o.n) throw busy(`More than ${o.n} requests in ${o.perMs / 1000} s. Ask less often.`)
    },
  }
}

/** At most `limit` under way. @returns what ends one. @throws {GatewayError} `too_many_requests` */
export function createGate(limit: number): () => () => void {
  let underWay = 0
  return () => {
    if (underWay >= limit) throw busy(`${limit} requests are under way already. Ask again in a moment.`)
    underWay += 1
    return () => {
      underWay -= 1
    }
  }
}

function busy(detail: string): GatewayError {
  return new GatewayError('too_many_requests', detail)
}
