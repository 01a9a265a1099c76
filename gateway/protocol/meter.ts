/** Bytes of bodies that one call may still carry, both directions together: counted as they pass, settled however it ends. */
import { GatewayError } from './problem.ts'

export interface Traffic {
  readonly sentBytes: number
  readonly receivedBytes: number
}

export class Meter implements Disposable, Traffic {
  readonly #limit: number
  readonly #settle: (traffic: Traffic) => void
  readonly #take: (bytes: number) => boolean
  #sent = 0
  #received = 0

  /**
   * @param limit bytes. @param settle called once, on disposal; must not throw.
   * @param take whether so many bytes more fit beside what other calls are carrying now. Default: there are no others.
   */
  constructor(limit: number, settle: (traffic: Traffic) => void, take: (bytes: number) => boolean = () => true) {
    this.#limit = limit
    this.#settle = settle
    this.#take = take
  }

  get sentBytes(): number {
    return this.#sent
  }

  get receivedBytes(): number {
    return this.#received
  }

  /** Whether these bytes may go up; only then are they counted. */
  send(bytes: number): boolean {
    if (!this.#fits(bytes)) return false
    this.#sent += bytes
    return true
  }

  /** Whether these bytes may go down; only then are they counted. */
  receive(bytes: number): boolean {
    if (!this.#fits(bytes)) return false
    this.#received += bytes
    return true
  }

  exceeded(): GatewayError {
    return new GatewayError(
      'limit_exceeded',
      `The call was cut: ${this.#limit} bytes were left in the budget of its grant, and it needed more. Ask the grantor for a larger max_bytes.`,
    )
  }

  [Symbol.dispose](): void {
    this.#settle(this)
  }

  #fits(bytes: number): boolean {
    return this.#sent + this.#received + bytes <= this.#limit && this.#take(bytes)
  }
}
