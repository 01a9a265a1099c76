/** How an entry must fit to those before it in the same log: place, time, runs of the gateway, heartbeats, calls. Sees every entry once, in order. */

import { CLOCK_SKEW_MS } from '../entries/notices.ts'
import { type Fact, madeMs } from './scrutiny-facts.ts'
import { Runs, STARTING } from './scrutiny-run.ts'
import type { Findings } from './verdict.ts'

export interface ScrutinyOptions {
  readonly origin: string
  readonly findings: Findings
  /** Milliseconds after which an allowed call without outcome is worth a word. */
  readonly openMs: number
  /** Whether runs and heartbeats are looked at as well, not only what integrity needs. */
  readonly isWhole: boolean
}

interface OpenCall {
  readonly seq: number
  readonly ms: number
  readonly grant: string | undefined
}

export class Scrutiny {
  readonly #o: ScrutinyOptions
  #latestMs = 0
  #firstMs: number | undefined
  #isCut = false
  /** The first entry of the run that the last ones are of was among those that were seen. */
  #hasStart = false
  /** `req` of allowed calls without an outcome. Empties at each start: a call does not outlive its process. */
  readonly #open = new Map<string, OpenCall>()
  #cutShort = 0
  #calls = 0
  readonly #runs: Runs
  #crashes = 0
  /** Time of the last entry of a run. */
  #aliveMs = 0

  constructor(o: ScrutinyOptions) {
    this.#o = o
    this.#runs = new Runs(o.findings)
  }

  get openCalls(): number {
    return this.#open.size + this.#cutShort
  }

  get calls(): number {
    return this.#calls
  }

  /** Whether other replicas use the same leases; undefined when the log does not say. */
  get isShared(): boolean | undefined {
    return this.#runs.isShared
  }

  /** Whether what came into being at this time may be from before the first entry whose text is there. */
  mayPrecede(bornMs: number | undefined): boolean {
    // Where retention took the beginning, what stood there may be a moment older than what is left, by another clock.
    const slackMs = this.#isCut ? CLOCK_SKEW_MS : -1
    return bornMs !== undefined && this.#firstMs !== undefined && bornMs <= this.#firstMs + slackMs
  }

  /** Whether all of the present run is there to look at; retention may have taken its beginning. */
  get hasStart(): boolean {
    return this.#hasStart
  }

  /** When the last run was last heard of. */
  get aliveMs(): number {
    return this.#aliveMs
  }

  /** Whether it goes on, and what was read of it ends before this time. */
  endsBefore(ms: number): boolean {
    return !this.#runs.isSealed && this.#latestMs < ms
  }

  /** How often the log was opened without having been sealed. */
  get crashes(): number {
    return this.#crashes
  }

  /** @returns when the call was decided, for an outcome that has its decision. */
  take(fact: Fact, index: number): number | undefined {
    if (this.#firstMs === undefined) this.#isCut = index > 0
    this.#firstMs ??= fact.ms
    this.#hasStart ||= index === 0 || fact.kind === 'log.opened'
    this.#place(fact, index)
    if (fact.kind === 'log.opened') this.#restart(index)
    if (!STARTING.has(fact.kind)) this.#aliveMs = fact.ms
    if (this.#o.isWhole) this.#runs.take(fact, index)
    return this.#call(fact, index)
  }

  /** After the last entry. */
  finish(): void {
    if (this.#o.isWhole) this.#runs.finish(this.#latestMs)
    const before = this.#latestMs - this.#o.openMs
    for (const [req, { seq, ms }] of this.#open) {
      if (ms >= before) return // in order, unless the clock was set back
      const minutes = Math.round((this.#latestMs - ms) / 60_000)
      this.#o.findings.warn(
        'call',
        seq,
        `the call ${req} was allowed ${minutes} min before the last entry, and has no outcome`,
      )
    }
  }

  #place({ kind, seq, ms, log }: Fact, index: number): void {
    const { findings, origin } = this.#o
    if (seq !== index) findings.fault('order', index, `the entry is numbered ${seq}, and stands at ${index}`)
    if (log !== undefined && log !== origin) findings.fault('order', index, `the entry is of the log "${log}"`)
    const isLate = ms < this.#latestMs - CLOCK_SKEW_MS
    if (kind === 'log.clock_set_back') this.#latestMs = ms
    else if (isLate)
      findings.fault('order', index, `the entry is of ${iso(ms)}, more than 30 s before one in front of it`)
    this.#latestMs = Math.max(this.#latestMs, ms)
  }

  #restart(index: number): void {
    if (index > 0 && !this.#runs.isSealed) this.#crashes += 1
    if (this.#open.size > 0)
      this.#o.findings.warn(
        'call',
        index,
        `${this.#open.size} allowed calls had no outcome when the gateway was started again: it crashed, or cut them short`,
      )
    this.#cutShort += this.#open.size
    this.#open.clear()
  }

  #call(fact: Fact, index: number): number | undefined {
    const { kind, req } = fact
    if (kind !== 'call.decision' && kind !== 'call.outcome') return undefined
    if (typeof req !== 'string' || req === '') return this.#fault(index, 'the entry of a call names no call')
    return kind === 'call.decision' ? this.#decided(fact, req, index) : this.#ended(fact, req, index)
  }

  #decided({ decision, grant, ms }: Fact, req: string, index: number): undefined {
    this.#calls += 1
    if (decision?.effect !== 'allow' && decision?.effect !== 'deny')
      return this.#fault(index, 'the decision neither allows nor denies')
    if (!decision.hasTarget) return this.#fault(index, 'the decision names no target')
    if (this.#open.has(req)) return this.#fault(index, `the call ${req} was decided before`)
    if (decision.effect === 'allow') this.#open.set(req, { seq: index, ms, grant })
    return undefined
  }

  #ended({ outcome, grant }: Fact, req: string, index: number): number | undefined {
    if (!outcome) return this.#fault(index, 'the outcome says nothing')
    const decided = this.#open.get(req)
    if (!decided && !this.#hasStart && this.mayPrecede(madeMs(req))) return undefined
    if (!decided)
      return this.#fault(
        index,
        `the outcome of call ${req} has no decision in front of it that allowed it, or is its second`,
      )
    this.#open.delete(req)
    if (decided.grant !== grant)
      this.#fault(index, `the outcome of call ${req} is under another grant than its decision`)
    return decided.ms
  }

  #fault(index: number, what: string): undefined {
    this.#o.findings.fault('call', index, what)
    return undefined
  }
}

function iso(ms: number): string {
  return new Date(ms).toISOString()
}
