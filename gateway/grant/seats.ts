/**
 * How many calls of one agent are under way at once. Every agent has seats and a queue of its own, so one that fills both slows
 * nobody but itself. Calls of all its grants and tasks count together; a stream keeps its seat until it ends.
 */
import type { Grant } from '../protocol/grant.ts'
import type { Reply } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'

export interface SeatLimits {
  /** Calls of one agent at once. */
  readonly concurrency: number
  /** Calls of one agent that wait for one of them to end. */
  readonly queue: number
  /** Milliseconds that a call waits. */
  readonly queueTimeoutMs: number
}

/** Who waits for a seat: once the client has left, nobody does. */
export type Waiter = Pick<Reply, 'destroyed' | 'once' | 'off'>

export class Seats {
  readonly #limits: SeatLimits
  /** tenant → agent id → its seats. Agents are those of the registry, so this does not grow. */
  readonly #tenants = new Map<string, Map<string, AgentSeats>>()

  constructor(limits: SeatLimits) {
    this.#limits = limits
  }

  /**
   * A seat for one call, to be disposed of once; at once and without allocation while there is one, else in turn.
   * @throws {GatewayError} `too_many_requests` when the queue is full, its end was not reached in time, or the client left.
   */
  take({ tenant, agent: { id } }: Pick<Grant, 'tenant' | 'agent'>, waiter: Waiter): Disposable | Promise<Disposable> {
    return (this.#tenants.get(tenant)?.get(id) ?? this.#add(tenant, id)).take(waiter)
  }

  /** A call that has a seat waits for something that takes long: until this is disposed of, another may have it. */
  aside({ tenant, agent: { id } }: Pick<Grant, 'tenant' | 'agent'>): Disposable {
    const seats = this.#tenants.get(tenant)?.get(id) ?? this.#add(tenant, id)
    seats.lend()
    return { [Symbol.dispose]: () => seats.takeBack() }
  }

  #add(tenant: string, id: string): AgentSeats {
    const agents = this.#tenants.get(tenant) ?? new Map<string, AgentSeats>()
    const seats = new AgentSeats(id, this.#limits)
    this.#tenants.set(tenant, agents.set(id, seats))
    return seats
  }
}

/** All seats of one agent. Disposing of it gives one back, so that taking one makes no object. */
class AgentSeats implements Disposable {
  readonly #agent: string
  readonly #limits: SeatLimits
  #taken = 0
  /** First come, first served. */
  readonly #waiting = new Set<() => void>()

  constructor(agent: string, limits: SeatLimits) {
    this.#agent = agent
    this.#limits = limits
  }

  take(waiter: Waiter): Disposable | Promise<Disposable> {
    if (this.#taken < this.#limits.concurrency) {
      this.#taken += 1
      return this
    }
    if (this.#waiting.size >= this.#limits.queue) throw this.#tooMany('')
    return this.#wait(waiter)
  }

  [Symbol.dispose](): void {
    const [next] = this.#waiting
    if (next === undefined) this.#taken -= 1
    else next() // the seat changes hands: whoever comes now is behind those who wait
  }

  /** The seat of a call that is set aside goes to the next one. */
  lend(): void {
    this[Symbol.dispose]()
  }

  /** The call goes on, and does not queue again: so many more than the limit are under way for a moment. */
  takeBack(): void {
    this.#taken += 1
  }

  #wait(waiter: Waiter): Promise<Disposable> {
    const { promise, resolve, reject } = Promise.withResolvers<Disposable>()
    const { queueTimeoutMs } = this.#limits
    const stop = (): void => {
      clearTimeout(late)
      waiter.off('close', leave)
      this.#waiting.delete(seated)
    }
    const seated = (): void => {
      stop()
      resolve(this)
    }
    const giveUp = (why: string): void => {
      stop()
      reject(this.#tooMany(why))
    }
    const leave = (): void => giveUp(' Its client left before it was its turn.')
    const late = setTimeout(() => giveUp(` None ended within ${queueTimeoutMs} ms.`), queueTimeoutMs)
    this.#waiting.add(seated)
    if (waiter.destroyed) leave()
    else waiter.once('close', leave)
    return promise
  }

  #tooMany(more: string): GatewayError {
    const { concurrency, queue } = this.#limits
    return new GatewayError(
      'too_many_requests',
      `The agent ${this.#agent} has ${concurrency} calls under way, and at most ${queue} may wait for their turn.${more} Finish some, or have limits.agent_concurrency raised.`,
    )
  }
}
