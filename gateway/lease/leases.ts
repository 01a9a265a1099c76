/**
 * Leases: the credential for a permitted and recorded call, from this process, from the shared cache, or from its issuer;
 * renewed before it ends, replaced once when the upstream rejects it, gone with its grant.
 */
import type { Receipt } from '../audit/event.ts'
import type { Permit } from '../policy/decision.ts'
import { isSingleUse } from '../protocol/decision.ts'
import type { Grant } from '../protocol/grant.ts'
import type { AnswerHead, Inbound, Outbound } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import { Burns, fateOf } from './burn.ts'
import type { Stored } from './cache.ts'
import { Captives } from './captured.ts'
import { type Claim, claimOf } from './claim.ts'
import { Ended } from './ended.ts'
import { createFlight, type Flight, issueOnce } from './flight.ts'
import { attachHeld, type Bare, type Cause, emptyLease, type Held, type LeaseEnd, resend } from './held.ts'
import { type IssueRooms, issueShared, readShared, type Unused } from './issue.ts'
import type { Fate, Lease } from './lease.ts'
import { Near } from './near.ts'
import { acquireOnce } from './once.ts'
import { standingIn } from './placeholder.ts'
import { openPurged, revokeUnused } from './revoke.ts'
import type { LeaseRooms } from './rooms.ts'
import { createSeal, type Seal } from './seal.ts'

export interface Leases {
  /**
   * The lease for a permitted call; without a promise when this process holds the credential already.
   * @throws {GatewayError} `credential_unconfigured`, `credential_unavailable`, `credential_rejected`, `credential_too_wide`,
   *   `grant_revoked`, `grant_expired`, `audit_unavailable`, `draining`, `foreign_credential`: thrown or as rejection.
   * @param inbound a placeholder in it is replaced by what it stands for, instead of our own credential.
   */
  acquire(permit: Permit, receipt: Receipt, inbound?: Inbound): Lease | Promise<Lease>
  /** The grant has ended: drop its credentials everywhere and revoke them where their issuer offers it. Never rejects. */
  purge(grant: Grant): Promise<void>
  /** Stop issuing, wait for revocations under way (at most 5 s), forget every credential. */
  close(): Promise<void>
}

/** Milliseconds between two attempts to renew, and between two sweeps of what has ended. */
const RENEWAL_PAUSE_MS = 5_000
const SWEEP_MS = 30_000

/** A credential this young that replaced a rejected one is not replaced again: the fault is not its age. */
const REPLACED_RECENTLY_MS = 30_000

const MAX_GRANTS = 10_000

export function createLeases(rooms: LeaseRooms): Leases {
  return new CachedLeases(rooms)
}

class CachedLeases implements Leases, LeaseEnd {
  readonly #rooms: LeaseRooms
  readonly #seal: Seal
  readonly #near: Near
  readonly #flight: Flight<Held>
  readonly #issue: IssueRooms
  readonly #closing = new AbortController()
  /** Requests that were already sent twice, and with what the second time. */
  readonly #replayed = new WeakMap<Outbound, Held | null>()
  readonly #burns: Burns
  readonly #captives: Captives
  readonly #ended: Ended
  /** Revocations under way. */
  readonly #revocations = new Set<Promise<void>>()
  readonly #sweeper: NodeJS.Timeout

