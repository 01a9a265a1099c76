/**
 * Looks once more for what an order ends, a while after it was given: another replica may have made something in the moment in which it
 * did not know of it, or the store may have been away. What is found is refused all the while; its credentials go then.
 */
import { asGatewayError } from '../../protocol/problem.ts'

interface Parts {
  /** How long after an order. */
  readonly afterMs: number
  /** Orders wait that the store does not have: what they end is not ended there yet. */
  isWaiting(): boolean
  /** @throws {GatewayError} `store_unavailable`: it is tried again */
  sweep(): Promise<unknown>
}

export class Sweeps {
  readonly #parts: Parts
  #timer: NodeJS.Timeout | undefined
  /** An order was given since the timer runs: it is to have its own while. */
  #isMore = false
  #isClosed = false

  constructor(parts: Parts) {
    this.#parts = parts
  }

  later(): void {
    if (this.#timer !== undefined) this.#isMore = true
    else if (!this.#isClosed) this.#timer = setTimeout(() => void this.#run(), this.#parts.afterMs).unref()
  }

  /** Before the store is closed. */
  close(): void {
    this.#isClosed = true
    clearTimeout(this.#timer)
  }

  async #run(): Promise<void> {
    const { isWaiting, sweep } = this.#parts
    this.#timer = undefined
    if (this.#isMore || isWaiting()) this.later()
    this.#isMore = false
    await sweep().catch((cause: unknown) => {
      if (asGatewayError(cause).code === 'store_unavailable') this.later()
    })
  }
}
