/**
 * Calls that wait for a human, at this replica. Each waits for one approval to change, until its time is up, its client has left or
 * its grant has ended; nothing runs while nobody waits. How many may wait is bounded, because each keeps its body in memory.
 */
import type { Reply } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'

/** Of one agent, and of all. */
const MAX_OF_AGENT = 256
const MAX = 4096
const MAX_BYTES = 256 * 1024 * 1024

/** A call that may wait. */
export interface Waiter {
  readonly client: Pick<Reply, 'destroyed' | 'once' | 'off'>
  /** Tells when its grant ends. @returns stops. */
  watch(cut: (why: GatewayError) => void): () => void
  /** Tenant and id. */
  readonly agent: string
  readonly bytes: number
  /** Its seat is another call's while it waits. */
  aside(): Disposable
}

/** A call that waits, until it is disposed of. */
export interface Held extends Disposable {
  /**
   * Resolves when it was woken since it began to wait, or after the last time; or after so many milliseconds.
   * @returns whether everything has to be asked again.
   * @throws {GatewayError} why the grant ended; `approval_required` when the client has left.
   */
  next(forMs: number): Promise<boolean>
}

export class Holding {
  /** tenant and approval → calls that wait for it */
  readonly #waiting = new Map<string, Set<HeldCall>>()
  /** tenant and agent → how many of its calls wait */
  readonly #ofAgent = new Map<string, number>()
  #held = 0
  #bytes = 0

  get size(): number {
    return this.#held
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Whether one more may wait; one that may not is answered at once, and asks again. */
  hasRoom({ agent, bytes }: Pick<Waiter, 'agent' | 'bytes'>): boolean {
    if (this.#held >= MAX || this.#bytes + bytes > MAX_BYTES) return false
    return (this.#ofAgent.get(agent) ?? 0) < MAX_OF_AGENT
  }

  /** @param key tenant and id of an approval that may have changed. */
  wake(key: string): void {
    for (const held of this.#waiting.get(key) ?? []) held.ring(false)
  }

  /** @param isAnew everything has to be asked again. */
  wakeAll(isAnew: boolean): void {
    for (const calls of this.#waiting.values()) for (const held of calls) held.ring(isAnew)
  }

  enter(key: string, waiter: Waiter): Held {
    const calls = this.#waiting.get(key) ?? new Set()
    const held = new HeldCall(waiter, () => {
      calls.delete(held)
      if (calls.size === 0 && this.#waiting.get(key) === calls) this.#waiting.delete(key)
      this.#count(waiter, -1)
    })
    this.#waiting.set(key, calls.add(held))
    this.#count(waiter, 1)
    return held
  }

  #count({ agent, bytes }: Waiter, by: 1 | -1): void {
    this.#held += by
    this.#bytes += by * bytes
    const of = (this.#ofAgent.get(agent) ?? 0) + by
    if (of === 0) this.#ofAgent.delete(agent)
    else this.#ofAgent.set(agent, of)
  }
}

class HeldCall implements Held {
  readonly #leave: () => void
  readonly #stop: () => void
  #isRung = false
  #isAnew = false
  #why: GatewayError | undefined
  #wake: () => void = () => {}

  constructor(waiter: Waiter, leave: () => void) {
    this.#leave = leave
    const end = (why: GatewayError) => {
      this.#why ??= why
      this.#wake()
    }
    const gone = () => end(left())
    const aside = waiter.aside()
    const unwatch = waiter.watch(end)
    waiter.client.once('close', gone)
    if (waiter.client.destroyed) gone()
    this.#stop = () => {
      unwatch()
      waiter.client.off('close', gone)
      aside[Symbol.dispose]()
    }
  }

  ring(isAnew: boolean): void {
    this.#isRung = true
    this.#isAnew ||= isAnew
    this.#wake()
  }

  async next(forMs: number): Promise<boolean> {
    if (!this.#isRung && this.#why === undefined) {
      const { promise, resolve } = Promise.withResolvers<void>()
      const timer = setTimeout(resolve, forMs)
      this.#wake = resolve
      await promise
      clearTimeout(timer)
    }
    if (this.#why !== undefined) throw this.#why
    this.#isRung = false
    return this.#isAnew
  }

  [Symbol.dispose](): void {
    this.#stop()
    this.#leave()
  }
}

function left(): GatewayError {
  return new GatewayError(
    'approval_required',
    'The client left while the call waited for somebody to approve it. The same request finds the approval again.',
  )
}
