/**
 * The orders of one tenant, the same on all replicas. What is ordered is in force here at once; then it is put where grants are kept,
 * and every answer about a grant says which version of the orders stands there, so that none is believed without them. What a store
 * has lost, or somebody has taken out of it, the replicas that know it put back; each has a copy on its own disk.
 */
import { type KeyObject, randomInt } from 'node:crypto'
import type { Clock } from '../protocol/clock.ts'
import type { Grant } from '../protocol/grant.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { Block } from '../protocol/revocation.ts'
import type { Service } from '../protocol/service.ts'
import { aboutOf, InForce, isBlocking, joined, later, type Order, type OrderTarget, supersedes } from './order.ts'
import { createOrderSeal, type OrderSeal } from './order-seal.ts'
import { type Eventual, type GrantStore, type OrderShelf, type StoredOrder, storeUnavailable } from './store.ts'
import type { OrderKeep } from './store-sqlite-orders.ts'
import { SUSPENDED_S } from './task.ts'

/** With the time in which a store answers, within the second of DESIGN §2, promise 8. */
const LOOK_MS = 400
/** No grant lives longer than an hour, and what is suspended comes back within its time or never. */
const KEPT_S = SUSPENDED_S + 3600
/** That a block was lifted is remembered longer than any replica is away that still knows of the block. */
const LIFTED_S = 366 * 24 * 3600
const FOR_EVER_S = Number.MAX_SAFE_INTEGER
/** Versions are microseconds, about; each leaves as much room as this. */
const STEP = 1_000_000
/** Of two replicas that put at once one tries again. */
const TRIES = 20

interface Parts {
  readonly tenant: string
  readonly store: OrderShelf & Pick<GrantStore, 'trustMs' | 'ordersVersion'>
  /** This replica's own copy. Absent: the store is one of this process. */
  readonly keep?: OrderKeep | undefined
  /** 32 bytes, the same on every replica. */
  readonly key: KeyObject
  readonly clock: Clock
  /** Something else is in force. Must not throw. */
  onChange(): void
}

interface Given {
  readonly id: string
  readonly target: OrderTarget
  readonly reason: string
  readonly untilS?: number | null | undefined
}

interface Pending {
  readonly order: Order
  readonly isLift: boolean
}

export class Orders {
  readonly #parts: Parts
  readonly #inForce = new InForce()
  readonly #seal: OrderSeal
  /** Of the store, up to which everything that stands there is known. */
  #known = 0
  /** The same, and never less. */
  #highest = 0
  /** `aboutOf` → what the store was last seen to have */
  readonly #stored = new Map<string, Order>()
  /** `aboutOf` → given here, and not in the store yet */
  readonly #given = new Map<string, Pending>()
  #syncing: Promise<void> | undefined
  readonly #timer: NodeJS.Timeout | undefined

  constructor(parts: Parts) {
    this.#parts = parts
    this.#seal = createOrderSeal(parts.tenant, parts.key)
    const { store, keep, tenant } = parts
    const found = keep === undefined ? store.orders(tenant) : { orders: keep.load(tenant) }
    if (!(found instanceof Promise)) for (const stored of found.orders) this.#heard(this.#seal.open(stored))
    if (store.trustMs === Number.POSITIVE_INFINITY) return
    this.#timer = setInterval(() => this.look(), LOOK_MS).unref()
  }

  /** @see InForce.endOf */
  endOf(grant: Grant): GatewayError | undefined {
    return grant.tenant === this.#parts.tenant ? this.#inForce.endOf(grant, this.#nowS) : undefined
  }

  /** @see InForce.closureOf */
  closureOf(service: Pick<Service, 'name' | 'credential'>): GatewayError | undefined {
    return this.#inForce.closureOf(service, this.#nowS)
  }

  blocks(): readonly Block[] {
    return this.#inForce.blocks(this.#nowS)
  }

