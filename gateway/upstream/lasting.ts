/**
 * Calls that last are cut when their grant ends. A sweep hands those it still finds to whoever watches grants, so that a call
 * which is over soon pays for its place in a roster and nothing else.
 */
import type { Standing } from '../protocol/decision.ts'
import type { Grant } from '../protocol/grant.ts'
import type { GatewayError } from '../protocol/problem.ts'
import { type Placed, Roster } from '../protocol/roster.ts'
import type { Service } from '../protocol/service.ts'

/** @param cut called at most once, never before this returns. @returns stops watching. */
export type WatchCall = (
  call: Pick<Lasting, 'grant' | 'service' | 'standing'>,
  cut: (why: GatewayError) => void,
) => () => void

export interface Lasting extends Placed {
  /** Under which the call was allowed. */
  readonly grant: Grant
  /** That it goes to. */
  readonly service: Service
  /** On what it was decided: it is decided again while it lasts. */
  readonly standing: Standing
  /** Written only by `LastingCalls`; undefined: it is not watched yet, or not any more. */
  unwatch: (() => void) | undefined
  /** End the call, now. Must not throw. */
  cut(why: GatewayError): void
}

/** A call that lasts longer than this is watched. */
const SWEEP_MS = 200

export class LastingCalls {
  readonly #watch: WatchCall
  /** Not watched yet. */
  readonly #young = new Roster<Lasting>()
  #watched = 0
  #timer: NodeJS.Timeout | undefined

  constructor(watch: WatchCall) {
    this.#watch = watch
  }

  /** Calls that are open. */
  get size(): number {
    return this.#young.size + this.#watched
  }

  add(call: Lasting): void {
    this.#young.add(call)
    this.#timer ??= setInterval(() => this.#sweep(), SWEEP_MS).unref()
  }

  /** The call is over. */
  delete(call: Lasting): void {
    if (this.#young.delete(call) || call.unwatch === undefined) return
    this.#watched -= 1
    call.unwatch()
    call.unwatch = undefined
  }

  #sweep(): void {
    if (this.#young.size === 0) {
      clearInterval(this.#timer)
      this.#timer = undefined
      return
    }
    for (const call of this.#young.all()) {
      call.unwatch = this.#watch(call, (why) => call.cut(why))
      this.#young.delete(call)
      this.#watched += 1
    }
  }
}
