/**
 * Leases: the credential for a permitted and recorded call, from this process, from the shared cache, or from its issuer;
 * renewed before it ends, replaced once when the upstream rejects it, gone with its grant.
 */
import type { KeyObject } from 'node:crypto'
import type { Receipt } from '../audit/event.ts'
import type { Permit } from '../policy/decision.ts'
import type { Clock } from '../protocol/clock.ts'
import { isSingleUse } from '../protocol/decision.ts'
import type { Grant } from '../protocol/grant.ts'
import type { Outbound } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { Provider } from '../provider/provider.ts'
import { ENDED_MS, type LeaseCache, type Stored } from './cache.ts'
import { type Claim, claimOf } from './claim.ts'
import { createFlight, type Flight, issueOnce } from './flight.ts'
import { type Bare, type Cause, emptyLease, type Held, type LeaseEnd, resend } from './held.ts'
import { type IssueRooms, issueShared, type RecordLease, readShared, type Unused } from './issue.ts'
import type { Lease } from './lease.ts'
import { Near } from './near.ts'
import { acquireOnce } from './once.ts'
import { revokeUnused } from './revoke.ts'
import { createSeal, type Seal } from './seal.ts'

export interface LeaseTiming {
  /** Milliseconds that a provider may take. Default 10,000. */
  readonly issueTimeoutMs: number
  /** Milliseconds to wait for another replica's issue before issuing as well. Default 2,000. */
  readonly patienceMs: number
}

export interface LeaseRooms {
  /** By `Service.credential`. */
  readonly providers: ReadonlyMap<string, Provider>
  readonly cache: LeaseCache
  /** 32-byte secret key, the same on all replicas. */
  readonly sealKey: KeyObject
  readonly clock: Clock
  /** Resolves when the entry is durable. */
  readonly record: RecordLease
  readonly timing?: Partial<LeaseTiming>
}

export interface Leases {
  /**
   * The lease for a permitted call; without a promise when this process holds the credential already.
   * @throws {GatewayError} `credential_unconfigured`, `credential_unavailable`, `credential_rejected`, `credential_too_wide`,
   *   `grant_revoked`, `grant_expired`, `audit_unavailable`, `draining`: thrown or as rejection.
   */
  acquire(permit: Permit, receipt: Receipt): Lease | Promise<Lease>
  /** The grant has ended: drop its credentials everywhere and revoke them where their issuer offers it. Never rejects. */
  purge(grantId: string): Promise<void>
  /** Stop issuing, wait for revocations under way (at most 5 s), forget every credential. */
  close(): Promise<void>
}

/** Milliseconds between two attempts to renew, and between two sweeps of what has ended. */
const RENEWAL_PAUSE_MS = 5_000
const SWEEP_MS = 30_000

/** A credential this young that replaced a rejected one is not replaced again: the fault is not its age. */
const REPLACED_RECENTLY_MS = 30_000

const MAX_GRANTS = 10_000

