/**
 * Whether what the logs tell is possible at all: every decision under policies that were loaded, every call under a living grant
 * that somebody made, every credential obtained before it was used. Sees the entries of all logs of a fleet, merged by time.
 */
import { type Fact, type LeaseClaim, type MadeGrant, madeMs } from './scrutiny-facts.ts'
import { type GrantOptions, Grants, type Use } from './scrutiny-grants.ts'
import { Leases } from './scrutiny-leases.ts'
import type { Ledger } from './scrutiny-ledger.ts'
import type { Check } from './verdict.ts'

export interface ConductOptions extends GrantOptions {
  /** Several logs: they are all there are, so what none of them has does not exist. */
  readonly isFleet: boolean
}

/** An issuer may take 10 s, and so may waiting for another replica that asks it (milliseconds). */
const LEASE_WAIT_MS = 22_000
/** Clocks of replicas differ: something may stand earlier in the one log than what it hangs on in the other. */
const SKEW_MS = 30_000

/** Asked again when more is known. */
interface Deferred {
  readonly atMs: number
  retry(): void
}

export class Conduct {
  readonly #o: ConductOptions
  readonly #grants: Grants
  readonly #leases = new Leases()
  /** Run of a gateway → digests of the policies that it has loaded. */
  readonly #policies = new Map<string, Set<string>>()
  #deferred: Deferred[] = []
  /** What no log has, while one of them has not been read as far. */
  #unsure: Missing[] = []
  readonly #logs = new Set<Ledger['scrutiny']>()

  constructor(o: ConductOptions) {
    this.#o = o
    this.#grants = new Grants(o)
  }

