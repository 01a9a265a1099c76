/** Entries behind the last signed head. An old head beside entries of whoever put it there would cover nothing of what they say. */
import type { Findings } from './verdict.ts'

/** Milliseconds that they may span: a head is signed every 200 ms while entries come. */
const MAX_MS = 60_000

export class Unsigned {
  readonly #untilMs: number
  #first: { readonly index: number; readonly ms: number } | undefined
  #spanMs = 0

  /** @param untilMs when the heads were read: what came after that may go on for as long as reading takes. */
  constructor(untilMs: number) {
    this.#untilMs = untilMs
  }

  take(ms: number, index: number): void {
    if (ms > this.#untilMs) return
    this.#first ??= { index, ms }
    this.#spanMs = Math.max(this.#spanMs, ms - this.#first.ms)
  }

  finish(findings: Findings): void {
    if (!this.#first || this.#spanMs <= MAX_MS) return
    const span = `${Math.round(this.#spanMs / 1000)} s of entries`
    const what = `${span} from here on are not signed, and a gateway signs every 200 ms: an older checkpoint was put back, or signing failed`
    findings.fault('checkpoint', this.#first.index, what)
  }
}
