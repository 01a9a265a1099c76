/**
 * Credentials that are to be ended at their issuers: each is written down first, tried at once, and tried again until it is ended or
 * has ended by itself, also by the process that comes after this one. State is written only by this class.
 */
import type { Clock } from '../protocol/clock.ts'
import type { Grant } from '../protocol/grant.ts'
import type { Provider } from '../provider/provider.ts'
import { backoffMs } from './backoff.ts'
import { MAX_ASKED_MS } from './breaker.ts'
import type { Custody, CustodyRow } from './custody.ts'
import type { RecordLease } from './record.ts'
import { isRevocable, type Reason, recordRevocation, revokeUpstream, type Unused } from './revoke.ts'
import type { Seal } from './seal.ts'
import { Turns } from './turns.ts'

const RETRY = { baseMs: 1_000, maxMs: 60_000 } as const

/** Requests at once: the end of a task can end hundreds of credentials. */
const AT_ONCE = 16
const CLOSE_MS = 5_000
/** Longest time that a timer knows. */
const PATIENCE_MS = 2_147_483_647

export interface RevocationRooms {
  readonly custody: Custody
  readonly seal: Seal
  readonly clock: Clock
  readonly record: RecordLease
  readonly providers: ReadonlyMap<string, Provider>
  /** In [0, 1). */
  readonly random: () => number
}

/** A credential whose issuer has not confirmed its end yet. */
export interface PendingRevocation {
  readonly unused: Unused
  readonly attempts: number
  /** Milliseconds since the epoch. */
  readonly dueMs: number
}

interface Order {
  readonly unused: Unused
  attempts: number
  dueMs: number
  isUnderway: boolean
}

export class Revocations {
  readonly #rooms: RevocationRooms
  /** grant id and credential id → what is to be done */
  readonly #orders = new Map<string, Order>()
  /** The same → when it would have expired: whoever finds it again, such as the call that was using it, has nothing left to do. */
  readonly #ended = new Map<string, number>()
  readonly #underway = new Set<Promise<void>>()
  readonly #turns = new Turns({ atOnce: AT_ONCE, renewals: AT_ONCE })
  #timer: NodeJS.Timeout | undefined
  #isClosed = false

  /** Takes up what the process before this one left: what it had to end, and what it held when it was killed. */
  constructor(rooms: RevocationRooms) {
    this.#rooms = rooms
    const nowMs = rooms.clock.nowMs()
    for (const row of rooms.custody.all()) {
      const isHeldElsewhere = row.reason === null && (row.sharedUntilMs ?? 0) > nowMs
      const unused = isHeldElsewhere ? undefined : this.#opened(row, 'abandoned')
      if (unused === undefined) continue
      this.#orders.set(idOf(unused), { unused, attempts: row.attempts, dueMs: row.dueMs, isUnderway: false })
    }
    this.#schedule()
  }