  /** @param decidedMs of an outcome: when its call was decided. */
  take(fact: Fact, index: number, ledger: Ledger, decidedMs: number | undefined): void {
    this.#logs.add(ledger.scrutiny)
    this.#settle(fact.ms - SKEW_MS)
    if (fact.chain && !fact.chain.isHashed)
      ledger.findings.fault('grant', index, 'the hash of the lineage is not that of its steps')
    this.#policy(fact, index, ledger)
    if (fact.made) this.#made(fact, fact.made, index, ledger)
    if (fact.ends) this.#grants.end(fact, ledger)
    if (fact.kind === 'log.stalled') this.#stalled(fact, ledger)
    if (fact.kind === 'grant.failed' && fact.req !== undefined) this.#grants.failed(fact.req)
    if (fact.lease && fact.isLate) this.#leases.add(fact.lease, fact.ms)
    else if (fact.lease) this.#leased(fact, fact.lease, index, ledger)
    if (fact.decision?.effect === 'allow') this.#decided(fact, index, ledger)
    if (fact.outcome && fact.grant !== undefined && decidedMs !== undefined)
      this.#grants.ended({
        id: fact.grant,
        chain: fact.chain,
        fact,
        index,
        ledger,
        what: 'the outcome is of a call under',
      })
    if (fact.outcome?.lease && decidedMs !== undefined)
      this.#ended(fact, fact.outcome.lease, { index, ledger, decidedMs })
  }

  /** The gateway that wrote this log died after the entry of `lastMs`. */
  crashed(ledger: Ledger, lastMs: number): void {
    this.#grants.crashed(ledger, lastMs)
  }

  /** After the last entry of all logs. */
  finish(): void {
    this.#settle(Number.POSITIVE_INFINITY)
    for (const { check, index, ledger, ms, what } of this.#unsure)
      if (this.#mayBeUnread(ms))
        ledger.findings.warn(check, index, `${what}; a log that goes on was read or copied before it was written`)
      else ledger.findings.fault(check, index, what)
  }

  #stalled({ facts }: Fact, ledger: Ledger): void {
    const [fromMs, ms] = [facts?.from_ms, facts?.ms]
    if (typeof fromMs === 'number' && typeof ms === 'number') this.#grants.stalled({ fromMs, ms }, ledger)
  }

  #policy({ kind, boot = '', policySet }: Fact, index: number, ledger: Ledger): void {
    if (policySet === undefined) return
    const loaded = this.#policies.get(boot) ?? new Set()
    if (kind === 'policy.loaded') this.#policies.set(boot, loaded.add(policySet))
    else if (!loaded.has(policySet) && ledger.scrutiny.hasStart)
      ledger.findings.fault(
        'policy',
        index,
        `the decision is under the policies ${policySet}, and no entry in front of it says that this run of the gateway had loaded them`,
      )
  }

  #made(fact: Fact, made: MadeGrant, index: number, ledger: Ledger): void {
    this.#grants.make(made, fact, index, ledger)
    const { parent } = made
    if (parent === undefined) return
    this.#need(
      fact,
      () => this.#grants.checkChild(made, fact, index, ledger),
      () =>
        this.#absent(
          {
            ...{ check: 'grant', index, ledger, ms: fact.ms },
            what: `the grant ${made.id} was delegated below ${parent}, which no entry made`,
          },
          parent,
        ),
    )
    this.#grants.use({ id: parent, chain: undefined, fact, index, ledger, waitMs: 0, what: 'the entry delegates' })
  }

  #leased(fact: Fact, lease: LeaseClaim, index: number, ledger: Ledger): void {
    const { grant, tookMs, expires } = lease
    this.#leases.add(lease, fact.ms)
    const what = 'a credential was obtained under'
    this.#used({ id: grant, chain: fact.chain, fact, index, ledger, waitMs: tookMs + LEASE_WAIT_MS, what })
    const made = this.#grants.get(grant)
    if (made && expires > made.expires)
      ledger.findings.fault('lease', index, `the credential outlives the grant ${grant}, for which it was obtained`)
  }

  #decided(fact: Fact, index: number, ledger: Ledger): void {
    const { grant, policySet, chain } = fact
    if (policySet === undefined) ledger.findings.fault('policy', index, 'the call was allowed, and under no policies')
    if (grant !== undefined) this.#used({ id: grant, chain, fact, index, ledger, waitMs: 0, what: 'the call uses' })
    else ledger.findings.fault('grant', index, 'the call was allowed, and under no grant')
  }

  #ended(fact: Fact, lease: LeaseClaim, { index, ledger, decidedMs }: Ending): void {
    const { grant, id, expires } = lease
    if (decidedMs > expires * 1000 + 1000 + this.#o.boundMs)
      ledger.findings.fault('lease', index, 'the credential of the call had expired before the call was decided')
    this.#need(
      fact,
      () => this.#leases.has(lease),
      () =>
        this.#absent(
          {
            ...{ check: 'lease', index, ledger, ms: fact.ms },
            what: `no entry says how the credential ${id} of the call was obtained for the grant ${grant}`,
          },
          grant,
        ),
    )
  }

  #used(use: Use): void {
    const { fact, index, ledger, id, what } = use
    this.#need(
      fact,
      () => this.#grants.use(use),
      () =>
        this.#absent(
          { check: 'grant', index, ledger, ms: fact.ms, what: `${what} the grant ${id}, which no entry made` },
          id,
        ),
    )
  }

  /** In a fleet, what is not there yet may come within the difference of the clocks. */
  #need({ ms }: Fact, isThere: () => boolean, absent: () => void): void {
    if (isThere()) return
    const retry = () => {
      if (!isThere()) absent()
    }
    if (this.#o.isFleet) this.#deferred.push({ atMs: ms, retry })
    else absent()
  }

  #settle(beforeMs: number): void {
    let done = 0
    for (const { atMs, retry } of this.#deferred) {
      if (atMs >= beforeMs) break
      retry()
      done += 1
    }
    if (done > 0) this.#deferred.splice(0, done)
  }

  /** @param id of the grant that is not known, or whose credential is not. Older than this log it may be in one that was before it; and another replica may have it. */
  #absent(missing: Missing, id: string): void {
    const { check, index, ledger, ms, what } = missing
    const { findings, scrutiny } = ledger
    if (scrutiny.mayPrecede(madeMs(id)))
      findings.warn(check, index, `${what}; it is older than the first entry of this log`)
    else if (!this.#o.isFleet && scrutiny.isShared !== false)
      findings.warn(check, index, `${what}; another replica may have, so name the directories of all`)
    else if (this.#mayBeUnread(ms)) this.#unsure.push(missing)
    else findings.fault(check, index, what)
  }

  /** Directories are read, and copied, one after the other: what the one ends with may come in the other behind its end. */
  #mayBeUnread(ms: number): boolean {
    return this.#o.isFleet && [...this.#logs].some((log) => log.endsBefore(ms + SKEW_MS))
  }
}

interface Ending {
  readonly index: number
  readonly ledger: Ledger
  readonly decidedMs: number
}

interface Missing {
  readonly check: Check
  readonly index: number
  readonly ledger: Ledger
  /** When it was needed. */
  readonly ms: number
  readonly what: string
}
