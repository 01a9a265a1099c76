/**
 * Leases: the credential for a permitted and recorded call, from this process, from the shared cache, or from its issuer;
 * renewed before it ends, replaced once when the upstream rejects it, gone with its grant.
 */
import type { Receipt } from '../audit/entries/event.ts'
import type { Permit } from '../policy/decision.ts'
import { isSingleUse } from '../protocol/decision.ts'
import type { Grant } from '../protocol/grant.ts'
import type { AnswerHead, Inbound, Outbound } from '../protocol/message.ts'
import { asGatewayError } from '../protocol/problem.ts'
import type { Secret } from '../protocol/secret.ts'
import { Burns, fateOf } from './burn.ts'
import { ENDED_MS } from './cache.ts'
import { Captives } from './captured.ts'
import { type Claim, claimsOf, requireNarrow, type Sources } from './claim.ts'
import { openCustody } from './custody.ts'
import { Ended } from './ended.ts'
import { Endings, type RevocationOrder } from './endings.ts'
import { Failures } from './failures.ts'
import { attachHeld, type Bare, emptyLease, type Held, type LeaseEnd, resend } from './held.ts'
import type { IssueRooms } from './issue.ts'
import { type IssuerState, Issuers } from './issuers.ts'
import type { Fate, Lease } from './lease.ts'
import { Near } from './near.ts'
import { acquireOnce } from './once.ts'
import { standingIn } from './placeholder.ts'
import { type PendingRevocation, Revocations } from './revocations.ts'
import type { Unused } from './revoke.ts'
import type { LeaseRooms } from './rooms.ts'
import { createSeal, type Seal } from './seal.ts'
import { SetBacks } from './set-back.ts'
import { Supply } from './supply.ts'

export interface Leases {
  /**
   * The lease for a permitted call; without a promise when this process holds the credential already.
   * @throws {GatewayError} `credential_unconfigured`, `credential_unavailable`, `credential_rejected`, `credential_too_wide`,
   *   `grant_revoked`, `grant_expired`, `audit_unavailable`, `draining`, `foreign_credential`: thrown or as rejection.
   * @param inbound a placeholder in it is replaced by what it stands for, instead of our own credential.
   */
  acquire(permit: Permit, receipt: Receipt, inbound?: Inbound): Lease | Promise<Lease>
  /** Whether this process holds the credential for such a call already. */
  holds(permit: Permit): boolean
  /**
   * The grant has ended: drop its credentials everywhere and revoke them where their issuer offers it. Never rejects.
   * @returns how many.
   */
  purge(grant: Grant): Promise<number>
  /**
   * Drop and revoke credentials of living grants, which may go on and get others. Never rejects.
   * @returns how many.
   */
  revoke(order: RevocationOrder): Promise<number>
  /** Names a credential as the log does (`cred_id`). */
  credentialId(secret: Secret): string
  /** Credentials by their ids, as far as they live: at this process, or shared under one of these grants. @throws when those cannot be read */
  known(ids: ReadonlySet<string>, grants: readonly Grant[]): Promise<readonly Unused[]>
  /** One of these was found where it may not be: nobody uses it any more, and it is revoked where its issuer offers that. Never rejects. */
  stray(unused: Unused): Promise<void>
  /** What was to be revoked and is not yet; it is not used any more, and lives until it ends. */
  readonly pending: readonly PendingRevocation[]
  readonly state: LeasesState
  /** Stop issuing, wait for revocations under way (at most 5 s), forget every credential. */
  close(): Promise<void>
}

export interface LeasesState {
  readonly issuers: readonly IssuerState[]
  readonly pendingRevocations: number
  /** Credentials that were found in the shared cache since the start. */
  readonly found: number
}

const SWEEP_MS = 30_000
/** How often it is looked whether the clock was set back. */
const CLOCK_MS = 1_000

/** A credential this young that replaced a rejected one is not replaced again: the fault is not its age. */
const REPLACED_RECENTLY_MS = 30_000

