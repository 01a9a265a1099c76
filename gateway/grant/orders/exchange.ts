/**
 * What orders are known here against what stands in the store: reads, merges, puts back. Numbers are given by the clock and by what is
 * known, never twice the same; what was ordered without knowledge of another order takes nothing of that back.
 */
import { randomInt } from 'node:crypto'
import type { Clock } from '../../protocol/clock.ts'
import type { OrderKeep } from '../store/sqlite-orders.ts'
import { type GrantStore, type OrderShelf, type StoredOrder, storeUnavailable } from '../store/store.ts'
import { aboutOf, type InForce, joined, type Order, supersedes, versionAt } from './order.ts'
import type { OrderSeal } from './order-seal.ts'

/** Versions are microseconds, about; each leaves as much room as this. */
const STEP = 1_000_000
/** Of two replicas that put at once one tries again. */
const TRIES = 20

export interface ExchangeParts {
  readonly tenant: string
  readonly store: OrderShelf & Pick<GrantStore, 'trustMs' | 'ordersVersion'>
  /** This replica's own copy. Absent: the store is one of this process. */
  readonly keep?: OrderKeep | undefined
  readonly clock: Clock
  /** Something else is in force. Must not throw. */
  onChange(): void
}

interface Opened {
  readonly body: string
  /** Undefined: it is not one of ours. */
  readonly order: Order | undefined
}

interface Pending {
  readonly order: Order
  readonly isLift: boolean
}

export class OrderExchange {
  readonly #parts: ExchangeParts
  readonly #inForce: InForce
  readonly #seal: OrderSeal
  #known = 0
  #readMs: number
  /** The same, and never less. */
  #highest = 0
  /** `aboutOf` → what the store was last seen to have */
  readonly #stored = new Map<string, Order>()
  /** name → what the store has under it, opened: there may be many, and few of them are new */
  #opened: ReadonlyMap<string, Opened> = new Map()
  /** `aboutOf` → given here, and not in the store yet */
  readonly #given = new Map<string, Pending>()
  #syncing: Promise<void> | undefined

  constructor(parts: ExchangeParts, { inForce, seal }: { readonly inForce: InForce; readonly seal: OrderSeal }) {
    this.#parts = parts
    this.#inForce = inForce
    this.#seal = seal
    this.#readMs = parts.clock.elapsedMs()
    const { store, keep, tenant } = parts
    const found = keep === undefined ? store.orders(tenant) : { orders: keep.load(tenant) }
    if (!(found instanceof Promise)) for (const stored of found.orders) this.#heard(this.#seal.open(stored))
  }

  /** Version of the store up to which everything that stands there is known. */
  get known(): number {
    return this.#known
  }

  /** Monotonic time at which all that stands there was read last. */
  get readMs(): number {
    return this.#readMs
  }

  /** How many orders are in force here that the store does not have. */
  get ahead(): number {
    return this.#missing.length
  }

  /** In force here at once; in the store when this resolves. @throws {GatewayError} `store_unavailable` */
  async change(given: Omit<Order, 'version' | 'sinceS'>, isLift: boolean): Promise<void> {
    const order: Order = { ...given, sinceS: this.#nowS, version: this.#next() }
    this.#given.set(aboutOf(order.target), { order, isLift })
    this.#take(order)
    await this.#syncing?.catch(() => undefined) // that one may have begun to read before
    await this.sync()
  }

  /** Know everything up to this version at least. @throws {GatewayError} `store_unavailable` */
  async catchUp(version: number): Promise<void> {
    if (!Number.isSafeInteger(version + 1)) throw storeUnavailable(new TypeError('the version of the orders is none'))
    for (let tries = 0; this.#known < version && tries < TRIES; tries++) await this.sync()
    if (this.#known < version) throw storeUnavailable(undefined)
    // The store is behind what this replica knows: something was lost there.
    if (this.#known > version) void this.sync().catch(() => undefined)
  }

  /** Read what stands there, and put there what is missing. One at a time. */
  sync(): Promise<void> {
    this.#syncing ??= this.#exchange().finally(() => {
      this.#syncing = undefined
    })
    return this.#syncing
  }

  async #exchange(): Promise<void> {
    const { store, tenant } = this.#parts
    for (let tries = 0; tries < TRIES; tries++) {
      const { version, orders } = await store.orders(tenant)
      this.#readMs = this.#parts.clock.elapsedMs()
      this.#adopt(orders, version < this.#highest)
      this.#renew(version)
      await this.#prune(version)
      const missing = this.#missing
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
      // What was given about it meanwhile is in force, and is put after this one: see `#renew`.
      if (this.#inForce.about(order.target) !== known) continue
      this.#given.delete(aboutOf(order.target))
      this.#take(order)
    }
  }

  /** What was given here without knowledge of what stands there comes after that, and takes nothing of it back. */
  #renew(version: number): void {
    for (const [about, { order, isLift }] of this.#given) {
      const there = this.#inForce.about(order.target)
      const isOther = there !== undefined && there !== order
      // To lift is about one block; another one stays.
      if (isOther && isLift && there.id !== order.id) this.#given.delete(about)
      else if (isOther || order.version <= version) {
        const next = {
          ...(isOther && !isLift ? joined(order, there) : order),
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
    this.#opened = new Map(stored.map((one) => [one.about, this.#open(one)]))
    for (const { order } of this.#opened.values()) {
      if (order === undefined || order.keptUntilS <= this.#nowS) continue
      const known = this.#inForce.about(order.target)
      this.#stored.set(aboutOf(order.target), order)
      if (!isLoss) this.#take(order)
      else if (known?.version !== order.version || known.id !== order.id)
        this.#take({ ...(known ? joined(known, order) : order), version: this.#next() })
    }
  }

  #open(stored: StoredOrder): Opened {
    const known = this.#opened.get(stored.about)
    return known?.body === stored.body ? known : { body: stored.body, order: this.#seal.open(stored) }
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

  /** Also what replicas left there that are no more. */
  async #prune(version: number): Promise<void> {
    const { keep, store, tenant } = this.#parts
    const over = this.#inForce.forget(this.#nowS).map(({ target }) => this.#seal.nameOf(target))
    if (over.length > 0) attempt(() => keep?.forget(tenant, over))
    const names = [...this.#opened].flatMap(([name, { order }]) =>
      order && order.keptUntilS <= this.#nowS ? [name] : [],
    )
    if (names.length > 0) await store.forgetOrders(tenant, names, version)
  }

  get #nowS(): number {
    return Math.floor(this.#parts.clock.nowMs() / 1000)
  }

  get #missing(): readonly Order[] {
    const missing: Order[] = []
    for (const [about, order] of this.#inForce.all) {
      const there = this.#stored.get(about)
      if (there === undefined || supersedes(order, there)) missing.push(order)
    }
    return missing
  }

  /** Greater than any that is known, and than what a store may have lost a while ago. */
  #next(): number {
    let greatest = Math.max(this.#highest, versionAt(this.#parts.clock.nowMs()))
    for (const [, { version }] of this.#inForce.all) greatest = Math.max(greatest, version)
    return above(greatest)
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
