/**
 * A value that must never be printed. Whatever formats it (`String`, JSON, `util.inspect`, a template, a logger)
 * gets `[secret]`. `reveal()` is allowed only in `provider/` and `lease/seal.ts`; `test/architecture.test.ts` holds that.
 */
const INSPECT = Symbol.for('nodejs.util.inspect.custom')

export class Secret {
  readonly #value: string

  constructor(value: string) {
    this.#value = value
  }

  reveal(): string {
    return this.#value
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
