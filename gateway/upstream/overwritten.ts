/** The credentials that were overwritten in one answer, by place. Whoever burns them is told at once: the answer may go on for long. */
import type { Leaks } from '../protocol/message.ts'
import type { Scrubber } from './scrub.ts'

export class Overwritten {
  readonly #leaked: () => void
  #head = 0
  #trailer = 0
  /** Counts those of the body, and tells of the first. */
  body: Scrubber | undefined

  constructor(leaked: () => void) {
    this.#leaked = leaked
  }

  in(place: 'head' | 'trailer', found: number): void {
    if (found === 0) return
    if (place === 'head') this.#head += found
    else this.#trailer += found
    this.#leaked()
  }

  get found(): number {
    return this.#head + this.#trailer + (this.body?.found ?? 0)
  }

  get leaks(): Leaks {
    const body = this.body?.found ?? 0
    return {
      ...(this.#head > 0 && { head: this.#head }),
      ...(body > 0 && { body }),
      ...(this.#trailer > 0 && { trailer: this.#trailer }),
    }
  }
}
