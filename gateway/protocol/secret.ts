/**
 * A value that must never be printed. Whatever formats it (`String`, JSON, `util.inspect`, a template, a logger)
 * gets `[secret]`. `reveal()` is allowed only in `provider/` and `lease/seal.ts`; `test/architecture.test.ts` holds that.
 */
import { spellings } from './spelling.ts'

const INSPECT = Symbol.for('nodejs.util.inspect.custom')

export class Secret {
  readonly #value: string
  #needles: readonly Buffer[] | undefined

  constructor(value: string) {
    this.#value = value
  }

  reveal(): string {
    return this.#value
  }

  /**
   * Byte strings under which this value could come back in an answer (`spelling.ts`). Only `upstream/searcher.ts` calls
   * this; they are as secret as the value. Worked out once. Empty when the value is too short to be searched for.
   */
  needles(): readonly Buffer[] {
    this.#needles ??= spellings(this.#value)
    return this.#needles
  }

  toString(): string {
    return '[secret]'
  }

  toJSON(): string {
    return '[secret]'
  }

  [INSPECT](): string {
    return '[secret]'
  }
}
