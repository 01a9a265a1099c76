/** Which policies tests have seen deciding. Pure. */
import type { Policy } from '../source/policy-file.ts'

export interface Covered {
  readonly policy: Policy
  /** Cases in which it decided. */
  readonly cases: number
}

export function coverageOf(policies: readonly Policy[], results: readonly { readonly policyIds: readonly string[] }[]) {
  const counts = new Map<string, number>()
  for (const { policyIds } of results) for (const id of policyIds) counts.set(id, (counts.get(id) ?? 0) + 1)
  return policies.map((policy): Covered => ({ policy, cases: counts.get(policy.id) ?? 0 }))
}

/** Of several bundles: a policy is the same wherever it was read from. */
export function joined(all: readonly Covered[]): Covered[] {
  const byText = new Map<string, Covered>()
  for (const one of all) {
    const before = byText.get(one.policy.text)
    byText.set(one.policy.text, { policy: before?.policy ?? one.policy, cases: one.cases + (before?.cases ?? 0) })
  }
  return [...byText.values()]
}

/** Of all policies, those that decided at least once; 100 where there are none. */
export function percentOf(covered: readonly Covered[]): number {
  if (covered.length === 0) return 100
  return Math.floor((covered.filter(({ cases }) => cases > 0).length / covered.length) * 100)
}
