/** Grants that were purged in this process: nothing is issued for them any more. State is written only by this class. */
import type { Clock } from '../protocol/clock.ts'
import type { Grant } from '../protocol/grant.ts'
import { GatewayError } from '../protocol/problem.ts'
import { ENDED_MS } from './cache.ts'

export class Ended {
  readonly #clock: Clock
  /** grant id → when it may be forgotten, monotonic ms */
  readonly #until = new Map<string, number>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  has(grant: string): boolean {
    return this.#until.has(grant)
  }

  /** @throws {GatewayError} `grant_revoked` */
  requireLiving({ id }: Pick<Grant, 'id'>): void {
    if (this.has(id)) throw new GatewayError('grant_revoked', 'The task of this grant has ended.')
  }

  add(grant: string): void {
    this.#until.set(grant, this.#clock.elapsedMs() + ENDED_MS)
  }

  sweep(): void {
    const nowMs = this.#clock.elapsedMs()
    for (const [grant, untilMs] of this.#until) if (untilMs <= nowMs) this.#until.delete(grant)
  }
}