  /** The version with which a grant may be made now: nothing that was ordered before this was asked is missing in it. */
  async current(): Promise<number> {
    const { store, tenant } = this.#parts
    await this.heed(await store.ordersVersion(tenant))
    return this.#known
  }

  /**
   * Before an answer is believed that was given while this version stood in the store; no promise where nothing is missing.
   * @throws {GatewayError} `store_unavailable` when what is missing cannot be read: whatever it ends might pass.
   */
  heed(version: number | undefined): Eventual<void> {
    if (version === undefined || version === this.#known) return undefined
    return this.#catchUp(version)
  }

  /**
   * In force when this is called, and on all replicas within a second after it has resolved.
   * @throws {GatewayError} `store_unavailable`: it is in force here, and others are told when that is possible again.
   */
  async give({ untilS, ...given }: Given): Promise<Order> {
    const before = this.#inForce.about(given.target)
    // What is blocked stays so for as long as anybody said: to shorten it is to lift it.
    const blocked = before !== undefined && isBlocking(before, this.#nowS) ? before.untilS : undefined
    const until = later(untilS, blocked)
    const lives = KEPT_S + Math.max(this.#nowS, until ?? 0)
    return this.#change({
      ...given,
      ...(until !== undefined && { untilS: until }),
      keptUntilS: until === null ? FOR_EVER_S : lives,
    })
  }

  /** @throws {GatewayError} `instruction_invalid` when nothing is blocked. */
  blocked(target: OrderTarget): Order {
    const order = this.#inForce.about(target)
    if (order !== undefined && isBlocking(order, this.#nowS)) return order
    throw new GatewayError(
      'instruction_invalid',
      'Nothing of the kind is blocked. `keyless revoke --list` shows what is.',
    )
  }

  /** What somebody blocks anew in the same moment stays blocked. @throws {GatewayError} as `blocked` and `give`. */
  async lift(target: OrderTarget): Promise<void> {
    const { untilS: _, ...rest } = this.blocked(target)
    await this.#change({ ...rest, keptUntilS: this.#nowS + LIFTED_S }, true)
  }

  close(): void {
    clearInterval(this.#timer)
  }

  get #nowS(): number {
    return Math.floor(this.#parts.clock.nowMs() / 1000)
  }

  /** Greater than any that is known, and than what a store may have lost a while ago. */
  #next(): number {
    const known = [...this.#inForce.all].map(({ version }) => version)
    return above(Math.max(this.#highest, ...known, Math.floor(this.#parts.clock.nowMs() * 1000)))
  }

  async #change(given: Omit<Order, 'version' | 'sinceS'>, isLift = false): Promise<Order> {
    const order: Order = { ...given, sinceS: this.#nowS, version: this.#next() }
    this.#given.set(aboutOf(order.target), { order, isLift })
    this.#take(order)
    await this.#syncing?.catch(() => undefined) // that one may have begun to read before
    await this.#sync()
    return this.#inForce.about(order.target) ?? order
  }

  async #catchUp(version: number): Promise<void> {
    if (!Number.isSafeInteger(version + 1)) throw storeUnavailable(new TypeError('the version of the orders is none'))
    for (let tries = 0; this.#known < version && tries < TRIES; tries++) await this.#sync()
    if (this.#known < version) throw storeUnavailable(undefined)
    // The store is behind what this replica knows: something was lost there.
    if (this.#known > version) void this.#sync().catch(() => undefined)
  }

  /** There may be something new in the store. */
  look(): void {
    const { store, tenant } = this.#parts
    const isMissing = [...this.#inForce.all].some((order) => !this.#isStored(order))
    const ask = async () => {
      if (isMissing || (await store.ordersVersion(tenant)) !== this.#known) await this.#sync()
    }
    ask().catch(() => undefined) // until it can be asked, nothing passes that it would have to answer for
  }

  #isStored(order: Order): boolean {
    const there = this.#stored.get(aboutOf(order.target))
    return there !== undefined && !supersedes(order, there)
  }

  /** Read what stands there, and put there what is missing. One at a time. */
  #sync(): Promise<void> {
    this.#syncing ??= this.#exchange().finally(() => {
      this.#syncing = undefined
    })
    return this.#syncing
  }

  async #exchange(): Promise<void> {
    const { store, tenant } = this.#parts
    for (let tries = 0; tries < TRIES; tries++) {
      const { version, orders } = await store.orders(tenant)
      this.#adopt(orders, version < this.#highest)
      this.#renew(version)
      await this.#prune(orders)
      const missing = [...this.#inForce.all].filter((order) => !this.#isStored(order))
      if (missing.length === 0) {
        this.#known = version
        this.#highest = Math.max(this.#highest, version)
        return
      }
      await this.#put(missing, version)
    }
    throw storeUnavailable(undefined)
  }

  /** Each as one that is given now: what was issued without knowing it is ended by it. Stops where another replica was faster. */
  async #put(missing: readonly Order[], found: number): Promise<void> {
    const { store, tenant } = this.#parts
    let expected = found
    for (const known of missing.toSorted((a, b) => a.version - b.version)) {
      const order = { ...known, version: above(Math.max(known.version, expected)) }
      if (!(await store.putOrder(tenant, this.#seal.close(order), { expected, version: order.version }))) return
      expected = order.version
      this.#given.delete(aboutOf(order.target))
      this.#take(order)
    }
  }

  /** What was given here without knowledge of what stands there comes after that, and takes nothing of it back. */
  #renew(version: number): void {
    for (const [about, { order, isLift }] of this.#given) {
      const there = this.#inForce.about(order.target)
      const isOther = there !== undefined && there !== order
      if (isOther && isLift) this.#given.delete(about)
      else if (isOther || order.version <= version) {
        const next = {
          ...(isOther ? joined(order, there) : order),
          version: Math.max(version, there?.version ?? 0) + 1,
        }
        this.#given.set(about, { order: next, isLift })
        this.#take(next)
      }
    }
  }

  /**
   * What cannot be read is not ours: whoever wrote it gains nothing by it.
   * @param isLoss the store had a greater version. Then numbers were given twice, and say nothing of what came first: nothing of what is
   *   there or known here is taken back, and it comes after all that was.
   */
  #adopt(stored: readonly StoredOrder[], isLoss: boolean): void {
    this.#stored.clear()
    for (const one of stored) {
      const order = this.#seal.open(one)
      if (order === undefined || order.keptUntilS <= this.#nowS) continue
      const known = this.#inForce.about(order.target)
      this.#stored.set(aboutOf(order.target), order)
      if (!isLoss) this.#take(order)
      else if (known?.version !== order.version || known.id !== order.id)
        this.#take({ ...(known ? joined(known, order) : order), version: this.#next() })
    }
  }

  #take(order: Order): void {
    if (!this.#heard(order)) return
    // A disk that fails takes the memory of the next process; this one goes on with its own.
    attempt(() => this.#parts.keep?.save(this.#parts.tenant, this.#seal.close(order)))
    this.#parts.onChange()
  }

  #heard(order: Order | undefined): boolean {
    return order !== undefined && this.#inForce.take(order)
  }

  async #prune(stored: readonly StoredOrder[]): Promise<void> {
    const { keep, store, tenant } = this.#parts
    const over = this.#inForce.forget(this.#nowS).map(({ target }) => this.#seal.nameOf(target))
    if (over.length === 0) return
    attempt(() => keep?.forget(tenant, over))
    const there = over.filter((name) => stored.some(({ about }) => about === name))
    if (there.length > 0) await store.forgetOrders(tenant, there)
  }
}

/** Not by one: two replicas that do not know of each other must not come to the same. */
function above(version: number): number {
  return version + 1 + randomInt(STEP)
}

function attempt(work: () => void): void {
  try {
    work()
  } catch {
    // see the callers
  }
}