/** @returns the lease room; it owns its in-process credentials and one timer. */
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
  /** Requests that were already sent twice. */
  readonly #replayed = new WeakSet<Outbound>()
  /** grant id → when it may be forgotten that the grant was purged, monotonic ms */
  readonly #ended = new Map<string, number>()
  /** Revocations under way. */
  readonly #revocations = new Set<Promise<void>>()
  readonly #sweeper: NodeJS.Timeout

  constructor(rooms: LeaseRooms) {
    this.#rooms = rooms
    this.#seal = createSeal(rooms.sealKey)
    this.#near = new Near(rooms.clock, MAX_GRANTS)
    this.#flight = createFlight(rooms.clock)
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
    this.#sweeper = setInterval(() => this.#sweep(), SWEEP_MS).unref()
  }

  acquire(permit: Permit, _receipt: Receipt): Lease | Promise<Lease> {
    const { grant, endpoint, decision } = permit
    const { service } = endpoint
    if (service.credential === undefined || service.slots.length === 0) return emptyLease(grant)
    const { ttlS } = decision.obligations
    if (isSingleUse(decision)) return acquireOnce(this.#issue, this.#claim(permit))
    const held = this.#near.find(grant, service, ttlS)
    if (held === undefined) return this.#acquireFar(this.#claim(permit))
    if (this.#rooms.clock.nowMs() >= held.renewAtMs) this.#renew(held, grant)
    return held.hit
  }

  async purge(grantId: string): Promise<void> {
    this.#end(grantId)
    const near = this.#near.take(grantId)
    // A store that is away keeps sealed values until they expire; no call reaches them, because grants are checked first.
    const far = await this.#rooms.cache.purge(grantId).catch((): readonly Stored[] => [])
    const unused = new Map<string, Unused>()
    for (const held of near) unused.set(held.credentialId, { ...held, reason: 'grant_ended' })
    for (const stored of far) {
      const opened = this.#openPurged(stored)
      if (opened !== undefined) unused.set(opened.credentialId, opened)
    }
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
  async reissue(held: Bare, plain: Outbound): Promise<Outbound | null> {
    if (this.#replayed.has(plain)) return null
    this.#replayed.add(plain)
    return resend(held, plain, () => this.#replace(held))
  }

  /** LeaseEnd: others may be using it. */
  release(): void {}

  #claim(permit: Permit): Claim {
    const claim = claimOf(permit, this.#rooms.providers, this.#seal.macKey)
    if (this.#ended.has(claim.grant.id)) throw new GatewayError('grant_revoked', 'The task of this grant has ended.')
    return claim
  }

  async #acquireFar(claim: Claim): Promise<Lease> {
    const held = await this.#obtain(claim, 'needed')
    return held.isFresh ? held.miss : held.hit
  }

  /** One issue per key at a time; never the credential `instead` of which another one is wanted, unless the issuer gives it again. */
  #obtain(claim: Claim, cause: Cause, instead?: Bare): Promise<Held> {
    const issue = this.#issue
    const read = async (): Promise<Held | undefined> => {
      const held = await readShared(issue, claim, this)
      return held?.credentialId === instead?.credentialId ? undefined : held
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
    const current = this.#near.find(claim.grant, claim.service, claim.ttlS)
    if (current !== undefined && current.credentialId !== held.credentialId) return current
    const ageMs = this.#rooms.clock.elapsedMs() - held.sinceElapsedMs
    if (held.cause === 'rejected' && ageMs < REPLACED_RECENTLY_MS) return null
    if (current !== undefined) this.#near.remove(current)
    return this.#obtain(claim, 'rejected', held)
  }

  #revoke(unused: Unused): Promise<void> {
    const revocation = revokeUnused(unused, this.#rooms.record)
    this.#revocations.add(revocation)
    return revocation.finally(() => this.#revocations.delete(revocation))
  }

  #openPurged({ key, value }: Stored): Unused | undefined {
    const opened = this.#seal.open(key.id, value)
    const provider = opened && this.#rooms.providers.get(opened.name)
    if (opened === undefined || provider === undefined) return undefined
    const claim = { name: opened.name, provider, grant: { id: key.grant, tenant: opened.tenant } }
    const { secret, expiresAt, ephemeral } = opened
    const credentialId = this.#seal.credentialId(secret)
    return { claim, credential: { secret, expiresAt, ephemeral }, credentialId, reason: 'grant_ended' }
  }

  /** Another replica ended the grant and revoked what was shared; what only this one knew is left to this one. */
  #purgedElsewhere(grant: string): void {
    this.#end(grant)
    for (const held of this.#near.take(grant)) {
      if (held.sealed === undefined) this.#revoke({ ...held, reason: 'grant_ended' })
    }
  }

  #end(grant: string): void {
    this.#ended.set(grant, this.#rooms.clock.elapsedMs() + ENDED_MS)
  }

  #sweep(): void {
    this.#near.sweep()
    const nowMs = this.#rooms.clock.elapsedMs()
    for (const [grant, untilMs] of this.#ended) if (untilMs <= nowMs) this.#ended.delete(grant)
  }
}
