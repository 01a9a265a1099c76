/**
 * One circuit for each configured credential: when its issuer fails for several lease keys in a row, or asks for time, nobody asks it
 * for a while; then one call tries, and its answer decides for the others. State of one process, written only by this class.
 */
import type { Clock } from '../protocol/clock.ts'
import { GatewayError } from '../protocol/problem.ts'
import { type Backoff, backoffMs } from './backoff.ts'

/** Lease keys whose last attempt failed, with no success between: one agent alone opens nothing, its own backoff holds it. */
const OPENS_AFTER = 5

/** How long nobody asks, by how often in a row the circuit opened. */
const OPEN: Backoff = { baseMs: 2_000, maxMs: 30_000 }

/** An issuer that asks for more time than this is asked after it all the same: its word is not trusted further. */
export const MAX_ASKED_MS = 60_000

/** What a call is told to wait that comes while another one tries. */
const PROBE_MS = 1_000

export type CircuitState = 'closed' | 'half_open' | 'open'

interface Circuit {
  readonly failed: Set<string>
  /** In a row. */
  openings: number
  /** Monotonic ms; 0: closed. */
  untilMs: number
  isProbing: boolean
}

/** What came of the attempt; disposed without a word, it says nothing about the issuer. */
export interface Attempt extends Disposable {
  succeeded(): void
  failed(keyId: string, error: unknown): void
}

export class Breaker {
  readonly #clock: Clock
  readonly #random: () => number
  /** name of the credential → its circuit */
  readonly #circuits = new Map<string, Circuit>()

  /** @param random in [0, 1): replicas that opened together do not try together. */
  constructor(clock: Clock, random: () => number) {
    this.#clock = clock
    this.#random = random
  }

  /** @throws {GatewayError} `credential_unavailable` while nobody is to ask. */
  attempt(name: string): Attempt {
    this.requireCalm(name)
    const circuit = this.#of(name)
    if (circuit.untilMs > 0) circuit.isProbing = true
    const isProbe = circuit.isProbing
    return {
      succeeded: () => {
        circuit.failed.clear()
        circuit.openings = 0
        circuit.untilMs = 0
      },
      failed: (keyId, error) => this.#failed(circuit, keyId, error, isProbe),
      [Symbol.dispose]: () => {
        if (isProbe) circuit.isProbing = false
      },
    }
  }

  /** @throws {GatewayError} as `attempt`. */
  requireCalm(name: string): void {
    const circuit = this.#circuits.get(name)
    if (circuit === undefined || circuit.untilMs === 0) return
    const leftMs = circuit.untilMs - this.#clock.elapsedMs()
    if (leftMs <= 0 && !circuit.isProbing) return
    throw new GatewayError(
      'credential_unavailable',
      `The issuer of credential ${name} has failed several times in a row and is left alone for now. Try again later; the operator finds its failures in the log (lease.failed).`,
      { retryAfterMs: Math.max(Math.ceil(leftMs), PROBE_MS) },
    )
  }

  /** Of every credential that was ever asked for. */
  states(): ReadonlyMap<string, CircuitState> {
    return new Map([...this.#circuits].map(([name, circuit]) => [name, this.#stateOf(circuit)]))
  }

  #of(name: string): Circuit {
    const known = this.#circuits.get(name)
    if (known !== undefined) return known
    const made = { failed: new Set<string>(), openings: 0, untilMs: 0, isProbing: false }
    this.#circuits.set(name, made)
    return made
  }

  #stateOf({ untilMs }: Circuit): CircuitState {
    if (untilMs === 0) return 'closed'
    return untilMs > this.#clock.elapsedMs() ? 'open' : 'half_open'
  }

  #failed(circuit: Circuit, keyId: string, error: unknown, isProbe: boolean): void {
    circuit.failed.add(keyId)
    const askedMs = error instanceof GatewayError ? error.retryAfterMs : undefined
    if (!isProbe && askedMs === undefined && circuit.failed.size < OPENS_AFTER) return
    // Those that were under way when it opened say nothing new.
    const nowMs = this.#clock.elapsedMs()
    const isOpen = circuit.untilMs > nowMs
    if (!isOpen) circuit.openings += 1
    const ownMs = circuit.failed.size < OPENS_AFTER && !isProbe ? 0 : backoffMs(circuit.openings, this.#random(), OPEN)
    const waitMs = Math.max(Math.min(askedMs ?? 0, MAX_ASKED_MS), ownMs)
    circuit.untilMs = Math.max(circuit.untilMs, nowMs + waitMs)
  }
}