  /** Those that were ordered and are not confirmed. */
  get pending(): readonly PendingRevocation[] {
    return [...this.#orders.values()]
  }

  /** A credential has been issued, and the next process has to end it if this one is killed. */
  keep(held: Omit<Unused, 'reason'>): void {
    if (isRevocable(held)) this.#write({ ...held, reason: 'abandoned' }, null, { attempts: 0, dueMs: 0 })
  }

  /** Whoever ends its grant until then finds it in the shared cache. */
  shared({ claim, credentialId }: Pick<Unused, 'claim' | 'credentialId'>, untilMs: number): void {
    attempt(() => this.#rooms.custody.share(claim.grant.id, credentialId, untilMs))
  }

  /** In use under this grant; `unshared`: without those that are in the shared cache. */
  inUse(grant: string, which: 'all' | 'unshared'): readonly Unused[] {
    const nowMs = this.#rooms.clock.nowMs()
    const rows = attempt(() => this.#rooms.custody.inUse(grant)) ?? []
    return rows
      .filter(({ sharedUntilMs, expiresMs }) => expiresMs > nowMs && (which === 'all' || (sharedUntilMs ?? 0) <= nowMs))
      .flatMap((row) => this.#opened(row, 'grant_ended') ?? [])
  }

  /** The same by credential, under whatever grant. */
  named(ids: ReadonlySet<string>): readonly Unused[] {
    const nowMs = this.#rooms.clock.nowMs()
    const rows = attempt(() => this.#rooms.custody.all()) ?? []
    return rows
      .filter(({ credentialId, expiresMs }) => ids.has(credentialId) && expiresMs > nowMs)
      .flatMap((row) => this.#opened(row, 'leaked') ?? [])
  }

  /** Somebody else ends these. */
  leave(grant: string): void {
    for (const { credentialId } of attempt(() => this.#rooms.custody.inUse(grant)) ?? [])
      attempt(() => this.#rooms.custody.drop(grant, credentialId))
  }

  /** End it. Resolves after the first attempt; never rejects. */
  async order(unused: Unused): Promise<void> {
    const { clock } = this.#rooms
    if (!isRevocable(unused)) {
      await recordRevocation(unused, 'expires', { ...this.#rooms, startedMs: clock.elapsedMs() })
      return
    }
    const id = idOf(unused)
    if (this.#orders.has(id) || this.#ended.has(id)) return
    const order: Order = { unused, attempts: 0, dueMs: clock.nowMs(), isUnderway: false }
    // Written before the first attempt: a crash from here on leaves it to the next process.
    this.#write(unused, unused.reason, order)
    this.#orders.set(id, order)
    await this.#begin(order)
  }

  sweep(): void {
    const nowMs = this.#rooms.clock.nowMs()
    attempt(() => this.#rooms.custody.sweep(nowMs))
    for (const [id, untilMs] of this.#ended) if (untilMs <= nowMs) this.#ended.delete(id)
  }

  /** Wait for attempts under way, 5 s at most; what is left is for the next process. */
  async close(): Promise<void> {
    this.#isClosed = true
    clearTimeout(this.#timer)
    const { promise: late, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, CLOSE_MS)
    await Promise.race([Promise.allSettled(this.#underway), late])
    clearTimeout(timer)
    this.#rooms.custody.close()
  }

  #begin(order: Order): Promise<void> {
    order.isUnderway = true
    const work = this.#try(order).finally(() => {
      order.isUnderway = false
      this.#underway.delete(work)
      this.#schedule()
    })
    this.#underway.add(work)
    return work
  }

  async #try(order: Order): Promise<void> {
    const { clock } = this.#rooms
    using _turn = await this.#turns.take(false, PATIENCE_MS)
    if (this.#isClosed && order.attempts > 0) return // the next process has it
    const startedMs = clock.elapsedMs()
    if (order.unused.credential.expiresAt * 1000 <= clock.nowMs()) return this.#end(order, 'expired', startedMs)
    const attempted = await revokeUpstream(order.unused)
    if (attempted.outcome === 'revoked') return this.#end(order, 'revoked', startedMs)
    order.attempts += 1
    const askedMs = Math.min(attempted.retryAfterMs ?? 0, MAX_ASKED_MS)
    const waitMs = Math.max(askedMs, backoffMs(order.attempts, this.#rooms.random(), RETRY))
    // Its own end is the last moment at which there is something to say of it.
    order.dueMs = Math.min(clock.nowMs() + waitMs, order.unused.credential.expiresAt * 1000)
    this.#write(order.unused, order.unused.reason, order)
    if (order.attempts === 1) await recordRevocation(order.unused, 'failed', { ...this.#rooms, startedMs })
  }

  async #end(order: Order, outcome: 'revoked' | 'expired', startedMs: number): Promise<void> {
    const { unused } = order
    // A crash before the row is gone revokes once more, which issuers take for done (RFC 7009 §2.2).
    await recordRevocation(unused, outcome, { ...this.#rooms, startedMs })
    this.#orders.delete(idOf(unused))
    this.#ended.set(idOf(unused), unused.credential.expiresAt * 1000)
    attempt(() => this.#rooms.custody.drop(unused.claim.grant.id, unused.credentialId))
  }

  #schedule(): void {
    clearTimeout(this.#timer)
    if (this.#isClosed) return
    const dueMs = Math.min(...[...this.#orders.values()].flatMap((one) => (one.isUnderway ? [] : one.dueMs)))
    if (!Number.isFinite(dueMs)) return
    const waitMs = Math.min(Math.max(0, dueMs - this.#rooms.clock.nowMs()), RETRY.maxMs)
    this.#timer = setTimeout(() => this.#due(), waitMs).unref()
  }

  #due(): void {
    const nowMs = this.#rooms.clock.nowMs()
    for (const order of this.#orders.values()) if (!order.isUnderway && order.dueMs <= nowMs) void this.#begin(order)
    this.#schedule()
  }

  #write(unused: Unused, reason: Reason | null, { attempts, dueMs }: Pick<Order, 'attempts' | 'dueMs'>): void {
    const { custody, seal } = this.#rooms
    const { claim, credential, credentialId } = unused
    const { grant, name, provider, service } = claim
    const place = `custody ${idOf(unused)}`
    const ends = { expiresAt: credential.expiresAt, sinceMs: 0, untilMs: 0, renewAtMs: 0 }
    const sealable = {
      tenant: grant.tenant,
      name,
      identity: provider.identity,
      service: service.name,
      scope: undefined,
    }
    const { secret, parts, ephemeral } = credential
    // A disk that fails takes away the next process's part; this one does its own all the same.
    attempt(() =>
      custody.put({
        grant: grant.id,
        credentialId,
        value: seal.seal(place, { ...sealable, ...ends, secret, parts, ephemeral }),
        note: seal.sealText(place, JSON.stringify({ grant, provider: provider.name })),
        expiresMs: credential.expiresAt * 1000,
        sharedUntilMs: null,
        ...{ reason, attempts, dueMs },
      }),
    )
  }

  /** Undefined: it was sealed under another key, so it ends by expiring. */
  #opened(row: CustodyRow, otherwise: Reason): Unused | undefined {
    const { seal, providers } = this.#rooms
    const place = `custody ${row.grant} ${row.credentialId}`
    const value = seal.open(place, Buffer.from(row.value))
    const note = seal.openText(place, Buffer.from(row.note))
    if (value === undefined || note === undefined) return undefined
    const { grant, provider } = JSON.parse(note) as { grant: Grant; provider: string }
    const { secret, parts, expiresAt, ephemeral, name, identity, service } = value
    return {
      claim: { name, grant, service: { name: service }, provider: issuerOf(providers.get(name), provider, identity) },
      credential: { secret, ...(parts && { parts }), expiresAt, ephemeral },
      credentialId: row.credentialId,
      reason: (row.reason as Reason | null) ?? otherwise,
    }
  }
}

/** Settings may have given the name to another issuer since: what one issued is shown to no other. */
export function issuerOf(provider: Provider | undefined, name: string, identity: string): Unused['claim']['provider'] {
  if (provider?.name === name && provider.identity === identity) return provider
  return { name, identity, revoke: () => Promise.reject(new TypeError('not its issuer')) }
}

function idOf({ claim, credentialId }: Pick<Unused, 'claim' | 'credentialId'>): string {
  return `${claim.grant.id} ${credentialId}`
}

function attempt<T>(work: () => T): T | undefined {
  try {
    return work()
  } catch {
    return undefined
  }
}
