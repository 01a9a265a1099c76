/**
 * The orders of one tenant, the same on all replicas. What is ordered is in force here at once; then it is put where grants are kept,
 * and every answer about a grant says which version of the orders stands there, so that none is believed without them. What a store
 * has lost, or somebody has taken out of it, the replicas that know it put back; each has a copy on its own disk.
 */
import type { KeyObject } from 'node:crypto'
import type { Grant } from '../../protocol/grant.ts'
import { GatewayError } from '../../protocol/problem.ts'
import type { Block, SignalWord } from '../../protocol/revocation.ts'
import type { Service } from '../../protocol/service.ts'
import { SUSPENDED_S } from '../life/task.ts'
import type { Eventual } from '../store/store.ts'
import { type ExchangeParts, OrderExchange } from './exchange.ts'
import { FOR_EVER_S, InForce, isBlocking, isLiftedBy, later, type Order, type OrderTarget, saidBy } from './order.ts'
import { createOrderSeal } from './order-seal.ts'

/** With the time in which a store answers, within the second of DESIGN §2, promise 8. */
const LOOK_MS = 400
/** Whoever writes to the store can take an order out and leave the version: so often all of it is read, whatever the version says. */
const READ_MS = 60_000
/** No grant lives longer than an hour, and what is suspended comes back within its time or never. */
const KEPT_S = SUSPENDED_S + 3600
/** That a block was lifted is remembered longer than any replica is away that still knows of the block. */
const LIFTED_S = 366 * 24 * 3600
interface Parts extends ExchangeParts {
  /** 32 bytes, the same on every replica. */
  readonly key: KeyObject
}

interface Given {
  readonly id: string
  readonly target: OrderTarget
  readonly reason: string
  readonly untilS?: number | null | undefined
  /** Undefined: it is not a signal that says so. */
  readonly signal?: SignalWord | undefined
}

export class Orders {
  readonly #parts: Parts
  readonly #inForce = new InForce()
  readonly #exchange: OrderExchange
  readonly #timer: NodeJS.Timeout | undefined

  constructor(parts: Parts) {
    this.#parts = parts
    const seal = createOrderSeal(parts.tenant, parts.key)
    this.#exchange = new OrderExchange(parts, { inForce: this.#inForce, seal })
    if (parts.store.trustMs !== Number.POSITIVE_INFINITY) this.#timer = setInterval(() => this.look(), LOOK_MS).unref()
  }

  /** @see InForce.endOf */
  endOf(grant: Grant): GatewayError | undefined {
    if (this.#inForce.isEmpty || grant.tenant !== this.#parts.tenant) return undefined
    return this.#inForce.endOf(grant, this.#nowS)
  }

  /** @see InForce.closureOf */
  closureOf(service: Pick<Service, 'name' | 'credential'>): GatewayError | undefined {
    return this.#inForce.isEmpty ? undefined : this.#inForce.closureOf(service, this.#nowS)
  }

  /** How many are in force here and not in the store. */
  get unstored(): number {
    return this.#exchange.ahead
  }

  blocks(): readonly Block[] {
    return this.#inForce.blocks(this.#nowS)
  }

  /** The version with which a grant may be made now: nothing that was ordered before this was asked is missing in it. */
  async current(): Promise<number> {
    const { store, tenant } = this.#parts
    await this.heed(await store.ordersVersion(tenant))
    return this.#exchange.known
  }

  /**
   * Before an answer is believed that was given while this version stood in the store; no promise where nothing is missing.
   * @throws {GatewayError} `store_unavailable` when what is missing cannot be read: whatever it ends might pass.
   */
  heed(version: number | undefined): Eventual<void> {
    if (version === undefined || version === this.#exchange.known) return undefined
    return this.#exchange.catchUp(version)
  }

  /**
   * In force when this is called, and on all replicas within a second after it has resolved.
   * @returns until when what comes anew is refused.
   * @throws {GatewayError} `store_unavailable`: it is in force here, and others are told when that is possible again.
   */
  async give({ untilS, signal, ...given }: Given): Promise<{ readonly untilS?: number | null }> {
    const before = this.#inForce.about(given.target)
    // What is blocked stays so for as long as anybody said: to shorten it is to lift it.
    const blocked = before !== undefined && isBlocking(before, this.#nowS) ? before : undefined
    const until = later(untilS, blocked?.untilS)
    const said = saidBy({ ...(untilS !== undefined && { untilS }), ...(signal && { signal }) }, blocked ?? {})
    const lives = KEPT_S + Math.max(this.#nowS, until ?? 0)
    const order = { ...given, ...said, ...(until !== undefined && { untilS: until }) }
    await this.#exchange.change({ ...order, keptUntilS: until === null ? FOR_EVER_S : lives }, false)
    return until === undefined ? {} : { untilS: until }
  }

  /**
   * What would be lifted. @param signal that says so; undefined: somebody else does.
   * @throws {GatewayError} `instruction_invalid` when nothing is blocked, or nothing that is this signal's to lift.
   */
  blocked(target: OrderTarget, signal?: SignalWord): Order {
    const order = this.#inForce.about(target)
    if (order === undefined || !isBlocking(order, this.#nowS))
      throw invalid('Nothing of the kind is blocked. `keyless revoke --list` shows what is.')
    if (signal === undefined || isLiftedBy(order, signal)) return order
    throw invalid('It is blocked by somebody else too, or by a later word of this issuer.')
  }

  /** What somebody blocks anew in the same moment stays blocked. @param id of the order that is lifted. @throws {GatewayError} as `blocked` and `give`. */
  async lift(target: OrderTarget, id: string): Promise<void> {
    const { untilS: _, signal: __, ...rest } = this.blocked(target)
    if (rest.id !== id)
      throw invalid('It was blocked anew in this moment. Look at that, and lift it if it is still wanted.')
    await this.#exchange.change({ ...rest, keptUntilS: this.#nowS + LIFTED_S }, true)
  }

  close(): void {
    clearInterval(this.#timer)
  }

  /** There may be something new in the store. */
  look(): void {
    const { clock, store, tenant } = this.#parts
    const ask = async () => {
      const { ahead, known, readMs } = this.#exchange
      const isDue = clock.elapsedMs() - readMs >= READ_MS
      if (isDue || ahead > 0 || (await store.ordersVersion(tenant)) !== known) await this.#exchange.sync()
    }
    ask().catch(() => undefined) // until it can be asked, nothing passes that it would have to answer for
  }

  get #nowS(): number {
    return Math.floor(this.#parts.clock.nowMs() / 1000)
  }
}

function invalid(what: string): GatewayError {
  return new GatewayError('instruction_invalid', what)
}
