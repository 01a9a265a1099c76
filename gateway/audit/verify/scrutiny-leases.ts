/** The credentials that the logs say were obtained, and whether one covers what a call used. Sees the entries of all logs of a fleet, merged by time. */
import type { LeaseClaim } from './scrutiny-facts.ts'

/** Milliseconds for which a lease is remembered after its end: a call that began under it may last. */
const KEEP_MS = 24 * 3_600_000
const ROUND = 100_000

export class Leases {
  /** Grant, credential, end → when its entry was written. */
  readonly #known = new Map<string, { readonly ms: number; readonly untilMs: number }>()
  #seen = 0

  add(lease: LeaseClaim, ms: number): void {
    const key = keyOf(lease)
    if (!this.#known.has(key)) this.#known.set(key, { ms, untilMs: lease.expires * 1000 })
    if (++this.#seen % ROUND !== 0) return
    for (const [old, { untilMs }] of this.#known) if (untilMs < ms - KEEP_MS) this.#known.delete(old)
  }

  /** Whether a lease of this very credential, for this grant and until then, was recorded. */
  has(lease: LeaseClaim): boolean {
    return this.#known.has(keyOf(lease))
  }
}

function keyOf({ grant, id, expires }: LeaseClaim): string {
  return `${grant} ${id} ${expires}`
}
