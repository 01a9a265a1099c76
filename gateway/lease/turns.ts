/**
 * How many requests one issuer gets at once from this process. Calls that wait for a credential go before renewals, which have time.
 * State is written only by this class.
 */
import { GatewayError } from '../protocol/problem.ts'

export interface TurnLimits {
  /** Requests at once. Default 32. */
  readonly atOnce: number
  /** Of these, renewals. Default 8. */
  readonly renewals: number
}

interface Waiting {
  readonly isRenewal: boolean
  go(): void
}

export class Turns {
  readonly #limits: TurnLimits
  #all = 0
  #renewals = 0
  /** Oldest first. */
  readonly #waiting: Waiting[] = []

  constructor(limits: TurnLimits) {
    this.#limits = limits
  }

  get underway(): number {
    return this.#all
  }

  get waiting(): number {
    return this.#waiting.length
  }

  /**
   * Resolves when it is one's turn. @param patienceMs how long to wait for it.
   * @throws {GatewayError} `credential_unavailable` when it did not come in that time.
   */
  async take(isRenewal: boolean, patienceMs: number): Promise<Disposable> {
    if (!this.#isFree(isRenewal)) await this.#wait(isRenewal, patienceMs)
    else this.#begin(isRenewal)
    return { [Symbol.dispose]: () => this.#end(isRenewal) }
  }

  #isFree(isRenewal: boolean): boolean {
    return this.#all < this.#limits.atOnce && (!isRenewal || this.#renewals < this.#limits.renewals)
  }

  #begin(isRenewal: boolean): void {
    this.#all += 1
    if (isRenewal) this.#renewals += 1
  }

  #end(isRenewal: boolean): void {
    this.#all -= 1
    if (isRenewal) this.#renewals -= 1
    for (const kind of [false, true]) {
      const next = this.#isFree(kind) ? this.#waiting.findIndex((one) => one.isRenewal === kind) : -1
      if (next === -1) continue
      const [waiting] = this.#waiting.splice(next, 1)
      this.#begin(kind)
      waiting?.go()
      return
    }
  }

  #wait(isRenewal: boolean, patienceMs: number): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const timer = setTimeout(() => {
      this.#waiting.splice(this.#waiting.indexOf(waiting), 1)
      reject(tooMany())
    }, patienceMs)
    const waiting: Waiting = {
      isRenewal,
      go() {
        clearTimeout(timer)
        resolve()
      },
    }
    this.#waiting.push(waiting)
    return promise
  }
}

function tooMany(): GatewayError {
  return new GatewayError(
    'credential_unavailable',
    'Too many calls wait for the issuer of this credential, which answers too slowly for them. Try again.',
    { retryAfterMs: 1_000 },
  )
}
