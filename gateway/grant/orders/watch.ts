/**
 * Says when a grant ends while something under it still lasts: at once when this process ends it, within a second when its
 * time comes or another replica ends it, and also when nobody can say for too long. Nothing runs while nobody watches.
 */
import type { Clock } from '../../protocol/clock.ts'
import type { Grant } from '../../protocol/grant.ts'
import { asGatewayError, type GatewayError } from '../../protocol/problem.ts'
import { type Placed, Roster } from '../../protocol/roster.ts'
import type { Service } from '../../protocol/service.ts'
import { invalid } from '../chain/presented.ts'
import type { Liveness } from '../life/liveness.ts'
import { marksOf } from '../life/task.ts'
import { type GrantState, type GrantStore, storeUnavailable } from '../store/store.ts'

/** With the time in which a store answers, and in which a call comes to be watched, within the second of DESIGN §2, promise 8. */
const LOOK_MS = 400
/** A store that is away for longer than this may have been told of an end that we do not hear of. */
const UNKNOWN_MS = 5_000

type Cut = (why: GatewayError) => void

interface Lasting extends Placed {
  readonly cut: Cut
}

interface Watched {
  readonly grant: Grant
  /** That the call goes to; absent: it goes nowhere yet. */
  readonly service: Service | undefined
  readonly marks: readonly string[]
  readonly lasting: Roster<Lasting>
  /** Monotonic time at which the store was asked when it last said that the grant lives. */
  knownAtMs: number
}

const ALIVE: GrantState = { ended: undefined, isSuspended: false }

export class Watch {
  readonly #store: Pick<GrantStore, 'trustMs' | 'states'>
  readonly #liveness: Liveness
  readonly #clock: Clock
  readonly #closureOf: (service: Service) => GatewayError | undefined
  /** tenant, id and service → what is told of its end */
  readonly #watched = new Map<string, Watched>()
  #timer: NodeJS.Timeout | undefined
  #isAsking = false

  constructor(o: {
    readonly store: Pick<GrantStore, 'trustMs' | 'states'>
    readonly liveness: Liveness
    readonly clock: Clock
    /** Why no call goes to a service any more. Default: all are open. */
    closureOf?(service: Service): GatewayError | undefined
  }) {
    this.#closureOf = o.closureOf ?? (() => undefined)
    this.#store = o.store
    this.#liveness = o.liveness
    this.#clock = o.clock
    o.liveness.onChange((tenant, mark) => this.#changed(tenant, mark))
  }

  /** Grants that are watched now. */
  get size(): number {
    return this.#watched.size
  }

  /**
   * @param cut called at most once, never before this returns: `grant_expired`, `grant_revoked`, `task_suspended`,
   *   `access_blocked`, `store_unavailable`, … Must not throw.
   * @param service that the call goes to, so that it is cut when that is closed.
   * @returns stops watching. Idempotent.
   */
  watch(grant: Grant, cut: Cut, service?: Service): () => void {
    const key = keyOf({ grant, service })
    const lasting = { cut, place: -1 }
    const known = this.#watched.get(key)
    const watched = known ?? this.#begin(key, grant, service)
    watched.lasting.add(lasting)
    return () => {
      watched.lasting.delete(lasting)
      if (watched.lasting.size === 0) this.#forget(watched)
    }
  }

  /** Orders have changed. */
  recheck(): void {
    for (const watched of [...this.#watched.values()]) this.#check(watched, ALIVE)
  }

  #begin(key: string, grant: Grant, service: Service | undefined): Watched {
    const watched = {
      grant,
      service,
      marks: marksOf(grant),
      lasting: new Roster<Lasting>(),
      knownAtMs: this.#clock.elapsedMs(),
    }
    this.#watched.set(key, watched)
    this.#timer ??= setInterval(() => this.#look(), LOOK_MS).unref()
    // It may have ended between its authentication and now. What others end is heard of at the next look.
    if (this.#isShared) queueMicrotask(() => this.#check(watched, ALIVE))
    else void this.#ask([watched])
    return watched
  }

  get #isShared(): boolean {
    return this.#store.trustMs !== Number.POSITIVE_INFINITY
  }

  /** This process has ended or suspended something. */
  #changed(tenant: string, mark: string): void {
    const hit = [...this.#watched.values()].filter(
      ({ grant, marks }) => grant.tenant === tenant && marks.includes(mark),
    )
    const left = hit.filter((watched) => this.#check(watched, ALIVE))
    if (left.length > 0) void this.#ask(left)
  }

  #look(): void {
    const left = [...this.#watched.values()].filter((watched) => this.#check(watched, ALIVE))
    if (!this.#isShared) return
    const unknownSinceMs = this.#clock.elapsedMs() - UNKNOWN_MS
    for (const watched of left) if (watched.knownAtMs < unknownSinceMs) this.#end(watched, storeUnavailable(undefined))
    if (this.#isAsking || this.#watched.size === 0) return
    this.#isAsking = true
    void this.#ask([...this.#watched.values()]).finally(() => {
      this.#isAsking = false
    })
  }

  /** Never rejects: a store that does not answer leaves what it was asked about unknown. */
  async #ask(all: readonly Watched[]): Promise<void> {
    const askedAtMs = this.#clock.elapsedMs()
    for (const [tenant, some] of Map.groupBy(all, ({ grant }) => grant.tenant)) {
      try {
        const states = await this.#store.states(
          tenant,
          some.map(({ grant }) => grant.id),
        )
        for (const [i, watched] of some.entries()) {
          watched.knownAtMs = askedAtMs
          this.#check(watched, states[i])
        }
      } catch {
        // See `knownAtMs`.
      }
    }
  }

  /** @returns whether it goes on. */
  #check(watched: Watched, state: GrantState | undefined): boolean {
    const { grant, marks, service } = watched
    try {
      const closure = service && this.#closureOf(service)
      if (closure !== undefined) throw closure
      if (state === undefined) throw invalid('The grant is not known to this gateway any more.')
      this.#liveness.check(grant, { ...state, stored: { tenant: grant.tenant, marks } })
      return true
    } catch (cause) {
      this.#end(watched, asGatewayError(cause))
      return false
    }
  }

  #end(watched: Watched, why: GatewayError): void {
    const all = watched.lasting.all()
    for (const lasting of all) watched.lasting.delete(lasting)
    this.#forget(watched)
    // Each by itself: that one fails must not spare the others.
    for (const { cut } of all) queueMicrotask(() => cut(why))
  }

  #forget(watched: Watched): void {
    const key = keyOf(watched)
    if (this.#watched.get(key)?.lasting === watched.lasting) this.#watched.delete(key)
    if (this.#watched.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }
}

function keyOf({ grant, service }: Pick<Watched, 'grant' | 'service'>): string {
  return `${grant.tenant} ${grant.id} ${service?.name ?? ''}`
}
