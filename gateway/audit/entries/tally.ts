/** What passes through the record, counted: for heartbeats, and for whoever watches. On the path of every call: plain additions. */
import type { Proposal } from '../../protocol/instruction.ts'
import type { TurnedAway } from '../../protocol/message.ts'
import type { JsonValue } from '../canonical.ts'
import type { LeaseFacts } from './record.ts'

/** Told of everything that is recorded. Must not throw, and must take next to no time. Durations in milliseconds. */
export interface Watcher {
  /** A call was allowed, and that is durable. @param afterMs since its head was read. */
  allowed(service: string, afterMs: number): void
  /** A call has its credential and goes out. */
  leased(service: string, lease: LeaseFacts, afterMs: number): void
  /** An allowed call is over. @param code of its refusal, when it was refused after all. */
  ended(service: string, code: string | undefined, afterMs: number): void
  /** @param service undefined: it got to none. @param isKnown whether its caller proved who it is. */
  refused(service: string | undefined, code: string, isKnown: boolean): void
  /** A credential came back in an answer. @param fate what became of it. */
  leaked(service: string, fate: string): void
  /** An instruction took effect. */
  performed(kind: Proposal['kind'], afterMs: number): void
  /** An instruction was refused, or failed. */
  denied(code: string): void
  /** Anything else that was recorded: `lease.issued`, … */
  noted(kind: string, facts: Readonly<Record<string, JsonValue | undefined>>): void
}

/** Numbers since the start of the process. */
export class Tally {
  /** Calls that were allowed. */
  allowed = 0
  /** Calls that were refused before anything was done. */
  refused = 0
  /** Allowed calls that have not ended. */
  open = 0
  /** What never became a request or an instruction, by why. */
  readonly turnedAway: Partial<Record<TurnedAway, number>> = {}
  readonly watcher: Watcher | undefined

  constructor(watcher?: Watcher) {
    this.watcher = watcher
  }

  turnAway(why: TurnedAway): void {
    this.turnedAway[why] = (this.turnedAway[why] ?? 0) + 1
  }
}
