/**
 * The subset rule (LG/1 §1.5): a child may only lose. Total, decidable, and where inclusion is not certain the child is wider.
 * Every entry of the child has to lie in one single entry of the parent; two entries never add up to a third. Pure.
 */
import { hasBudget } from '../../protocol/constraint.ts'
import { fitsLimits } from '../../protocol/details.ts'
import type { Authority } from '../../protocol/grant.ts'
import { looserIn, meetConstraints } from './constraint.ts'
import { sharedOf, widerIn } from './list.ts'

/** One thing in which a child is wider than its parent. */
export interface Excess {
  /** `authorization_details[0].constraints.max_calls` */
  readonly at: string
  readonly got: string
  readonly allowed: string
}

/**
 * In what the child is wider than the parent; empty when it lies within. An entry that lies in no entry of the parent is held
 * against the one that it comes closest to.
 */
export function excessOf(parent: readonly Authority[], child: readonly Authority[]): readonly Excess[] {
  return child.flatMap((entry, i) => {
    const at = `authorization_details[${i}]`
    if (parent.length === 0) return [{ at, got: shown(entry.operations), allowed: 'nothing' }]
    const against = parent.map((wide) => entryExcess(wide, entry, at))
    return against.reduce((least, excess) => (distance(excess) < distance(least) ? excess : least))
  })
}

/** Another operation is another thing; everything else is more or less of the same. */
function distance(excess: readonly Excess[]): number {
  return excess.length + (excess[0]?.at.endsWith('.operations') ? 100 : 0)
}

/**
 * The largest authority within both, entry by entry: an entry within the parent stays as it is, others are cut to what each
 * entry of the parent shares with them, or left out.
 * @returns `authority`, which may be empty, and `cut`: a line for each thing that was lost
 */
export function narrow(
  parent: readonly Authority[],
  child: readonly Authority[],
): { readonly authority: readonly Authority[]; readonly cut: readonly string[] } {
  const authority: Authority[] = []
  const cut: string[] = []
  for (const [i, entry] of child.entries()) {
    const at = `authorization_details[${i}]`
    const excess = excessOf(parent, [entry])
    const share = excess.length === 0 ? [entry] : shareOf(parent, entry)
    const kept = share.filter((one) => fitsLimits([...authority, one]) && authority.push(one) > 0)
    if (share.length === 0) cut.push(`${at} was left out: no entry of the parent shares anything with it`)
    else
      cut.push(
        ...excess.map(
          ({ at: where, got, allowed }) => `${at}${where.slice(ROOT_LENGTH)}: ${got} is more than ${allowed}`,
        ),
      )
    if (kept.length < share.length) cut.push(`${at} was cut further: what is shared needs too many entries or patterns`)
  }
  return { authority, cut }
}

const ROOT_LENGTH = 'authorization_details[0]'.length

/** What the parent's entries share with one entry of the child, none within another. */
function shareOf(parent: readonly Authority[], entry: Authority): readonly Authority[] {
  const largest: Authority[] = []
  for (const wide of parent) {
    const met = meetEntries(wide, entry)
    if (met === undefined || largest.some((other) => isWithin(other, met))) continue
    largest.splice(0, Number.POSITIVE_INFINITY, ...largest.filter((other) => !isWithin(met, other)), met)
  }
  // Budgets count per entry: the same budget in two entries would be twice what was asked for.
  return hasBudget(entry.constraints ?? {}) ? largest.slice(0, 1) : largest
}

function isWithin(parent: Authority, child: Authority): boolean {
  return entryExcess(parent, child, '').length === 0
}

const LISTS = ['operations', 'actions', 'locations', 'paths'] as const

function entryExcess(parent: Authority, child: Authority, at: string): readonly Excess[] {
  const lists = LISTS.flatMap((name): readonly Excess[] => {
    const [allowed, got] = [parent[name], child[name]]
    // A list that is absent allows everything.
    if (allowed === undefined) return []
    const wider = got && widerIn(name, allowed, got)
    if (wider?.length === 0) return []
    return [{ at: `${at}.${name}`, got: wider ? shown(wider) : 'any', allowed: shown(allowed) }]
  })
  const looser = looserIn(parent.constraints ?? {}, child.constraints ?? {})
  return [
    ...lists,
    ...looser.map((one) => ({ at: `${at}.constraints${one.at}`, got: shown(one.got), allowed: shown(one.allowed) })),
  ]
}

/** The entry of what both allow; undefined when that is nothing, or when an entry cannot say it. */
function meetEntries(parent: Authority, child: Authority): Authority | undefined {
  const lists: Partial<Record<(typeof LISTS)[number], readonly string[]>> = {}
  for (const name of LISTS) {
    const [theirs, own] = [parent[name], child[name]]
    const shared = theirs && own ? sharedOf(name, theirs, own) : (own ?? theirs)
    if (shared?.length === 0) return undefined
    if (shared) lists[name] = shared
  }
  const constraints = meetConstraints(parent.constraints ?? {}, child.constraints ?? {})
  if (constraints === undefined) return undefined
  return { operations: [], ...lists, ...(Object.keys(constraints).length > 0 && { constraints }) }
}

/** Bounded, for the answer and the record. */
function shown(value: unknown): string {
  if (value === undefined) return 'absent'
  const isList = Array.isArray(value) && value.every((one) => typeof one === 'string')
  const text = isList ? value.join(', ') : JSON.stringify(value)
  return text.length > 200 ? `${text.slice(0, 200)}…` : text
}
