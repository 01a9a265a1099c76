/**
 * The lease cache of one process: sealed values in a bounded map. Life is counted on the clock that never goes back; each
 * value also carries its end in wall time, inside its seal. State is written only by this class.
 */
import type { Clock } from '../protocol/clock.ts'
import {
  digestOf,
  ENDED_MS,
  type LeaseCache,
  type LeaseKey,
  type Stored,
  type StoreOutcome,
  type StoreTerms,
} from './cache.ts'

interface Lock {
  readonly fence: number
  readonly untilMs: number
}

interface Kept extends Stored {
  readonly untilMs: number
}

/** Everything of one grant: what a purge takes away. */
interface Shelf {
  readonly values: Map<string, Kept>
  readonly locks: Map<string, Lock>
}

/** @param o.maxEntries values kept before the oldest grants are dropped. Default 10,000, about 10 MB. */
export function createMemoryCache(o: {
  readonly clock: Pick<Clock, 'elapsedMs'>
  readonly maxEntries?: number
}): LeaseCache {
  return new MemoryCache(o.clock, o.maxEntries ?? 10_000)
}

class MemoryCache implements LeaseCache {
  readonly isShared = false
  readonly #clock: Pick<Clock, 'elapsedMs'>
  readonly #maxEntries: number
  /** grant id → its values and locks, oldest grant first */
  readonly #shelves = new Map<string, Shelf>()
  /** grant id → when it may be forgotten that the grant was purged */
  readonly #ended = new Map<string, number>()
  readonly #listeners: Parameters<LeaseCache['onPurge']>[0][] = []
  readonly #burnListeners: ((grant: string, credentialId: string) => void)[] = []
  #entries = 0
  #lastFence = 0

  constructor(clock: Pick<Clock, 'elapsedMs'>, maxEntries: number) {
    this.#clock = clock
    this.#maxEntries = maxEntries
  }

  async get(key: LeaseKey): Promise<Buffer | undefined> {
    return this.#valid(key)?.value
  }

  async set(key: LeaseKey, value: Buffer, { ttlMs, fence }: StoreTerms): Promise<StoreOutcome> {
    const nowMs = this.#clock.elapsedMs()
    if ((this.#ended.get(key.grant) ?? 0) > nowMs) return 'ended'
    if (this.#isSuperseded(key, fence)) return 'superseded'
    if (this.#entries >= this.#maxEntries) this.#makeRoom(nowMs)
    const { values } = this.#shelf(key.grant)
    if (!values.has(key.id)) this.#entries += 1
    values.set(key.id, { key, value, untilMs: nowMs + ttlMs })
    return 'stored'
  }

  async remove(key: LeaseKey, value: Buffer): Promise<boolean> {
    const values = this.#shelves.get(key.grant)?.values
    if (values?.get(key.id)?.value.equals(value) !== true) return false
    values.delete(key.id)
    this.#entries -= 1
    return true
  }

  async burn(key: LeaseKey, value: Buffer | undefined, credentialId: string): Promise<void> {
    if (value !== undefined) await this.remove(key, value)
    for (const listener of this.#burnListeners) listener(key.grant, credentialId)
  }

  onBurn(listener: (grant: string, credentialId: string) => void): void {
    this.#burnListeners.push(listener)
  }

  async lock(key: LeaseKey, ttlMs: number): Promise<number | null> {
    const nowMs = this.#clock.elapsedMs()
    const { locks } = this.#shelf(key.grant)
    if ((locks.get(key.id)?.untilMs ?? 0) > nowMs) return null
    this.#lastFence += 1
    locks.set(key.id, { fence: this.#lastFence, untilMs: nowMs + ttlMs })
    return this.#lastFence
  }

  async extend(key: LeaseKey, fence: number, ttlMs: number): Promise<void> {
    const lock = this.#shelves.get(key.grant)?.locks.get(key.id)
    const nowMs = this.#clock.elapsedMs()
    if (lock?.fence === fence && lock.untilMs > nowMs)
      this.#shelf(key.grant).locks.set(key.id, { fence, untilMs: nowMs + ttlMs })
  }

  async unlock(key: LeaseKey, fence: number): Promise<void> {
    const locks = this.#shelves.get(key.grant)?.locks
    // The token stays behind, expired: a holder that was late must still find itself superseded.
    if (locks?.get(key.id)?.fence === fence) locks.set(key.id, { fence, untilMs: 0 })
  }

  async list(grant: string): Promise<readonly Stored[]> {
    return this.#valuesOf(grant)
  }

  async purge(grant: string): Promise<readonly Stored[]> {
    const nowMs = this.#clock.elapsedMs()
    const removed = this.#valuesOf(grant)
    this.#drop(grant)
    if (this.#ended.size >= this.#maxEntries) this.#forgetEnded(nowMs)
    this.#ended.set(grant, nowMs + ENDED_MS)
    const digests = new Set(removed.map(({ value }) => digestOf(value)))
    for (const listener of this.#listeners) listener(grant, digests)
    return removed
  }

  onPurge(listener: Parameters<LeaseCache['onPurge']>[0]): void {
    this.#listeners.push(listener)
  }

  async close(): Promise<void> {
    this.#shelves.clear()
    this.#entries = 0
  }

  #shelf(grant: string): Shelf {
    const known = this.#shelves.get(grant)
    if (known !== undefined) return known
    const shelf: Shelf = { values: new Map(), locks: new Map() }
    this.#shelves.set(grant, shelf)
    return shelf
  }

  #valuesOf(grant: string): readonly Kept[] {
    const nowMs = this.#clock.elapsedMs()
    return [...(this.#shelves.get(grant)?.values.values() ?? [])].filter((kept) => kept.untilMs > nowMs)
  }

  #valid(key: LeaseKey): Kept | undefined {
    const kept = this.#shelves.get(key.grant)?.values.get(key.id)
    return kept !== undefined && kept.untilMs > this.#clock.elapsedMs() ? kept : undefined
  }

  #isSuperseded(key: LeaseKey, fence: number | null): boolean {
    if (fence === null) return this.#valid(key) !== undefined
    return (this.#shelves.get(key.grant)?.locks.get(key.id)?.fence ?? 0) > fence
  }

  #drop(grant: string): void {
    this.#entries -= this.#shelves.get(grant)?.values.size ?? 0
    this.#shelves.delete(grant)
  }

  /** Grants with nothing valid go first; if that is not enough, the grants that came first, a tenth at a time. */
  #makeRoom(nowMs: number): void {
    for (const [grant, { values }] of this.#shelves) {
      if ([...values.values()].every((kept) => kept.untilMs <= nowMs)) this.#drop(grant)
    }
    for (const grant of this.#shelves.keys()) {
      if (this.#entries <= this.#maxEntries * 0.9) break
      this.#drop(grant)
    }
    this.#forgetEnded(nowMs)
  }

  #forgetEnded(nowMs: number): void {
    for (const [grant, untilMs] of this.#ended) if (untilMs <= nowMs) this.#ended.delete(grant)
  }
}
