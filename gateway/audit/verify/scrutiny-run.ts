/**
 * One run of the gateway after the other, as the log tells of them: opened, alive, sealed or not. Heartbeats count what the run had
 * done by then, so that what was taken out of a run, or put into it, is missed.
 */
import type { Fact } from './scrutiny-facts.ts'
import type { Findings } from './verdict.ts'

/** What may stand in front of the first entry of a run, and the first entry. */
export const STARTING: ReadonlySet<string> = new Set(['log.opened', 'log.recovered', 'log.clock_set_back'])

/** A busy process, or a slow disk, may be late by as much as it promised. */
const LATE = 2

interface Beat {
  readonly ms: number
  readonly everyMs: number
  /** Entries of this run in front of it. */
  readonly allowed: number
  readonly ended: number
}

export class Runs {
  readonly #findings: Findings
  /** Of the run that the last entries are of; undefined before its first entry with a name. */
  #boot: string | undefined
  readonly #boots = new Set<string>()
  #isSealed = false
  #isShared: boolean | undefined
  /** The first entry of the present run was among those that were seen. */
  #hasStart = false
  #allowed = 0
  #ended = 0
  #beat: Beat | undefined

  constructor(findings: Findings) {
    this.#findings = findings
  }

  /** Whether other replicas use the same leases; undefined when the log does not say. */
  get isShared(): boolean | undefined {
    return this.#isShared
  }

  /** The last entry sealed the log. */
  get isSealed(): boolean {
    return this.#isSealed
  }

  take(fact: Fact, index: number): void {
    const { kind, ms, facts } = fact
    if (this.#isSealed && !STARTING.has(kind))
      this.#fault(index, 'the entry was written after the log was sealed, and before it was opened again')
    if (kind === 'log.opened') this.#begin(facts?.shared)
    if (kind === 'call.decision' && fact.decision?.effect === 'allow') this.#begun(index)
    if (kind === 'call.outcome') this.#ended += 1
    if (kind === 'log.heartbeat') this.#beaten(fact, index)
    if (kind === 'log.sealed') this.#late(ms, index)
    if (kind === 'log.clock_set_back' && this.#beat) this.#beat = { ...this.#beat, ms }
    this.#isSealed = kind === 'log.sealed' || (this.#isSealed && kind !== 'log.opened')
    this.#named(fact.boot, index)
  }

  finish(latestMs: number): void {
    if (!this.#isSealed) this.#late(latestMs, null)
  }

  /** A run begins with a heartbeat: nothing else counts what was taken out of it. */
  #begun(index: number): void {
    if (this.#hasStart && this.#allowed === 0 && !this.#beat)
      this.#findings.warn(
        'heartbeat',
        index,
        'no heartbeat stands in front of the first call of this run: it could not be written, or entries are missing',
      )
    this.#allowed += 1
  }

  #begin(isShared: unknown): void {
    this.#boot = undefined
    this.#beat = undefined
    this.#hasStart = true
    this.#allowed = 0
    this.#ended = 0
    if (typeof isShared === 'boolean') this.#isShared = isShared
  }

  #named(boot: string | undefined, index: number): void {
    if (boot === undefined || boot === this.#boot) return
    // Between two starts there is one process, and a process that has ended does not come back.
    if (this.#boot !== undefined || this.#boots.has(boot))
      this.#fault(index, `the entry is of another run of the gateway (${boot}) than those around it`)
    this.#boot = boot
    this.#boots.add(boot)
  }

  #beaten({ ms, facts }: Fact, index: number): void {
    const { allowed, open, every_ms: everyMs } = facts ?? {}
    this.#late(ms, index)
    if (typeof everyMs !== 'number') return
    if (this.#hasStart && typeof allowed === 'number' && typeof open === 'number')
      this.#count({ allowed, ended: allowed - open }, index)
    this.#beat = { ms, everyMs, allowed: this.#allowed, ended: this.#ended }
  }

  /**
   * What it counts was in the log before it, and what was in the log at the last one is counted by now. Between the two there may
   * be calls on their way from the disk to the count.
   */
  #count(told: { allowed: number; ended: number }, index: number): void {
    for (const [name, now, seen, before] of [
      ['calls that were allowed', told.allowed, this.#allowed, this.#beat?.allowed ?? 0],
      ['calls that ended', told.ended, this.#ended, this.#beat?.ended ?? 0],
    ] as const) {
      if (now > seen)
        this.#fault(
          index,
          `the heartbeat counts ${now} ${name}, and ${seen} stand in front of it in its run: entries were removed`,
        )
      if (now < before)
        this.#fault(
          index,
          `the heartbeat counts ${now} ${name}, and the log had ${before} at the one before: entries were added`,
        )
    }
  }

  #late(ms: number, index: number | null): void {
    const { ms: sinceMs, everyMs } = this.#beat ?? { ms, everyMs: 0 }
    if (ms - sinceMs <= everyMs * LATE) return
    const told = `for ${Math.round((ms - sinceMs) / 1000)} s there is no heartbeat, and every ${everyMs / 1000} s there should be one`
    this.#findings.warn(
      'heartbeat',
      index,
      `${told}: the gateway stood still or could not write, or its entries are missing`,
    )
  }

  #fault(index: number, what: string): void {
    this.#findings.fault('run', index, what)
  }
}