const MAX_GRANTS = 10_000

export function createLeases(rooms: LeaseRooms): Leases {
  return new CachedLeases(rooms)
}

class CachedLeases implements Leases, LeaseEnd {
  readonly #rooms: LeaseRooms
  readonly #seal: Seal
  readonly #sources: Sources
  readonly #near: Near
  readonly #issue: IssueRooms
  readonly #issuers: Issuers
  readonly #supply: Supply
  readonly #failures: Failures
  readonly #revocations: Revocations
  readonly #closing = new AbortController()
  /** Requests that were already sent twice, and with what the second time. */
  readonly #replayed = new WeakMap<Outbound, Held | null>()
  /** Requests whose credential came back, perhaps more than once. */
  readonly #leaky = new WeakSet<Outbound>()
  readonly #burns: Burns
  readonly #captives: Captives
  readonly #ended: Ended
  readonly #endings: Endings
  readonly #timers: readonly NodeJS.Timeout[]

  constructor(rooms: LeaseRooms) {
    const { clock, cache, record, providers, random = Math.random, timing } = rooms
    const timeoutMs = timing?.issueTimeoutMs ?? 10_000
    const lockMs = timing?.lockMs ?? 2_000
    this.#rooms = rooms
    this.#seal = createSeal(rooms.sealKey)
    const seal = this.#seal
    this.#sources = { providers, fallbacks: rooms.fallbacks ?? new Map(), macKey: seal.macKey }
    this.#near = new Near(clock, MAX_GRANTS)
    this.#burns = new Burns(clock)
    this.#ended = new Ended(clock)
    const setBacks = rooms.setBacks ?? new SetBacks(clock)
    this.#captives = new Captives({ ...rooms, seal, ended: this.#ended, setBacks })
    this.#failures = new Failures(clock)
    const custody = openCustody(rooms.custodyFile)
    this.#revocations = new Revocations({ custody, seal, clock, record, providers, random })
    const failures = this.#failures
    this.#issuers = new Issuers({ clock, random, failures, limits: rooms.limits, patienceMs: timeoutMs })
    this.#issue = {
      ...{ cache, seal, clock, record, failures, setBacks, timeoutMs },
      issuers: this.#issuers,
      revocations: this.#revocations,
      closing: this.#closing.signal,
      isEnded: (grant) => this.#ended.has(grant),
      discard: (unused) => void this.#revocations.order(unused),
    }
    // Whoever holds the lock may wait for its turn, and then for the issuer.
    const patienceMs = 2 * timeoutMs + lockMs
    const parts = { issue: this.#issue, near: this.#near, burns: this.#burns, clock, end: this }
    this.#supply = new Supply({ ...parts, lockMs, patienceMs })
    const known = { near: this.#near, captives: this.#captives, ended: this.#ended, revocations: this.#revocations }
    this.#endings = new Endings({ cache, seal, providers, ...known })
    this.#timers = [
      setInterval(() => this.#sweep(), SWEEP_MS).unref(),
      setInterval(() => setBacks.look(), CLOCK_MS).unref(),
    ]
  }

  get pending(): readonly PendingRevocation[] {
    return this.#revocations.pending
  }

  get state(): LeasesState {
    return { issuers: this.#issuers.states(), pendingRevocations: this.pending.length, found: this.#supply.found }
  }

  acquire(permit: Permit, _receipt: Receipt, inbound?: Inbound): Lease | Promise<Lease> {
    const standing = inbound && standingIn(inbound, permit.endpoint.service)
    const lease = standing === undefined ? this.#ours(permit) : this.#captives.lease(permit, standing)
    return permit.endpoint.operation.returnsSecret ? this.#capturing(lease, permit) : lease
  }

  holds(permit: Permit): boolean {
    const { service } = permit.endpoint
    return service.credential === undefined || service.slots.length === 0 || this.#held(permit) !== undefined
  }

  purge(grant: Grant): Promise<number> {
    return this.#endings.purge(grant)
  }

  revoke(order: RevocationOrder): Promise<number> {
    return this.#endings.revoke(order)
  }

  credentialId(secret: Secret): string {
    return this.#seal.credentialId(secret)
  }

  known(ids: ReadonlySet<string>, grants: readonly Grant[]): Promise<readonly Unused[]> {
    return this.#endings.known(ids, grants)
  }

  stray(unused: Unused): Promise<void> {
    this.#burns.ban(unused.credentialId, ENDED_MS)
    return this.#endings.stray(unused)
  }

  async close(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer)
    this.#closing.abort()
    await this.#revocations.close()
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
      if (one != null && fateOf(one) !== 'standing' && this.#burns.note(one)) this.#endings.leaked(one)
    }
    if (!this.#leaky.has(plain)) this.#rooms.onLeak?.(held.claim.grant)
    this.#leaky.add(plain)
    return fateOf(held)
  }

  /** LeaseEnd: others may be using it. */
  release(): void {}

  #ours(permit: Permit): Lease | Promise<Lease> {
    const { grant, endpoint, decision } = permit
    const { service } = endpoint
    if (service.credential === undefined || service.slots.length === 0) return emptyLease(grant)
    if (isSingleUse(decision)) return this.#acquireFar(permit, (claim) => acquireOnce(this.#issue, claim))
    const held = this.#held(permit)
    if (held === undefined) return this.#acquireFar(permit, (claim) => this.#acquireShared(claim))
    if (this.#rooms.clock.nowMs() >= held.renewAtMs) this.#supply.renew(held, grant)
    return held.hit
  }

  #held(permit: Permit): Held | undefined {
    const { grant, endpoint, decision } = permit
    const { service } = endpoint
    const provider = this.#rooms.providers.get(service.credential ?? '')
    if (provider !== undefined) requireNarrow(provider, permit)
    const role = provider?.role?.(endpoint, grant)
    return this.#near.find(grant, service, decision.obligations.ttlS, role)
  }

  async #capturing(lease: Lease | Promise<Lease>, permit: Permit): Promise<Lease> {
    return this.#captives.capturing(await lease, permit)
  }

