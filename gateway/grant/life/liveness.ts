/**
 * Whether a grant may still be used: its time, its task, and everything whose end is its own. What this process ends is dead
 * here at once, whatever the store manages to write.
 */
import type { Clock } from '../../protocol/clock.ts'
import type { Grant } from '../../protocol/grant.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { SKEW_S } from '../chain/claims.ts'
import { invalid } from '../chain/presented.ts'
import type { GrantState, StoredGrant } from '../store/store.ts'

/** A grant's state in the store, and what it hangs on. */
interface Stands extends GrantState {
  readonly stored: Pick<StoredGrant, 'tenant' | 'marks'>
}

export class Liveness {
  readonly #clock: Clock
  /** tenant and mark → reason; written only by `end` */
  readonly #ended = new Map<string, { readonly reason: string; readonly untilS: number }>()
  #tell: (tenant: string, mark: string) => void = () => {}
  #ordered: (grant: Grant) => GatewayError | undefined = () => undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** What says whether an order ends a grant (`orders.ts`). Default: there are none. */
  obey(endOf: (grant: Grant) => GatewayError | undefined): void {
    this.#ordered = endOf
  }

  /** Whom to tell that this process ended a mark, or changed in the store what it says of it. One at most. */
  onChange(tell: (tenant: string, mark: string) => void): void {
    this.#tell = tell
  }

  changed(tenant: string, mark: string): void {
    this.#tell(tenant, mark)
  }

  /** @param o.untilS epoch seconds; not before the expiry of any grant that carries the mark. */
  end(tenant: string, mark: string, o: { readonly reason: string; readonly untilS: number }): void {
    const nowS = this.#clock.nowMs() / 1000
    for (const [known, { untilS }] of this.#ended) {
      if (untilS > nowS) break // about in the order in which they run out: the rest is for later
      this.#ended.delete(known)
    }
    this.#ended.set(`${tenant} ${mark}`, o)
    this.#tell(tenant, mark)
  }

  /** As far as this process knows, without asking the store. @throws {GatewayError} `grant_revoked`, `access_blocked` */
  checkOrders(grant: Grant): void {
    const why = this.#ordered(grant)
    if (why !== undefined) throw why
  }

  /** @throws {GatewayError} `access_blocked`, `grant_revoked`, `task_suspended`, `grant_expired`, `grant_invalid` */
  check(grant: Grant, { stored, ended, isSuspended }: Stands): void {
    this.checkOrders(grant)
    const reason = ended ?? this.#endedHere(stored.tenant, stored.marks)
    if (reason !== undefined) {
      throw new GatewayError(
        'grant_revoked',
        `The grant has ended (${reason.replaceAll('_', ' ')}): it, one above it, its step or its task ${grant.task.id}. Open a new task.`,
      )
    }
    if (isSuspended) {
      throw new GatewayError(
        'task_suspended',
        `The task ${grant.task.id} is suspended, and its grants with it. Whoever resumes it gets a new grant.`,
      )
    }
    this.checkTime(grant)
  }

  /** @throws {GatewayError} `grant_expired`, `grant_invalid` */
  checkTime(grant: Pick<Grant, 'issuedAt' | 'expiresAt'>): void {
    const nowS = this.#clock.nowMs() / 1000
    // No tolerance here: we set the expiry ourselves, and a handle and a token of one grant must die together.
    if (nowS >= grant.expiresAt) {
      throw new GatewayError(
        'grant_expired',
        `The grant expired at ${new Date(grant.expiresAt * 1000).toISOString()}. Open a new task.`,
      )
    }
    if (grant.issuedAt > nowS + SKEW_S) {
      throw invalid(
        `The grant is from the future by more than ${SKEW_S} s: the clocks of the gateways differ, or this one was set back.`,
      )
    }
  }

  #endedHere(tenant: string, marks: readonly string[]): string | undefined {
    for (const mark of marks) {
      const end = this.#ended.get(`${tenant} ${mark}`)
      if (end !== undefined) return end.reason
    }
    return undefined
  }
}
