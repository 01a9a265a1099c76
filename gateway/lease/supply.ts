/**
 * Where credentials come from when this process holds none: the shared cache, or the issuer, asked once per lease key at a time; and
 * the renewal of those that will end.
 */
import type { Clock } from '../protocol/clock.ts'
import type { Grant } from '../protocol/grant.ts'
import { asGatewayError, GatewayError } from '../protocol/problem.ts'
import { backoffMs, spreadOf } from './backoff.ts'
import { MAX_ASKED_MS } from './breaker.ts'
import type { Burns } from './burn.ts'
import type { Claim } from './claim.ts'
import { createFlight, type Flight, issueOnce } from './flight.ts'
import type { Bare, Cause, Held, LeaseEnd } from './held.ts'
import { type IssueRooms, issueShared, type Need, readShared } from './issue.ts'
import type { Near } from './near.ts'

/** Between two attempts to renew, while the credential that there is serves. */
const RENEWAL = { baseMs: 2_000, maxMs: 60_000 } as const

export interface SupplyRooms {
  readonly issue: IssueRooms
  readonly near: Near
  readonly burns: Burns
  readonly clock: Clock
  readonly end: LeaseEnd
  readonly lockMs: number
  readonly patienceMs: number
}

export class Supply {
  readonly #rooms: SupplyRooms
  readonly #flight: Flight<Held>
  /** Credentials that were found in the shared cache. */
  found = 0

  constructor(rooms: SupplyRooms) {
    this.#rooms = rooms
    this.#flight = createFlight(rooms.issue.failures)
  }

  /** One issue per key at a time; never the credential `instead` of which another one is wanted, unless the issuer gives it again. */
  obtain(claim: Claim, cause: Cause, instead?: Bare): Promise<Held> {
    const { issue, near } = this.#rooms
    return this.#flight.run(claim.key.id, async () => {
      // Inside the flight: whoever asks meanwhile joins it and cannot take the rejected credential from the cache again.
      if (cause === 'rejected' && instead?.sealed !== undefined) {
        await issue.cache.remove(claim.key, instead.sealed).catch(() => undefined)
      }
      const held = await this.#once(claim, { cause, instead })
      if (issue.isEnded(claim.grant.id)) {
        // Purged between storing and here: the purge has seen the shared value, so nothing more than refusing is left to do.
        if (held.sealed === undefined) issue.discard({ ...held, reason: 'grant_ended' })
        throw new GatewayError('grant_revoked', 'The task ended while a credential was being issued for it.')
      }
      near.put(held)
      return held
    })
  }

  /** Refresh ahead: the current credential serves until the new one is there; a failure is tried again, later each time, until it ends. */
  renew(held: Held, grant: Grant): void {
    const { clock } = this.#rooms
    held.renewAtMs = Number.POSITIVE_INFINITY // one attempt at a time
    this.obtain({ ...held.claim, grant }, 'renewal', held).catch((cause: unknown) => {
      held.failedRenewals += 1
      const askedMs = Math.min(asGatewayError(cause).retryAfterMs ?? 0, MAX_ASKED_MS)
      held.renewAtMs =
        clock.nowMs() + Math.max(askedMs, backoffMs(held.failedRenewals, spreadOf(held.claim.key.id), RENEWAL))
    })
  }

  #once(claim: Claim, need: Need): Promise<Held> {
    const { issue, end, lockMs, patienceMs } = this.#rooms
    return issueOnce({
      cache: issue.cache,
      key: claim.key,
      lockMs,
      patienceMs,
      signal: issue.closing,
      read: () => this.#read(claim, need.instead),
      issue: (fence) => issueShared(issue, claim, { ...need, end, fence }),
    })
  }

  async #read(claim: Claim, instead: Bare | undefined): Promise<Held | undefined> {
    const { issue, end, burns } = this.#rooms
    const held = await readShared(issue, claim, end)
    if (held === undefined || burns.isBurnt(held.credentialId)) return undefined
    // The same one is another one when it was prolonged.
    if (held.credentialId === instead?.credentialId && held.untilMs <= instead.untilMs) return undefined
    this.found += 1
    return held
  }
}