  /** From the issuer of first choice, or while that is away from whoever stands in for it. */
  async #acquireFar(permit: Permit, acquire: (claim: Claim) => Promise<Lease>): Promise<Lease> {
    let away: unknown
    for (const claim of claimsOf(permit, this.#sources)) {
      this.#ended.requireLiving(claim.grant)
      try {
        this.#rooms.requireOpen?.(claim.name)
        return await acquire(claim)
      } catch (cause) {
        if (asGatewayError(cause).code !== 'credential_unavailable') throw away ?? cause
        away ??= cause // what the operator has to look at first
      }
    }
    throw away
  }

  async #acquireShared(claim: Claim): Promise<Lease> {
    this.#burns.requireCalm(claim)
    const standIn = claim.name === claim.service.credential ? undefined : this.#near.at(claim)
    if (standIn !== undefined) return standIn.hit
    const held = await this.#supply.obtain(claim, 'needed')
    return held.isFresh ? held.miss : held.hit
  }

  async #replace(held: Bare): Promise<Held | null> {
    const { claim } = held
    const current = this.#near.at(claim)
    if (current !== undefined && current.credentialId !== held.credentialId) return current
    const ageMs = this.#rooms.clock.elapsedMs() - held.sinceElapsedMs
    if (held.cause === 'rejected' && ageMs < REPLACED_RECENTLY_MS) return null
    if (current !== undefined) this.#near.remove(current)
    return this.#supply.obtain(claim, 'rejected', held)
  }

  #sweep(): void {
    this.#near.sweep()
    this.#burns.sweep()
    this.#captives.sweep()
    this.#ended.sweep()
    this.#failures.sweep()
    this.#revocations.sweep()
  }
}
