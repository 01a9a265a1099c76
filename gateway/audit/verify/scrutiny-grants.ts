/**
 * The grants that the logs tell of, what ended them, and whether each was made and used as it may be: a child only loses, and
 * nothing is used after its end. Sees the entries of all logs of a fleet, merged by time.
 */
import type { Authority } from '../../protocol/grant.ts'
import { begunMs, type Fact, type MadeGrant } from './scrutiny-facts.ts'
import type { Ledger } from './scrutiny-ledger.ts'

export interface GrantOptions {
  /** Milliseconds that an end may take to reach every replica. */
  readonly boundMs: number
  /** In what the child is wider than the parent, a line for each; empty when it lies within. */
  excess(parent: readonly Authority[], child: readonly Authority[]): readonly string[]
}

interface Known {
  readonly made: MadeGrant
  readonly chain: Fact['chain']
  readonly who: Fact['who']
  /** Whose end is its own. */
  readonly marks: readonly string[]
  /** Another grant claims the same id: which of them is used cannot be told. */
  isAmbiguous: boolean
}

interface Ended {
  /** When it took effect. */
  ms: number
  readonly req: string | undefined
  readonly ledger: Ledger
  /** False: recorded as about to happen, and then it failed, or the process died. */
  isSure: boolean
}

/** How a grant is used: by a call, for a lease, or by being delegated. */
export interface Use {
  readonly id: string
  /** The lineage that it is used with. */
  readonly chain: Fact['chain']
  readonly fact: Fact
  readonly index: number
  readonly ledger: Ledger
  /** Milliseconds that honest waiting can take before the grant is looked at. */
  readonly waitMs: number
  readonly what: string
}

/** What has expired for so long is named by nothing any more, milliseconds. */
const FORGET_MS = 24 * 3_600_000
/** Entries between two rounds of forgetting. */
const ROUND = 100_000

export class Grants {
  readonly #o: GrantOptions
  readonly #known = new Map<string, Known>()
  readonly #ends = new Map<string, Ended>()
  readonly #suspended = new Map<string, Ended>()
  #seen = 0

  constructor(o: GrantOptions) {
    this.#o = o
  }

  get(id: string): MadeGrant | undefined {
    return this.#known.get(id)?.made
  }

  make(made: MadeGrant, { chain, who, ms, kind, req }: Fact, index: number, ledger: Ledger): void {
    this.#forget(ms)
    const present = this.#known.get(made.id)
    // Presented by two at once it is recorded twice. Whoever signs offline chooses the id, and may choose one that is taken.
    if (present) present.isAmbiguous ||= present.chain?.whole !== chain?.whole
    else this.#known.set(made.id, { made, chain, who, marks: marksOf(made), isAmbiguous: false })
    if (made.isDenied)
      ledger.findings.fault('grant', index, `the grant ${made.id} was made by a decision that denied it`)
    if (made.parent === undefined) checkRoot(made, kind, (what) => ledger.findings.fault('grant', index, what))
    if (made.replaces === undefined) return
    this.#suspended.delete(made.task)
    if (!made.isRenewal) this.#end(made.replaces, { ms, req }, ledger)
  }

  /** Hold a delegated grant against the one above it. @returns false when that is not known (yet). */
  checkChild(made: MadeGrant, { chain }: Fact, index: number, { findings }: Ledger): boolean {
    const parent = made.parent === undefined ? undefined : this.#known.get(made.parent)
    if (parent) this.#checkChild(made, chain, parent, (what) => findings.fault('grant', index, what))
    return parent !== undefined
  }

  end(fact: Fact, ledger: Ledger): void {
    if (!fact.ends) return
    const { mark, isSuspension } = fact.ends
    if (isSuspension) this.#suspended.set(mark, { ms: fact.ms, req: fact.req, ledger, isSure: true })
    else this.#end(mark, { ms: fact.ms, req: fact.req }, ledger)
  }

