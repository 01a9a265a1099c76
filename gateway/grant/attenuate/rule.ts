/**
 * Parameter rules against one another: when a child's rule lets through nothing that the parent's would not. Where that is not
 * certain the answer is no. Pure.
 */
import type { ParameterRule } from '../../protocol/grant.ts'
import { asText, globMatches, memberHolds, type Place, type Scalar, satisfies } from '../../protocol/parameter-rule.ts'

type Member = keyof ParameterRule

const MEMBERS: ReadonlySet<string> = new Set<Member>(['equals', 'one_of', 'prefix', 'glob', 'max', 'min', 'within'])

/** Whether every value that satisfies `child` is sure to satisfy `parent`. */
export function ruleImplies(child: ParameterRule, parent: ParameterRule, place: Place): boolean {
  if (![...Object.keys(child), ...Object.keys(parent)].every((member) => MEMBERS.has(member))) return false
  const values = valuesOf(child, place)
  return Object.entries(parent).every(([member, bound]) =>
    values === undefined
      ? Object.entries(child).some((own) => memberImplies(own, [member, bound]))
      : values.every((value) => memberHolds(member, bound, value, place)),
  )
}

/** All values that satisfy the rule, as the request would carry them; undefined when it does not list them. */
function valuesOf(rule: ParameterRule, place: Place): readonly Scalar[] | undefined {
  const listed = rule.equals === undefined ? rule.one_of : [rule.equals]
  const values = place === 'query' ? listed?.map(asText) : listed
  return values?.filter((value) => satisfies(rule, value, place))
}

/** One member against one member, for rules that list no values. */
function memberImplies([member, bound]: [string, unknown], [wanted, limit]: [string, unknown]): boolean {
  if (Array.isArray(bound) && Array.isArray(limit)) {
    return member === 'within' && wanted === 'within' && bound.every((value) => limit.includes(value))
  }
  if (typeof bound === 'number' && typeof limit === 'number') {
    return (
      (member === 'max' && wanted === 'max' && bound <= limit) ||
      (member === 'min' && wanted === 'min' && bound >= limit)
    )
  }
  if (typeof bound !== 'string' || typeof limit !== 'string') return false
  if (wanted === 'prefix') return (member === 'prefix' ? bound : literalHead(member, bound)).startsWith(limit)
  return member === 'glob' && wanted === 'glob' && globMatches(limit, bound)
}

/** What every text that the glob matches begins with. */
function literalHead(member: string, glob: string): string {
  return member === 'glob' ? (glob.split('*')[0] ?? '') : ''
}

/** The rule of the values that satisfy both, or undefined when there are none or the language of rules cannot say it. */
export function meetRules(parent: ParameterRule, child: ParameterRule, place: Place): ParameterRule | undefined {
  if (ruleImplies(child, parent, place)) return child
  const met = { ...parent, ...child } as Record<string, unknown>
  for (const member of Object.keys(parent).filter((name) => Object.hasOwn(child, name)) as Member[]) {
    const bound = meetMembers(member, parent[member], child[member])
    if (bound === undefined) return undefined
    met[member] = bound
  }
  const rule: ParameterRule = met
  return isEmpty(rule, place) ? undefined : rule
}

function meetMembers(member: Member, parent: unknown, child: unknown): unknown {
  if (Array.isArray(parent) && Array.isArray(child)) {
    const both = child.filter((value) => parent.includes(value))
    return both.length === 0 ? undefined : both
  }
  if (memberImplies([member, child], [member, parent]) || child === parent) return child
  return memberImplies([member, parent], [member, child]) ? parent : undefined
}

function isEmpty(rule: ParameterRule, place: Place): boolean {
  const { min = Number.NEGATIVE_INFINITY, max = Number.POSITIVE_INFINITY } = rule
  return min > max || valuesOf(rule, place)?.length === 0
}
