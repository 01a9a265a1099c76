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

/** Runs work, or refuses it. @throws {GatewayError} `too_many_requests` */
export type Gate = <T>(work: () => Promise<T>) => Promise<T>

/** At most `limit` under way. What a caller that went away has set in motion counts until it is done. */
export function createGate(limit: number): Gate {
  let underWay = 0
  return async (work) => {
    if (underWay >= limit) throw busy(`${limit} requests are under way already. Ask again in a moment.`)
    underWay += 1
    try {
      return await work()
    } finally {
      underWay -= 1
    }
  }
}

function busy(detail: string): GatewayError {
  return new GatewayError('too_many_requests', detail)
}
