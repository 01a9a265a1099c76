/** What takes items, and the two ways in which it can say no. */
import type { Item } from './item.ts'

export interface Sink {
  /**
   * Resolves when the receiver has them for good: whatever happens here next, they arrive. May be asked again for the same ones.
   * @throws {Refusal} for what it will never take; anything else that is thrown means: try again.
   */
  deliver(items: readonly Item[]): Promise<void>
  close(): Promise<void>
}

/** The receiver read what it was sent and will not take it, however often it is sent. */
export class Refusal extends Error {
  override readonly name = 'Refusal'
}

/** The receiver cannot take anything now. */
export class Unavailable extends Error {
  override readonly name = 'Unavailable'
  /** Milliseconds that it asks to be left alone for. */
  readonly retryAfterMs: number | undefined

  constructor(message: string, retryAfterMs?: number) {
    super(message)
    this.retryAfterMs = retryAfterMs
  }
}
