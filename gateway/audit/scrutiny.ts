/** How an entry must fit to those before it in the same log: place, time, runs of the gateway, heartbeats, calls. Sees every entry once, in order. */
import { type Fact, madeMs } from './scrutiny-facts.ts'
import { CLOCK_SKEW_MS } from './sequencer.ts'
import type { Findings } from './verify-verdict.ts'

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
}

/** Slack for a process that is busy, as a share of what it promised. */
const LATE = 2
/** Seconds, where the log does not say: the default of `audit.heartbeat_s`. */
const DEFAULT_HEARTBEAT_S = 60

export class Scrutiny {
  readonly #o: ScrutinyOptions
  #latestMs = 0
  #firstMs: number | undefined
  /** The first entry of the run that the last ones are of was among those that were seen. */
  #hasStart = false
  /** `req` of allowed calls without an outcome. Empties at each start: a call does not outlive its process. */
  readonly #open = new Map<string, OpenCall>()
  #cutShort = 0
  #calls = 0
  /** Of the run that the last entries are of; undefined before its first entry with a name. */
  #boot: string | undefined
  readonly #boots = new Set<string>()
  /** The last entry was `log.sealed`: only another start may follow. */
  #isSealed = false
  #isShared: boolean | undefined
  /** Since when nothing has shown that the gateway lives; undefined while none runs, or none has promised heartbeats. */
  #aliveMs: number | undefined
  #heartbeatMs = 0
  #crashes = 0

  constructor(o: ScrutinyOptions) {
    this.#o = o
  }

  get openCalls(): number {
    return this.#open.size + this.#cutShort
  }

  get calls(): number {
    return this.#calls
  }

  /** Whether other replicas use the same leases; undefined when the log does not say. */
  get isShared(): boolean | undefined {
    return this.#isShared
  }

  /** Time of the first entry whose text is there. */
  get firstMs(): number | undefined {
    return this.#firstMs
  }

  /** Whether all of the present run is there to look at; retention may have taken its beginning. */
  get hasStart(): boolean {
    return this.#hasStart
  }

  get latestMs(): number {
    return this.#latestMs
  }

  /** How often the log was opened without having been sealed. */
  get crashes(): number {
    return this.#crashes
  }

  /** @returns when the call was decided, for an outcome that has its decision. */
  take(fact: Fact, index: number): number | undefined {
    this.#firstMs ??= fact.ms
    this.#hasStart ||= index === 0 || fact.kind === 'log.opened'
    this.#place(fact, index)
    if (fact.kind === 'log.opened') this.#restart(index)
    if (this.#o.isWhole) this.#run(fact, index)
    if (fact.kind === 'log.sealed') this.#isSealed = true
    else if (!STARTING.has(fact.kind) || fact.kind === 'log.opened') this.#isSealed = false
    return this.#call(fact, index)
  }

  /** After the last entry. */
  finish(): void {
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

  #run({ kind, ms, boot, facts }: Fact, index: number): void {
    const { findings } = this.#o
    if (kind === 'log.opened') this.#begin(facts?.heartbeat_s, facts?.shared)
    else this.#beat(kind, ms, index)
    if (this.#isSealed && !STARTING.has(kind))
      findings.fault('run', index, 'the entry was written after the log was sealed, and before it was opened again')
    this.#aliveMs = kind !== 'log.sealed' && this.#heartbeatMs > 0 ? ms : undefined
    if (boot === undefined || boot === this.#boot) return
    // Between two starts there is one process, and a process that has ended does not come back.
    if (this.#boot !== undefined || this.#boots.has(boot))
      findings.fault('run', index, `the entry is of another run of the gateway (${boot}) than those around it`)
    this.#boot = boot
    this.#boots.add(boot)
  }

  #begin(heartbeatS: unknown, isShared: unknown): void {
    this.#boot = undefined
    this.#heartbeatMs = typeof heartbeatS === 'number' ? heartbeatS * 1000 : 0
    if (typeof isShared === 'boolean') this.#isShared = isShared
  }

  #beat(kind: string, ms: number, index: number): void {
    if (kind === 'log.heartbeat' && this.#heartbeatMs === 0) this.#heartbeatMs = DEFAULT_HEARTBEAT_S * 1000
    const since = this.#aliveMs
    if (since === undefined || kind === 'log.clock_set_back' || kind === 'log.recovered') return
    if (ms - since > this.#heartbeatMs * LATE)
      this.#o.findings.warn(
        'heartbeat',
        index,
        `for ${Math.round((ms - since) / 1000)} s before this entry there is none, though the gateway ran and promised one every ${this.#heartbeatMs / 1000} s: the machine slept, the disk failed, or entries were kept back`,
      )
  }

  #restart(index: number): void {
    if (index > 0 && !this.#isSealed) this.#crashes += 1
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

  #decided({ decision, ms }: Fact, req: string, index: number): undefined {
    this.#calls += 1
    if (decision?.effect !== 'allow' && decision?.effect !== 'deny')
      return this.#fault(index, 'the decision neither allows nor denies')
    if (!decision.hasTarget) return this.#fault(index, 'the decision names no target')
    if (this.#open.has(req)) return this.#fault(index, `the call ${req} was decided before`)
    if (decision.effect === 'allow') this.#open.set(req, { seq: index, ms })
    return undefined
  }

  #ended({ outcome }: Fact, req: string, index: number): number | undefined {
    if (!outcome) return this.#fault(index, 'the outcome says nothing')
    const decided = this.#open.get(req)
    if (!decided && !this.#hasStart && (madeMs(req) ?? 0) < (this.#firstMs ?? 0)) return undefined
    if (!decided)
      return this.#fault(
        index,
        `the outcome of call ${req} has no decision in front of it that allowed it, or is its second`,
      )
    this.#open.delete(req)
    return decided.ms
  }

  #fault(index: number, what: string): undefined {
    this.#o.findings.fault('call', index, what)
    return undefined
  }
}

/** What may stand in front of the first entry of a run, and the first entry. */
const STARTING: ReadonlySet<string> = new Set(['log.opened', 'log.recovered', 'log.clock_set_back'])

function iso(ms: number): string {
  return new Date(ms).toISOString()
}
