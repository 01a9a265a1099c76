/** What Cedar would answer when some of what it is asked with is not known: allow, deny, or that this cannot be told. */

import type { Operation } from '../../protocol/service.ts'
import type { Value } from '../attributes/attributes.ts'
import { readingsOf } from '../attributes/reads.ts'
import type { Verdict } from '../engine.ts'
import { combine } from '../obligation.ts'
import type { Question } from '../question.ts'
import { names, type Slice } from '../slice.ts'
import type { Policy } from '../source/policy-file.ts'
import { mustBeNamed } from '../vocabulary.ts'
import { conditionsOf, type Truth } from './conditions.ts'

/** `unknown`: what decides, and is not known. With it the verdict is a no that nobody has said. */
export interface Weighed {
  readonly verdict: Verdict
  readonly unknown?: readonly string[]
  /** Whether further permits apply is not known, and so all obligations are not. */
  readonly isOpen?: true
}

/** One question to Cedar. */
export interface Looked {
  readonly slice: Slice
  /** Undefined: it is about a grant. */
  readonly operation: Operation | undefined
  readonly question: Question
  /** Every attribute that such a question can have. */
  readonly names: readonly string[]
  /** As policies see them, by the names under which they read them; what the request does not have is left out. */
  readonly values: ReadonlyMap<string, Value>
}

/** @param isKnown whether a fact is known, by its name; what the operation fixes always is. */
export function weigh(looked: Looked, isKnown: (name: string) => boolean): Weighed {
  const { slice } = looked
  if (slice.preparsed === undefined) return { verdict: no([]) }
  using conditions = conditionsOf(slice)
  const isRead = (reading: string) => isReadingKnown(reading, looked, isKnown)
  const truth = conditions.truths(looked.question, isRead)
  const of = (policy: Policy) => truth(conditions.terms.get(policy.id) ?? { kind: 'all', of: [] })
  const standing = [...slice.policies.values()].map((policy) => ({ policy, truth: of(policy) }))
  const which = (effect: 'permit' | 'forbid', truth: Truth) =>
    standing.filter((one) => one.policy.json.effect === effect && one.truth === truth).map(({ policy }) => policy)
  const erring = standing
    .filter((one) => one.truth === 'error')
    .map(({ policy }) => `${policy.id}: cannot be evaluated`)
  const forbids = which('forbid', 'true')
  if (forbids.length > 0 || erring.length > 0) return { verdict: no(forbids, erring) }
  const unsure = (policies: readonly Policy[]) => ({ verdict: no([]), unknown: unknownsIn(policies, isRead) })
  const [permits, maybe, against] = [which('permit', 'true'), which('permit', 'unknown'), which('forbid', 'unknown')]
  const suffice = (policies: readonly Policy[]) => policies.some((policy) => isEnough(policy, looked))
  if (!suffice(permits)) return suffice(maybe) ? unsure(maybe) : { verdict: no(permits) }
  if (against.length > 0) return unsure(against)
  const obligations = combine(permits.map((policy) => policy.obligations))
  const policyIds = permits.map(({ id }) => id).sort()
  const open = maybe.length > 0 && ({ isOpen: true } as const)
  return { verdict: { effect: 'allow', policyIds, errors: [], obligations }, ...open }
}

function no(policies: readonly Policy[], errors: readonly string[] = []): Verdict {
  const policyIds = policies.map(({ id }) => id).sort()
  return { effect: 'deny', policyIds, errors, obligations: combine([]) }
}

/** Whether a permit alone can allow the operation: some have to be named. */
export function isEnough(policy: Policy, { operation }: Pick<Looked, 'operation'>): boolean {
  return operation === undefined || !mustBeNamed(operation) || names(policy, operation.name)
}

/** A reading that is no attribute of the request is fixed by its operation. */
export function isReadingKnown(
  reading: string,
  { names }: Pick<Looked, 'names'>,
  isKnown: (name: string) => boolean,
): boolean {
  return names.filter((name) => name === reading || reading === `${name.split(/[. ]/)[0]} *`).every(isKnown)
}

function unknownsIn(policies: readonly Policy[], isRead: (reading: string) => boolean): string[] {
  return [
    ...new Set(policies.flatMap((policy) => [...readingsOf(policy.json)].filter((reading) => !isRead(reading)))),
  ].sort()
}
