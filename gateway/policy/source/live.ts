/**
 * The policies that decide now. Another bundle takes their place between two decisions: each is made wholly under one of them,
 * and says under which. What was decided earlier and still lasts is decided again.
 */
import type { Ask, Decision, Standing } from '../../protocol/decision.ts'
import type { Agent } from '../../protocol/grant.ts'
import type { Proposal } from '../../protocol/instruction.ts'
import type { GatewayError } from '../../protocol/problem.ts'
import type { Policy } from '../evaluation.ts'
import type { Outside } from '../outside/outside.ts'
import type { Bundle } from './bundle.ts'
import { refusalNow, Standings } from './standing.ts'

type Alone = Pick<Policy, 'evaluate' | 'evaluateInstruction'>

export interface LivePolicy extends Omit<Policy, keyof Alone> {
  /** With the engines outside the gateway that have to agree; at once where none is asked. */
  evaluate(ask: Ask): Decision | Promise<Decision>
  evaluateInstruction(proposal: Proposal): Decision | Promise<Decision>
  /** What the bundle says by itself, without those engines. */
  readonly alone: Alone
  /** The same decisions as they are with them. */
  readonly further: {
    call(ask: Ask, alone: Decision): Decision | Promise<Decision>
    issuing(proposal: Proposal, alone: Decision): Decision | Promise<Decision>
  }
  /** `sha256:…` of the bundle that decides now; another one after a change. */
  readonly digest: string
  readonly bundle: Bundle
  /** From the next decision on; the bundle before denies everything from then on. Its entry has to be in the log already. */
  swap(bundle: Bundle): void
  /** Agents are others than before: what lasts is decided again. */
  recheck(): void
  /** Told after each change, in the same turn. Must not throw. @returns stops telling. */
  onChange(told: () => void): () => void
  /** Before a call that was decided under other policies is sent. @throws {GatewayError} when it would not be let through now. */
  again(call: Standing): Promise<void>
  /** @see Standings.watch */
  watch(call: Standing, cut: (why: GatewayError) => void): () => void
}

export interface LiveParts {
  /** The decision point of one bundle. */
  make(bundle: Bundle): Policy
  /** Registered agents by id. */
  readonly agents: ReadonlyMap<string, Agent>
  nowMs(): number
  /** Engines that have to agree. Default: none. */
  readonly outside?: Outside | undefined
}

export function createLivePolicy(first: Bundle, { make, agents, nowMs, outside }: LiveParts): LivePolicy {
  let bundle = first
  let policy = make(first)
  const listeners = new Set<() => void>()
  const live: LivePolicy = {
    get digest() {
      return bundle.digest
    },
    get bundle() {
      return bundle
    },
    get countsPast() {
      return bundle.countsPast
    },
    needs: (operation) => policy.needs(operation),
    informed: (ask, from) => policy.informed(ask, from),
    alone: {
      evaluate: (ask) => policy.evaluate(ask),
      evaluateInstruction: (proposal) => policy.evaluateInstruction(proposal),
    },
    further: {
      call: (ask, alone) => outside?.call(ask, alone, bundle) ?? alone,
      issuing: (proposal, alone) => outside?.issuing(proposal, alone, bundle) ?? alone,
    },
    evaluate: (ask) => live.further.call(ask, policy.evaluate(ask)),
    evaluateInstruction: (proposal) => live.further.issuing(proposal, policy.evaluateInstruction(proposal)),
    swap(next) {
      const old = bundle
      policy = make(next) // may throw: then the old one goes on
      bundle = next
      old[Symbol.dispose]()
      live.recheck()
      for (const told of [...listeners]) told()
    },
    recheck: () => void standings.recheck(),
    onChange(told) {
      const once = () => told() // the same function may be given twice
      listeners.add(once)
      return () => listeners.delete(once)
    },
    async again({ ask, decision }) {
      const why = await refusalNow(ask, decision, parts)
      if (why !== undefined) throw why
    },
    watch: (call, cut) => standings.watch(call, cut),
  }
  const parts = { policy: live, agents, nowMs }
  const standings = new Standings(parts)
  return live
}
