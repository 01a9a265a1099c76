/** The way to every issuer: a few at once, and nobody while its circuit is open. One for each configured credential. */
import type { Clock } from '../protocol/clock.ts'
import { asGatewayError } from '../protocol/problem.ts'
import { Breaker, type CircuitState } from './breaker.ts'
import type { Claim } from './claim.ts'
import type { Failures } from './failures.ts'
import { type TurnLimits, Turns } from './turns.ts'

const LIMITS: TurnLimits = { atOnce: 32, renewals: 8 }

/** How one issuer does, as seen from this process. */
export interface IssuerState {
  /** Name of the credential in settings. */
  readonly credential: string
  readonly circuit: CircuitState
  /** Requests under way, and waiting for their turn. */
  readonly underway: number
  readonly waiting: number
}

export interface IssuersOptions {
  readonly clock: Clock
  /** In [0, 1). */
  readonly random: () => number
  /** Told of what the issuer refused or failed to do. */
  readonly failures: Pick<Failures, 'keep'>
  readonly limits?: Partial<TurnLimits> | undefined
  /** Milliseconds to wait for one's turn. */
  readonly patienceMs: number
}

export class Issuers {
  readonly #breaker: Breaker
  readonly #failures: Pick<Failures, 'keep'>
  readonly #limits: TurnLimits
  readonly #patienceMs: number
  /** name of the credential → whose turn it is */
  readonly #turns = new Map<string, Turns>()

  constructor({ clock, random, failures, limits, patienceMs }: IssuersOptions) {
    this.#failures = failures
    this.#breaker = new Breaker(clock, random)
    this.#limits = { ...LIMITS, ...limits }
    this.#patienceMs = patienceMs
  }

  /**
   * Do this work, which asks the issuer, when it may be asked.
   * @throws {GatewayError} `credential_unavailable` without asking, with the time after which it is worth it; what `work` throws.
   */
  async ask<T>({ name, key }: Claim, isRenewal: boolean, work: () => Promise<T>): Promise<T> {
    this.#breaker.requireCalm(name)
    using _turn = await this.#turnsOf(name).take(isRenewal, this.#patienceMs)
    using attempt = this.#breaker.attempt(name) // it may have opened meanwhile
    try {
      const made = await work()
      attempt.succeeded()
      return made
    } catch (cause) {
      const { code } = asGatewayError(cause)
      if (code === 'credential_unavailable') attempt.failed(key.id, cause)
      // It answered, if not as we would like.
      else if (code.startsWith('credential_')) attempt.succeeded()
      this.#failures.keep(key.id, cause)
      throw cause
    }
  }

  states(): IssuerState[] {
    const circuits = this.#breaker.states()
    return [...this.#turns].map(([credential, { underway, waiting }]) => ({
      ...{ credential, underway, waiting },
      circuit: circuits.get(credential) ?? 'closed',
    }))
  }

  #turnsOf(name: string): Turns {
    const known = this.#turns.get(name)
    if (known !== undefined) return known
    const made = new Turns(this.#limits)
    this.#turns.set(name, made)
    return made
  }
}