  constructor(rooms: LeaseRooms) {
    this.#rooms = rooms
    this.#seal = createSeal(rooms.sealKey)
    this.#near = new Near(rooms.clock, MAX_GRANTS)
    this.#flight = createFlight(rooms.clock)
    this.#burns = new Burns(rooms.clock)
    this.#ended = new Ended(rooms.clock)
    this.#captives = new Captives({ ...rooms, seal: this.#seal, ended: this.#ended })
    this.#issue = {
      cache: rooms.cache,
      seal: this.#seal,
      clock: rooms.clock,
      record: rooms.record,
      timeoutMs: rooms.timing?.issueTimeoutMs ?? 10_000,
      closing: this.#closing.signal,
      isEnded: (grant) => this.#ended.has(grant),
      discard: (unused) => this.#revoke(unused),
    }
    rooms.cache.onPurge((grant) => this.#purgedElsewhere(grant))
    rooms.cache.onBurn((grant, credentialId) => this.#near.forget(grant, credentialId))
    this.#sweeper = setInterval(() => this.#sweep(), SWEEP_MS).unref()
  }

  acquire(permit: Permit, _receipt: Receipt, inbound?: Inbound): Lease | Promise<Lease> {
    const standing = inbound && standingIn(inbound, permit.endpoint.service)
    const lease = standing === undefined ? this.#ours(permit) : this.#captives.lease(permit, standing)
    return permit.endpoint.operation.returnsSecret ? this.#capturing(lease, permit) : lease
  }

  async purge(grant: Grant): Promise<void> {
    this.#ended.add(grant.id)
    this.#captives.forget(grant.id)
    const near = this.#near.take(grant.id)
    // A store that is away keeps sealed values until they expire; no call reaches them, because grants are checked first.
    const far = await this.#rooms.cache.purge(grant.id).catch((): readonly Stored[] => [])
    const unused = new Map<string, Unused>()
    for (const stored of far) {
      const opened = openPurged(stored, grant, { seal: this.#seal, providers: this.#rooms.providers })
      if (opened !== undefined) unused.set(opened.credentialId, opened)
    }
    for (const held of near) unused.set(held.credentialId, { ...held, reason: 'grant_ended' }) // it knows the service too
    await Promise.all([...unused.values()].map((one) => this.#revoke(one)))
  }

  async close(): Promise<void> {
    clearInterval(this.#sweeper)
    this.#closing.abort()
    await Promise.allSettled(this.#revocations)
    this.#near.clear()
    await this.#rooms.cache.close()
  }

  /** LeaseEnd: the upstream answered 401 to this credential. */
  async reissue(held: Bare, plain: Outbound, answer: AnswerHead): Promise<Outbound | null> {
    if (this.#replayed.has(plain)) return null
    this.#replayed.set(plain, null)
    if (held.claim.provider.accommodates?.(held.credential, answer)) return attachHeld(held, plain)
    return resend(held, plain, async () => {
      const next = await this.#replace(held)
      this.#replayed.set(plain, next)
      return next
    })
  }

  /** LeaseEnd: it came back in the answer. A standing key can only be reported. */
  burn(held: Bare, plain: Outbound): Fate {
    for (const one of [held, this.#replayed.get(plain)]) {
      if (one != null && fateOf(one) !== 'standing' && this.#burns.note(one)) this.#drop(one)
    }
    return fateOf(held)
  }

  /** LeaseEnd: others may be using it. */
  release(): void {}

  #ours(permit: Permit): Lease | Promise<Lease> {
    const { grant, endpoint, decision } = permit
    const { service } = endpoint
    if (service.credential === undefined || service.slots.length === 0) return emptyLease(grant)
    const { ttlS } = decision.obligations
    if (isSingleUse(decision)) return acquireOnce(this.#issue, this.#claim(permit))
    const role = this.#rooms.providers.get(service.credential)?.role?.(endpoint, grant)
    const held = this.#near.find(grant, service, ttlS, role)
    if (held === undefined) return this.#acquireFar(this.#claim(permit))
    if (this.#rooms.clock.nowMs() >= held.renewAtMs) this.#renew(held, grant)
    return held.hit
  }

  async #capturing(lease: Lease | Promise<Lease>, permit: Permit): Promise<Lease> {
    return this.#captives.capturing(await lease, permit)
  }

  #claim(permit: Permit): Claim {
    const claim = claimOf(permit, this.#rooms.providers, this.#seal.macKey)
    this.#ended.requireLiving(claim.grant)
    return claim
  }

  async #acquireFar(claim: Claim): Promise<Lease> {
    this.#burns.requireCalm(claim)
    const held = await this.#obtain(claim, 'needed')
    return held.isFresh ? held.miss : held.hit
  }

  /** One issue per key at a time; never the credential `instead` of which another one is wanted, unless the issuer gives it again. */
  #obtain(claim: Claim, cause: Cause, instead?: Bare): Promise<Held> {
    const issue = this.#issue
    const read = async (): Promise<Held | undefined> => {
      const held = await readShared(issue, claim, this)
      if (held === undefined || this.#burns.isBurnt(held.credentialId)) return undefined
      return held.credentialId === instead?.credentialId ? undefined : held
    }
    return this.#flight.run(claim.key.id, async () => {
      // Inside the flight: whoever asks meanwhile joins it and cannot take the rejected credential from the cache again.
      if (cause === 'rejected' && instead?.sealed !== undefined) {
        await issue.cache.remove(claim.key, instead.sealed).catch(() => undefined)
      }
      const held = await issueOnce({
        cache: issue.cache,
        key: claim.key,
        lockMs: issue.timeoutMs + 2_000,
        patienceMs: this.#rooms.timing?.patienceMs ?? 2_000,
        signal: issue.closing,
        read,
        issue: (fence) => issueShared(issue, claim, { cause, end: this, fence }),
      })
      if (this.#ended.has(claim.grant.id)) {
        // Purged between storing and here: the purge has seen the shared value, so nothing more than refusing is left to do.
        if (held.sealed === undefined) this.#revoke({ ...held, reason: 'grant_ended' })
        throw new GatewayError('grant_revoked', 'The task ended while a credential was being issued for it.')
      }
      this.#near.put(held)
      return held
    })
  }

  /** Refresh ahead: the current credential serves until the new one is there; a failure is tried again until it ends. */
  #renew(held: Held, grant: Grant): void {
    held.renewAtMs = this.#rooms.clock.nowMs() + RENEWAL_PAUSE_MS
    this.#obtain({ ...held.claim, grant }, 'renewal', held).catch(() => undefined)
  }

  async #replace(held: Bare): Promise<Held | null> {
    const { claim } = held
    const current = this.#near.find(claim.grant, claim.service, claim.ttlS, claim.role)
    if (current !== undefined && current.credentialId !== held.credentialId) return current
    const ageMs = this.#rooms.clock.elapsedMs() - held.sinceElapsedMs
    if (held.cause === 'rejected' && ageMs < REPLACED_RECENTLY_MS) return null
    if (current !== undefined) this.#near.remove(current)
    return this.#obtain(claim, 'rejected', held)
  }

  #drop(held: Bare): void {
    const { claim, credentialId, sealed } = held
    this.#near.forget(claim.grant.id, credentialId)
    // A store that is away keeps it until it expires; `isBurnt` keeps this replica from reading it again.
    this.#rooms.cache.burn(claim.key, sealed, credentialId).catch(() => undefined)
    void this.#revoke({ ...held, reason: 'leaked' })
  }

  #revoke(unused: Unused): Promise<void> {
    const revocation = revokeUnused(unused, this.#rooms)
    this.#revocations.add(revocation)
    return revocation.finally(() => this.#revocations.delete(revocation))
  }

  /** Another replica ended the grant and revoked what was shared; what only this one knew is left to this one. */
  #purgedElsewhere(grant: string): void {
    this.#ended.add(grant)
    this.#captives.forget(grant)
    for (const held of this.#near.take(grant)) {
      if (held.sealed === undefined) this.#revoke({ ...held, reason: 'grant_ended' })
    }
  }

  #sweep(): void {
    this.#near.sweep()
    this.#burns.sweep()
    this.#captives.sweep()
    this.#ended.sweep()
  }
}
