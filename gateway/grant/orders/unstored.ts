/**
 * Ends of single grants and tasks that the store did not take: in force here, and tried again until it has them, so that they hold at
 * other replicas too. Remembered on this replica's own disk, for the process after it. Orders about more are kept by `orders.ts`.
 */
import type { Clock } from '../../protocol/clock.ts'
import { asGatewayError } from '../../protocol/problem.ts'
import type { RevocationTarget } from '../../protocol/revocation.ts'
import { SUSPENDED_S } from '../life/task.ts'
import type { OrderKeep } from '../store/sqlite-orders.ts'

/** With the time in which a store answers, within the second of DESIGN §2, promise 8, once it is back. */
const RETRY_MS = 400
/** No grant lives longer than an hour, and what is suspended comes back within its time or never. */
const LIVES_S = SUSPENDED_S + 3600

export type EndTarget = Extract<RevocationTarget, { readonly grant: string } | { readonly task: string }>

interface Parts {
  readonly tenant: string
  /** Absent: what is not stored when the process ends is forgotten. */
  readonly keep?: OrderKeep | undefined
  readonly clock: Clock
  /** Whatever carries this id is over in this process. */
  hold(id: string, untilS: number): void
  /** End it in the store. @throws {GatewayError} `store_unavailable`: not yet; anything else: there is nothing left to end. */
  end(target: EndTarget): Promise<unknown>
}

interface Unstored {
  readonly target: EndTarget
  /** Epoch seconds from which nothing of it could live. */
  readonly untilS: number
}

export class UnstoredEnds {
  readonly #parts: Parts
  /** id of a grant or task → its end; written only by `add` and `#forget` */
  readonly #ends = new Map<string, Unstored>()
  #timer: NodeJS.Timeout | undefined
  #isClosed = false

  constructor(parts: Parts) {
    this.#parts = parts
    for (const { about, body } of parts.keep?.load(parts.tenant) ?? []) this.#take(about, JSON.parse(body))
  }

  get size(): number {
    return this.#ends.size
  }

  /** @param target by the id of a grant, never by its handle. */
  add(target: EndTarget): void {
    const { keep, tenant, clock } = this.#parts
    const id = 'grant' in target ? target.grant : target.task
    const end = { target, untilS: Math.floor(clock.nowMs() / 1000) + LIVES_S }
    this.#take(id, end)
    // A disk that fails takes the memory of the next process; this one goes on with its own.
    attempt(() => keep?.save(tenant, { about: id, body: JSON.stringify(end) }))
  }

  /** Before the store is closed. */
  close(): void {
    this.#isClosed = true
    clearTimeout(this.#timer)
  }

  #take(id: string, end: Unstored): void {
    this.#ends.set(id, end)
    this.#parts.hold(id, end.untilS)
    this.#later()
  }

  #later(): void {
    if (this.#isClosed) return
    this.#timer ??= setTimeout(() => {
      void this.#retry().finally(() => {
        this.#timer = undefined
        if (this.#ends.size > 0) this.#later()
      })
    }, RETRY_MS).unref()
  }

  /** One after the other, up to the first that shows that the store is still away. */
  async #retry(): Promise<void> {
    const { clock, end } = this.#parts
    for (const [id, { target, untilS }] of [...this.#ends]) {
      const isOver = untilS * 1000 <= clock.nowMs()
      if (!isOver && (await codeOf(end(target))) === 'store_unavailable') return
      this.#forget(id)
    }
  }

  #forget(id: string): void {
    const { keep, tenant } = this.#parts
    this.#ends.delete(id)
    attempt(() => keep?.forget(tenant, [id])) // stays: it is ended once more by the next process, which changes nothing
  }
}

async function codeOf(work: Promise<unknown>): Promise<string | undefined> {
  return work.then(
    () => undefined,
    (cause) => asGatewayError(cause).code,
  )
}

function attempt(work: () => void): void {
  try {
    work()
  } catch {
    // see the callers
  }
}
