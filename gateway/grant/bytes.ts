/**
 * Bytes of calls that are under way in this process, held together against the budgets that they share. The store counts a call
 * when it is over; until then what it has carried is known here alone.
 */

/** One budget while at least one call counts against it. */
interface Purse {
  /** What was left, by the least answer of the store, less what calls that are over here have carried since. */
  left: number
  /** Carried by calls that are not over. */
  carried: number
  calls: number
}

export class Allowance {
  /** Bytes of bodies, both directions together, that the call may carry at most: the least that is left in any budget above it. */
  readonly bytes: number
  readonly #purses: readonly Purse[]

  constructor(purses: readonly Purse[]) {
    this.#purses = purses
    this.bytes = Math.max(0, Math.min(...purses.map(({ left, carried }) => left - carried)))
  }

  /** Whether these bytes fit beside those of all calls under way; only then are they counted. */
  take(bytes: number): boolean {
    if (this.#purses.some(({ left, carried }) => carried + bytes > left)) return false
    for (const purse of this.#purses) purse.carried += bytes
    return true
  }
}

export class Purses {
  /** name of a budget → what is known of it; written only by `open` and `close` */
  readonly #purses = new Map<string, Purse>()

  /** For one call, until `close`. @param left what the store says of each. */
  open(names: readonly string[], left: readonly number[]): Allowance {
    return new Allowance(names.map((name, i) => this.#purse(name, left[i] ?? 0)))
  }

  /** The call is over, and `bytes` of it are being told to the store. */
  close(names: readonly string[], bytes: number): void {
    for (const name of names) {
      const purse = this.#purses.get(name)
      if (purse === undefined) continue
      purse.left -= bytes
      purse.carried -= bytes
      purse.calls -= 1
      if (purse.calls === 0) this.#purses.delete(name)
    }
  }

  #purse(name: string, left: number): Purse {
    const known = this.#purses.get(name)
    if (known === undefined) {
      const purse = { left, carried: 0, calls: 1 }
      this.#purses.set(name, purse)
      return purse
    }
    known.left = Math.min(known.left, left) // an answer that was under way when a call ended knows nothing of it
    known.calls += 1
    return known
  }
}
