/**
 * Failures of issuers, by lease key: the next call gets the same refusal without asking, for at most five seconds, so that a broken
 * issuer is not stormed. State is written only by this class.
 */
import type { Clock } from '../protocol/clock.ts'
import { GatewayError, type ProblemCode, problems } from '../protocol/problem.ts'
import { backoffMs, spreadOf } from './backoff.ts'

const MAX_MS = 5_000

/** Anything else (shutdown, an ended grant, a log that cannot be written) is not the issuer's and is not kept. */
const KEPT: ReadonlySet<ProblemCode> = new Set([
  'credential_rejected',
  'credential_too_wide',
  'credential_unconfigured',
  'credential_unavailable',
])

/** What can pass is tried again soon at first; what only an operator can change, after the full time. */
const BACKOFF = { baseMs: 1_000, maxMs: MAX_MS } as const

/** Milliseconds after which a failure does not count as the one before the next. */
const FORGET_MS = 60_000

interface Failure {
  readonly error: GatewayError
  readonly untilMs: number
  readonly inARow: number
}

export class Failures {
  readonly #clock: Clock
  /** lease key → its last failure, monotonic ms */
  readonly #kept = new Map<string, Failure>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** @throws {GatewayError} as the last attempt, while that is too recent for another one; with the time that is left. */
  requireNone(id: string): void {
    const failure = this.#kept.get(id)
    const leftMs = failure === undefined ? 0 : failure.untilMs - this.#clock.elapsedMs()
    if (failure === undefined || leftMs <= 0) return
    const { code, detail } = failure.error
    const isWorthIt = problems[code].remedy === 'retry'
    throw new GatewayError(code, detail, { retryAfterMs: isWorthIt ? Math.ceil(leftMs) : undefined })
  }

  /** Also tells the error after how long it is worth trying again, unless it knows that already. */
  keep(id: string, error: unknown): void {
    if (!(error instanceof GatewayError) || !KEPT.has(error.code)) return
    const inARow = (this.#kept.get(id)?.inARow ?? 0) + 1
    const keptMs = problems[error.code].remedy === 'retry' ? backoffMs(inARow, spreadOf(id), BACKOFF) : MAX_MS
    this.#kept.set(id, { error, inARow, untilMs: this.#clock.elapsedMs() + keptMs })
    if (problems[error.code].remedy === 'retry') error.retryAfterMs ??= Math.ceil(keptMs)
  }

  clear(id: string): void {
    this.#kept.delete(id)
  }

  sweep(): void {
    const fromMs = this.#clock.elapsedMs() - FORGET_MS
    for (const [id, { untilMs }] of this.#kept) if (untilMs <= fromMs) this.#kept.delete(id)
  }
}
