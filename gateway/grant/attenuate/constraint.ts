/**
 * Constraints of a parent against those of a child (LG/1 §1.5): one row per constraint says when the child's is not looser and
 * what is left of both. A child keeps every key of its parent and may add others. Pure.
 */
import { APPROVALS, CONSTRAINT_NAMES, isConstraintName, SENSITIVITIES } from '../../protocol/constraint.ts'
import type { Constraints, ParameterRule } from '../../protocol/grant.ts'
import { parseParameter } from '../../protocol/parameter.ts'
import { sharedOf, widerIn } from './list.ts'
import { meetRules, ruleImplies } from './rule.ts'

/** `at` begins with a dot or bracket, below `constraints`. */
export interface Looser {
  readonly at: string
  readonly got: unknown
  readonly allowed: unknown
}

interface Row<T> {
  /** Whether the child's bound lets through nothing that the parent's would not. */
  isWithin(parent: T, child: T): boolean
  /** The loosest bound within both; undefined when there is none. */
  meet(parent: T, child: T): T | undefined
}

type Table = { readonly [K in Exclude<keyof Constraints, 'params'>]-?: Row<Required<Constraints>[K]> }

const rows: Table = {
  max_calls: ordered((bound) => -bound),
  max_bytes: ordered((bound) => -bound),
  // Rates over different windows are not compared: a burst under the one can break the other.
  rate: ordered(
    ({ n }) => -n,
    (parent, child) => parent.per === child.per,
  ),
  single_use: ordered(Number),
  not_before: ordered((bound) => bound),
  not_after: ordered((bound) => -bound),
  source: listed('source'),
  geo: listed('geo'),
  sensitivity_max: ordered((bound) => -SENSITIVITIES.indexOf(bound)),
  approval: ordered((bound) => APPROVALS.indexOf(bound)),
}

/** Where the child is looser than the parent; empty when nowhere. */
export function looserIn(parent: Constraints, child: Constraints): readonly Looser[] {
  const unknown = Object.keys(child).filter((name) => !isConstraintName(name))
  return [
    ...unknown.map((name) => ({ at: `.${name}`, got: 'a constraint that is not known', allowed: CONSTRAINT_NAMES })),
    ...entriesOf(parent).flatMap(([name, bound]): readonly Looser[] => {
      const own = child[name]
      if (name === 'params') return looserParams(parent.params ?? {}, child.params ?? {})
      const isKept = own !== undefined && isConstraintName(name) && rowOf(name).isWithin(bound, own)
      return isKept ? [] : [{ at: `.${name}`, got: own, allowed: bound }]
    }),
  ]
}

/** What is left when both hold; undefined when nothing is, or when constraints cannot say it. */
export function meetConstraints(parent: Constraints, child: Constraints): Constraints | undefined {
  const met: Record<string, unknown> = { ...parent, ...child }
  for (const name of Object.keys(met)) {
    if (!isConstraintName(name)) return undefined
    const [theirs, own] = [parent[name], child[name]]
    if (theirs === undefined || own === undefined) continue
    const bound =
      name === 'params' ? meetParams(parent.params ?? {}, child.params ?? {}) : rowOf(name).meet(theirs, own)
    if (bound === undefined) return undefined
    met[name] = bound
  }
  const { not_before = 0, not_after = Number.POSITIVE_INFINITY } = met as Constraints
  return not_after > not_before ? met : undefined
}

function entriesOf(constraints: Constraints): [keyof Constraints, unknown][] {
  return Object.entries(constraints) as [keyof Constraints, unknown][]
}

function rowOf(name: Exclude<keyof Constraints, 'params'>): Row<unknown> {
  return rows[name] as Row<unknown>
}

/** @param strictness grows as the bound gets stricter; NaN is neither */
function ordered<T>(strictness: (bound: T) => number, isComparable = (_parent: T, _child: T) => true): Row<T> {
  const isWithin = (parent: T, child: T) => isComparable(parent, child) && strictness(child) >= strictness(parent)
  return {
    isWithin,
    meet: (parent, child) => {
      if (isWithin(parent, child)) return child
      return isWithin(child, parent) ? parent : undefined
    },
  }
}

/** Lists of what is allowed. */
function listed(name: 'source' | 'geo'): Row<readonly string[]> {
  return {
    isWithin: (parent, child) => widerIn(name, parent, child).length === 0,
    meet: (parent, child) => {
      const shared = sharedOf(name, parent, child)
      return shared.length === 0 ? undefined : shared
    },
  }
}

type Params = Readonly<Record<string, ParameterRule>>

function looserParams(parent: Params, child: Params): readonly Looser[] {
  return Object.entries(parent).flatMap(([key, rule]) => {
    const own = ruleAt(child, key)
    const parameter = parseParameter(key)
    const isKept = own !== undefined && parameter !== undefined && ruleImplies(own, rule, parameter.place)
    return isKept ? [] : [{ at: `.params[${JSON.stringify(key)}]`, got: own, allowed: rule }]
  })
}

function meetParams(parent: Params, child: Params): Params | undefined {
  const met: Record<string, ParameterRule> = { ...parent, ...child }
  for (const [key, rule] of Object.entries(parent)) {
    const own = ruleAt(child, key)
    const parameter = parseParameter(key)
    if (parameter === undefined) return undefined
    if (own === undefined) continue
    const both = meetRules(rule, own, parameter.place)
    if (both === undefined) return undefined
    met[key] = both
  }
  return met
}

function ruleAt(params: Params, key: string): ParameterRule | undefined {
  return Object.hasOwn(params, key) ? params[key] : undefined
}
