/**
 * How much a connection may ask of us that leads to nothing: a bucket that fills with time. An honest client never empties
 * it; one that resets what it asks for, or sends frames that only have to be answered, does (CVE-2023-44487, CVE-2019-9512, -9515).
 */
const BURST = 10_000
const PER_MS = 2

/** In units of a PING, of which gRPC clients send thousands while they measure a fast network. */
export const COST = {
  ping: 1,
  /** A hundred a second: nobody changes settings that often. */
  settings: 20,
  /** 500 at once and a hundred a second for good: each may have been decided, recorded and sent upstream. */
  abandoned: 20,
} as const

export class Calm {
  readonly #nowMs: () => number
  #left = BURST
  #sinceMs: number

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs
    this.#sinceMs = nowMs()
  }

  /** @returns whether the connection is still worth serving. */
  spend(cost: number): boolean {
    const nowMs = this.#nowMs()
    this.#left = Math.min(BURST, this.#left + Math.max(0, nowMs - this.#sinceMs) * PER_MS) - cost
    this.#sinceMs = nowMs
    return this.#left >= 0
  }
}
