/**
 * The subset rule (LG/1 §1.5): a child may only lose. Total, decidable, and where inclusion is not certain the child is wider.
 * Every entry of the child has to lie in one single entry of the parent; two entries never add up to a third. Pure.
 */
import { isOperationPattern, parseOrigin, patternCovers } from '../protocol/authority.ts'
import type { Authority } from '../protocol/grant.ts'
import {
  formatPathPattern,
  meetPaths,
  type PathPattern,
  parsePathPattern,
  pathIncludes,
} from '../protocol/path-pattern.ts'
import { looserIn, meetConstraints, meetSets } from './attenuate-constraint.ts'

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
    return against.reduce((least, excess) => (excess.length < least.length ? excess : least))
  })
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
  const cut: string[] = []
  const authority = child.flatMap((entry, i) => {
    const excess = excessOf(parent, [entry])
    if (excess.length === 0) return [entry]
    const at = `authorization_details[${i}]`
    const kept = shareOf(parent, entry)
    if (kept.length === 0) cut.push(`${at} was left out: the parent shares nothing of it`)
    else
      cut.push(
        ...excess.map(
          ({ at: where, got, allowed }) => `${at}${where.slice(ROOT_LENGTH)}: ${got} was cut to ${allowed}`,
        ),
      )
    return kept
  })
  return { authority, cut }
}

const ROOT_LENGTH = 'authorization_details[0]'.length

/** What the parent's entries share with one entry of the child, none within another. */
function shareOf(parent: readonly Authority[], entry: Authority): readonly Authority[] {
  const met = parent.flatMap((wide) => meetEntries(wide, entry) ?? [])
  const largest = met.filter(
    (one, i) => !met.some((other, j) => i !== j && isEntryWithin(other, one) && (j < i || !isEntryWithin(one, other))),
  )
  // Budgets count per entry: the same budget in two entries would be twice what was asked for.
  return isBudgeted(entry) ? largest.slice(0, 1) : largest
}

function isBudgeted({ constraints = {} }: Authority): boolean {
  return ['max_calls', 'max_bytes', 'rate', 'single_use'].some((name) => Object.hasOwn(constraints, name))
}

function isEntryWithin(parent: Authority, child: Authority): boolean {
  return entryExcess(parent, child, '').length === 0
}

function entryExcess(parent: Authority, child: Authority, at: string): readonly Excess[] {
  return [
    ...beyond(parent.operations, child.operations, operationCovers, `${at}.operations`),
    ...beyond(parent.actions, child.actions, isEqual, `${at}.actions`),
    ...beyond(parent.locations, child.locations, originCovers, `${at}.locations`),
    ...beyond(parent.paths, child.paths, pathCovers, `${at}.paths`),
    ...looserIn(parent.constraints ?? {}, child.constraints ?? {}).map((one) => ({
      at: `${at}.constraints${one.at}`,
      got: shown(one.got),
      allowed: shown(one.allowed),
    })),
  ]
}

type Covers = (outer: string, inner: string) => boolean

/** What of a child's list lies in nothing of the parent's; a list that is absent allows everything. */
function beyond(
  parent: readonly string[] | undefined,
  child: readonly string[] | undefined,
  covers: Covers,
  at: string,
): readonly Excess[] {
  if (parent === undefined) return []
  const wider = child?.filter((inner) => !parent.some((outer) => covers(outer, inner)))
  if (wider?.length === 0) return []
  return [{ at, got: wider === undefined ? 'all of them' : shown(wider), allowed: shown(parent) }]
}

const isEqual: Covers = (outer, inner) => outer === inner

const operationCovers: Covers = (outer, inner) =>
  isOperationPattern(outer) && isOperationPattern(inner) && patternCovers(outer, inner)

const originCovers: Covers = (outer, inner) => {
  const origin = parseOrigin(inner)
  return origin !== undefined && parseOrigin(outer) === origin
}

const pathCovers: Covers = (outer, inner) => {
  const [wide, narrow] = [parsePathPattern(outer), parsePathPattern(inner)]
  return wide !== undefined && narrow !== undefined && pathIncludes(wide, narrow)
}

function meetEntries(parent: Authority, child: Authority): Authority | undefined {
  const operations = meetSets(parent.operations, child.operations, operationCovers)
  const actions = meetLists(parent.actions, child.actions, isEqual)
  const locations = meetLists(parent.locations, child.locations, originCovers)
  const paths = parent.paths && child.paths ? meetPathLists(parent.paths, child.paths) : (child.paths ?? parent.paths)
  const constraints = meetConstraints(parent.constraints ?? {}, child.constraints ?? {})
  const isEmpty = [operations, actions, locations, paths].some((list) => list?.length === 0)
  if (isEmpty || constraints === undefined) return undefined
  return {
    operations,
    ...(actions && { actions }),
    ...(locations && { locations }),
    ...(paths && { paths }),
    ...(Object.keys(constraints).length > 0 && { constraints }),
  }
}

function meetLists(
  parent: readonly string[] | undefined,
  child: readonly string[] | undefined,
  covers: Covers,
): readonly string[] | undefined {
  return parent && child ? meetSets(parent, child, covers) : (child ?? parent)
}

/** Two patterns may overlap without one lying in the other: `/a/*` and `/*`/`b` share `/a/b`. */
function meetPathLists(parent: readonly string[], child: readonly string[]): string[] {
  const met = child.flatMap((own) =>
    parent.some((outer) => pathCovers(outer, own)) ? [own] : parent.flatMap((wide) => meetPathTexts(wide, own)),
  )
  return [...new Set(met)]
}

function meetPathTexts(a: string, b: string): string[] {
  const [one, other]: (PathPattern | undefined)[] = [parsePathPattern(a), parsePathPattern(b)]
  const both = one && other && meetPaths(one, other)
  return both ? [formatPathPattern(both)] : []
}

/** Bounded, for the answer and the record. */
function shown(value: unknown): string {
  if (value === undefined) return 'absent'
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  return text.length > 200 ? `${text.slice(0, 200)}…` : text
}