  /** An instruction was recorded and then failed: what it was to end may live on. */
  failed(req: string): void {
    for (const ended of [...this.#ends.values(), ...this.#suspended.values()])
      if (ended.req === req) ended.isSure = false
  }

  /** What was recorded at `fromMs` took effect `ms` later: the disk had taken its time, and calls were let in meanwhile. */
  stalled({ fromMs, ms }: { fromMs: number; ms: number }, ledger: Ledger): void {
    for (const ended of [...this.#ends.values(), ...this.#suspended.values()])
      if (ended.ledger.scrutiny === ledger.scrutiny && ended.ms === fromMs) ended.ms += ms
  }

  /** The process died: what it had just recorded as ended may not have got so far. */
  crashed(ledger: Ledger, lastMs: number): void {
    for (const ended of [...this.#ends.values(), ...this.#suspended.values()])
      if (ended.ledger.scrutiny === ledger.scrutiny && ended.ms >= lastMs - this.#o.boundMs) ended.isSure = false
  }

  /** @returns false when the grant is not known (yet). */
  use(use: Use): boolean {
    const known = this.#known.get(use.id)
    if (!known) return false
    const { fact } = use
    this.#hold(known, use)
    if (fact.ms > known.made.expires * 1000) this.#late(use, known.made.expires * 1000, 'expired', true)
    for (const mark of known.marks) {
      const end = this.#ends.get(mark)
      if (end) this.#late(use, end.ms, mark === use.id ? 'ended' : `ended with ${mark}`, end.isSure)
    }
    const end = this.#suspended.get(known.made.task)
    if (end) this.#late(use, end.ms, 'was suspended with its task', end.isSure)
    return true
  }

  /** The end of a call names those that its grant was made for; when it ended is told by the call itself. */
  ended(use: Omit<Use, 'waitMs'>): void {
    const known = this.#known.get(use.id)
    if (known && !known.isAmbiguous) this.#hold(known, use)
  }

  #hold(known: Known, { id, chain, fact, index, ledger, what }: Omit<Use, 'waitMs'>): void {
    if (known.isAmbiguous) {
      ledger.findings.warn('grant', index, `${what} the grant ${id}, and two grants have that id`)
      return
    }
    const other = chain && known.chain && !isSame(chain, known.chain) ? 'lineage' : otherIn(fact.who, known.who)
    // Of a delegation it is the parent that is used, and the child that is named.
    if (other === undefined || !chain) return
    ledger.findings.fault(
      'grant',
      index,
      `${what} the grant ${id}, but names another ${other} than the entry that made it`,
    )
  }

  #late({ id, fact, index, ledger, waitMs, what }: Use, endMs: number, how: string, isSure: boolean): void {
    const untilMs = endMs + this.#o.boundMs
    if (fact.ms <= untilMs) return
    const late = `${what} the grant ${id} ${((fact.ms - endMs) / 1000).toFixed(1)} s after it ${how}`
    if (!isSure) ledger.findings.warn('ended', index, `${late}; but that had failed, or the gateway had died over it`)
    // It had begun in time, and something held it up between the last look at the grant and the log.
    else if (begunMs(fact) - waitMs <= untilMs)
      ledger.findings.warn('ended', index, `${late}; it had begun before that`)
    else ledger.findings.fault('ended', index, late)
  }

  #end(mark: string, { ms, req }: { ms: number; req: string | undefined }, ledger: Ledger): void {
    const present = this.#ends.get(mark)
    if (!present?.isSure) this.#ends.set(mark, { ms, req, ledger, isSure: true })
  }

  #checkChild(child: MadeGrant, chain: Fact['chain'], above: Known, fault: (what: string) => void): void {
    const parent = above.made
    const name = `the grant ${child.id}`
    if (child.isCut || parent.isCut || above.isAmbiguous) return
    if (child.depth !== parent.depth + 1) fault(`${name} is at depth ${child.depth}, and its parent at ${parent.depth}`)
    if (child.depth > parent.maxDepth)
      fault(`${name} is deeper than ${parent.maxDepth}, the most that its parent allows`)
    if (child.maxDepth > parent.maxDepth) fault(`${name} allows a deeper chain than its parent`)
    if (!parent.delegable) fault(`${name} was delegated below one that cannot be delegated`)
    if (child.expires > parent.expires) fault(`${name} outlives its parent`)
    if (child.task !== parent.task) fault(`${name} is of another task than its parent`)
    const areWhole = chain && above.chain && !chain.isCut && !above.chain.isCut
    if (areWhole && chain.above !== above.chain?.whole) fault(`${name} has another lineage than its parent`)
    checkAttestations(child, parent, fault)
    for (const excess of this.#excess(parent, child)) fault(`${name} is wider than its parent: ${excess}`)
  }

  /** Long lists were cut when they were written; then it cannot be told. */
  #excess({ authority: parent }: MadeGrant, { authority: child }: MadeGrant): readonly string[] {
    const lists = [parent, child]
    if (!lists.every(Array.isArray) || JSON.stringify(lists).includes('…[+')) return []
    try {
      return this.#o.excess(parent as unknown as readonly Authority[], child as unknown as readonly Authority[])
    } catch {
      return ['its authority is not of the shape that authorities have']
    }
  }

  #forget(nowMs: number): void {
    if (++this.#seen % ROUND !== 0) return
    for (const [id, { made }] of this.#known) if (made.expires * 1000 < nowMs - FORGET_MS) this.#known.delete(id)
    // A suspended task waits for a week.
    for (const ends of [this.#ends, this.#suspended])
      for (const [mark, { ms }] of ends) if (ms < nowMs - 8 * FORGET_MS) ends.delete(mark)
  }
}

function otherIn(a: Fact['who'], b: Fact['who']): string | undefined {
  const isOther = (name: 'human' | 'task') => a?.[name] !== undefined && b?.[name] !== undefined && a[name] !== b[name]
  return isOther('human') ? 'human' : isOther('task') ? 'task' : undefined
}

function isSame(a: NonNullable<Fact['chain']>, b: NonNullable<Fact['chain']>): boolean {
  // Entries of calls have less room than those of grants: names are cut at other places.
  if (a.isCut || b.isCut) return a.grants === b.grants
  // The name of a human who was forgotten meanwhile is sealed under another key.
  return a.whole === b.whole || (a.isSealed && b.isSealed && a.agents === b.agents)
}

/** It ends with its task, its step, and every grant above it. */
function marksOf({ task, step, line, id }: MadeGrant): string[] {
  return [task, ...(step === undefined ? [] : [`${task}/${step}`]), ...line.filter((one) => one !== id), id]
}

function checkRoot(made: MadeGrant, kind: string, fault: (what: string) => void): void {
  if (made.isCut) return
  if (kind === 'grant.delegated') fault(`the grant ${made.id} was delegated, and has no parent`)
  else if (made.depth !== 0 || made.line.length !== 1)
    fault(`the grant ${made.id} has no parent, and is not at the top of its lineage`)
}

/** Every step keeps the attestation that it was made with. */
function checkAttestations(child: MadeGrant, parent: MadeGrant, fault: (what: string) => void): void {
  const steps = parent.attestations.length
  for (let i = 0; i < steps; i++) {
    const before = parent.attestations[i] ?? (i === steps - 1 ? parent.attestation : undefined)
    const now = child.attestations[i]
    if (before !== undefined && now !== before)
      fault(`step ${i} in the lineage of the grant ${child.id} has another attestation than when it was made`)
  }
  const own = child.attestations[steps]
  if (own !== undefined && child.attestation !== undefined && own !== child.attestation)
    fault(`the grant ${child.id} names two attestations for its own delegation`)
}
