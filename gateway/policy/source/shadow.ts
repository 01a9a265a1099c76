/**
 * A candidate beside the policies in force: evaluated on what was decided, after it was answered, and told of where it would have
 * decided otherwise. It decides nothing, keeps nobody waiting, and is bounded in what it holds and in what it tells.
 */
import type { Ask, Decision, Needs } from '../../protocol/decision.ts'
import type { Grant } from '../../protocol/grant.ts'
import type { Proposal } from '../../protocol/instruction.ts'
import type { Policy } from '../evaluation.ts'

/** Where the candidate and what is in force part. */
export interface Difference {
  readonly grant: Grant
  /** Operation, or the kind of an instruction. */
  readonly about: string
  readonly live: Decision
  readonly candidate: Decision
  /** Names of the obligations that differ; empty where the effects do. */
  readonly obligations: readonly string[]
  /** How often the same was seen since it was told last, this time included. */
  readonly count: number
}

export interface ShadowParts {
  readonly candidate: Pick<Policy, 'needs' | 'evaluate' | 'evaluateInstruction'>
  /** Share of the decisions that are compared, above 0, at most 1. */
  readonly sample: number
  nowMs(): number
  /** Never waited for; must not throw. */
  tell(difference: Difference): void
}

export interface ShadowCounts {
  readonly same: number
  readonly differed: number
  /** Not compared: too many waited, or the candidate failed. */
  readonly skipped: number
  /** Not comparable: the candidate reads what nobody has collected, because nothing in force reads it. */
  readonly unknown: number
}

interface Seen {
  readonly grant: Grant
  readonly about: string
  readonly live: Decision
  candidate(): Decision | undefined
}

const MAX_WAITING = 1024
/** Evaluated in one turn. */
const AT_ONCE = 16
/** The same difference is told once in this time. */
const AGAIN_MS = 60_000
const MAX_KINDS = 512

export class Shadow {
  readonly #parts: ShadowParts
  readonly #waiting: Seen[] = []
  /** what differs → when it was told, and how often it was seen since */
  readonly #told = new Map<string, { atMs: number; count: number }>()
  readonly #counts = { same: 0, differed: 0, skipped: 0, unknown: 0 }
  #isRunning = false

  constructor(parts: ShadowParts) {
    this.#parts = parts
  }

  get counts(): ShadowCounts {
    return { ...this.#counts }
  }

  call(ask: Ask, live: Decision): void {
    const { candidate } = this.#parts
    const { operation } = ask.endpoint
    this.#add({
      ...{ grant: ask.grant, about: operation.name, live },
      candidate: () => (isKnown(candidate.needs(operation), ask) ? candidate.evaluate(ask) : undefined),
    })
  }

  instruction(proposal: Proposal, live: Decision): void {
    const { grant, kind } = proposal
    this.#add({ grant, about: kind, live, candidate: () => this.#parts.candidate.evaluateInstruction(proposal) })
  }

  /** Resolves when everything that waits now was compared. */
  async settled(): Promise<void> {
    while (this.#isRunning) await new Promise((done) => setImmediate(done))
  }

  #add(seen: Seen): void {
    if (this.#parts.sample < 1 && Math.random() >= this.#parts.sample) return
    if (this.#waiting.length >= MAX_WAITING) {
      this.#counts.skipped++
      return
    }
    this.#waiting.push(seen)
    if (this.#isRunning) return
    this.#isRunning = true
    setImmediate(() => this.#run())
  }

  #run(): void {
    for (const seen of this.#waiting.splice(0, AT_ONCE)) this.#compare(seen)
    if (this.#waiting.length > 0) setImmediate(() => this.#run())
    else this.#isRunning = false
  }

  #compare({ grant, about, live, candidate: evaluate }: Seen): void {
    let candidate: Decision | undefined
    try {
      candidate = evaluate()
    } catch {
      this.#counts.skipped++
      return
    }
    if (candidate === undefined) {
      this.#counts.unknown++
      return
    }
    const obligations = live.effect === candidate.effect ? differing(live, candidate) : []
    if (live.effect === candidate.effect && obligations.length === 0) {
      this.#counts.same++
      return
    }
    this.#counts.differed++
    const count = this.#worthTelling(
      JSON.stringify([about, grant.agent.id, live.effect, live.policyIds, candidate.policyIds, obligations]),
    )
    if (count > 0) this.#parts.tell({ grant, about, live, candidate, obligations, count })
  }

  /** @returns how often it was seen since it was told last; 0: it was told a moment ago. */
  #worthTelling(what: string): number {
    const nowMs = this.#parts.nowMs()
    const known = this.#told.get(what)
    if (known !== undefined && nowMs - known.atMs < AGAIN_MS) {
      known.count++
      return 0
    }
    this.#told.delete(what)
    this.#told.set(what, { atMs: nowMs, count: 0 })
    // The oldest go first: an agent that brings about many kinds of differences is told of again, not remembered for ever.
    for (const [oldest] of this.#told) {
      if (this.#told.size <= MAX_KINDS) break
      this.#told.delete(oldest)
    }
    return (known?.count ?? 0) + 1
  }
}

/** What is in force is asked first, so only what it wants to know of a call is known. */
function isKnown(needs: Needs, ask: Ask): boolean {
  if (needs.past && ask.past === undefined) return false
  if (needs.left && ask.left === undefined) return false
  return !(needs.body && ask.body === undefined)
}

function differing(a: Decision, b: Decision): string[] {
  const [ours, theirs] = [a.obligations, b.obligations] as [object, object] as [
    Record<string, unknown>,
    Record<string, unknown>,
  ]
  const names = new Set([...Object.keys(ours), ...Object.keys(theirs)])
  return [...names].filter((name) => JSON.stringify(ours[name]) !== JSON.stringify(theirs[name])).sort()
}
