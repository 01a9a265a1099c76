/**
 * The policies that decide now. Another bundle takes their place between two decisions: each is made wholly under one of them,
 * and says under which. Whoever holds something that was decided earlier is told, and asks again.
 */
import type { Bundle } from './bundle.ts'
import type { Policy } from './evaluation.ts'

export interface LivePolicy extends Policy {
  /** `sha256:…` of the bundle that decides now; another one after a change. */
  readonly digest: string
  readonly bundle: Bundle
  /** From the next decision on; the bundle before denies everything from then on. Its entry has to be in the log already. */
  swap(bundle: Bundle): void
  /** Told after each change, in the same turn. Must not throw. @returns stops telling. */
  onChange(told: () => void): () => void
}

/** @param make the decision point of one bundle. */
export function createLivePolicy(first: Bundle, make: (bundle: Bundle) => Policy): LivePolicy {
  let bundle = first
  let policy = make(first)
  const listeners = new Set<() => void>()
  return {
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
    evaluate: (ask) => policy.evaluate(ask),
    evaluateInstruction: (proposal) => policy.evaluateInstruction(proposal),
    swap(next) {
      const old = bundle
      policy = make(next) // may throw: then the old one goes on
      bundle = next
      old[Symbol.dispose]()
      for (const told of [...listeners]) told()
    },
    onChange(told) {
      const once = () => told() // the same function may be given twice
      listeners.add(once)
      return () => listeners.delete(once)
    },
  }
}
