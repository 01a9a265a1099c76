/**
 * What a grant reaches: the intersection of every authority along its chain, decided anew for each request (LG/1 §1.5). At each
 * level one entry must cover the whole request; two entries never add up to a third.
 */
import { type Entry, entriesFor, isPlaceOf, patternCovers } from './authority.ts'
import { APPROVALS, type Circumstances } from './constraint.ts'
import type { Ancestor, Approval, Authority, Grant, Level } from './grant.ts'
import type { ProblemCode } from './problem.ts'

/** One request, as far as grants look at it. */
export interface Facts extends Circumstances {
  readonly method: string
  /** W3C trace id of the request. */
  readonly traceId?: string | undefined
}

/** `levels`: the entry that lets the request through at each level of the chain; their budgets are the ones to be spent. */
export type Reach =
  | {
      readonly isWithin: true
      readonly levels: readonly Level[]
      /** What the constraint `approval` asks for, at whatever level it does: weakest first. Absent: nothing. */
      readonly approval?: Exclude<Approval, 'none'>
    }
  | { readonly isWithin: false; readonly code: ProblemCode; readonly detail: string }

/** No level has a budget: nothing to spend. */
const UNBUDGETED: Reach = { isWithin: true, levels: [] }

function within(levels: readonly Level[], entries: readonly Entry[]): Reach {
  let strictest: Approval = 'none'
  for (const { approval } of entries) if (rank(approval) > rank(strictest)) strictest = approval
  if (strictest !== 'none') return { isWithin: true, levels, approval: strictest }
  return levels.length === 0 ? UNBUDGETED : { isWithin: true, levels }
}

function rank(approval: Approval): number {
  return APPROVALS.indexOf(approval)
}

/**
 * Whether every level of the chain allows the request. Of several entries of a level the first that does counts.
 * @returns all levels, root first, when any of them has a budget; otherwise none. On refusal: `scope_exceeded` when no entry
 *   covers operation, method and place, `constraint_unmet` when one does but asks for more.
 */
export function reach(grant: Grant, facts: Facts): Reach {
  if (grant.trace !== undefined && facts.traceId !== grant.trace) return otherTrace()
  const own = entryAt(grant.authority, facts)
  if (own === undefined) return refusal(grant.authority, facts, 'This grant')
  if (grant.ancestry.length === 0) return within(own.hasBudget ? levelsOf(grant, own) : [], [own])
  return reachAbove(grant, own, facts)
}

/**
 * Whether the JSON body has to be read before `reach` can decide on the operation.
 * @param operation its name, such as `github:issues.create`
 */
export function needsBody(grant: Grant, operation: string): boolean {
  if (readsBody(grant.authority, operation)) return true
  for (const { authority } of grant.ancestry) if (readsBody(authority, operation)) return true
  return false
}

function readsBody(authority: readonly Authority[], operation: string): boolean {
  for (const entry of entriesFor(authority, operation)) if (entry.readsBody) return true
  return false
}

function reachAbove(grant: Grant, own: Entry, facts: Facts): Reach {
  const levels: Level[] = []
  const entries = [own]
  let hasBudget = own.hasBudget
  for (const above of grant.ancestry) {
    const entry = entryAt(above.authority, facts)
    if (entry === undefined) return refusal(above.authority, facts, `A grant above this one (${above.id})`)
    hasBudget ||= entry.hasBudget
    entries.push(entry)
    levels.push(...levelsOf(above, entry))
  }
  return within(hasBudget ? [...levels, ...levelsOf(grant, own)] : [], entries)
}

function entryAt(authority: readonly Authority[], facts: Facts): Entry | undefined {
  let approvable: Entry | undefined
  for (const entry of entriesFor(authority, facts.endpoint.operation.name)) {
    if (entry.isUnbounded) return entry
    if (approvable !== undefined && asksHumans(entry)) continue
    if (!isAsked(entry, facts) || unmet(entry, facts) !== undefined) continue
    if (!asksHumans(entry)) return entry
    approvable = entry
  }
  return approvable
}

/** One that lets the request through without asking anybody comes first. */
function asksHumans({ approval }: Entry): boolean {
  return approval === 'single' || approval === 'quorum'
}

function isAsked(entry: Entry, facts: Facts): boolean {
  return (entry.actions === undefined || entry.actions.has(facts.method)) && isPlaceOf(entry, facts.endpoint)
}

function unmet(entry: Entry, facts: Facts): string | undefined {
  for (const condition of entry.conditions) {
    const fault = condition(facts)
    if (fault !== undefined) return fault
  }
  return undefined
}

/** Its own, below the one whose budgets it took over. */
function levelsOf({ id, succession }: Pick<Ancestor, 'id' | 'succession'>, { index, constraints }: Entry): Level[] {
  const own = { grant: id, entry: index, constraints }
  const before = succession?.levels[index]
  return before ? [before, own] : [own]
}

/** Why no entry let the request through: the one that came closest speaks. */
function refusal(authority: readonly Authority[], facts: Facts, whose: string): Reach {
  const near = entriesFor(authority, facts.endpoint.operation.name).filter((entry) => isAsked(entry, facts))
  const fault = near.map((entry) => unmet(entry, facts))
  if (fault[0] !== undefined)
    return refused('constraint_unmet', `${asked(facts)}. ${whose} sets a condition: ${fault[0]}`)
  return refused('scope_exceeded', `${asked(facts)}. ${beyond(authority, facts, whose)}`)
}

function beyond(authority: readonly Authority[], { endpoint, method }: Facts, whose: string): string {
  const { name } = endpoint.operation
  const held = authority.filter(({ operations }) => operations.some((pattern) => patternCovers(pattern, name)))
  if (held.length === 0) {
    const operations = authority.flatMap((entry) => entry.operations)
    return `${whose} covers: ${listed(operations)}. Ask the grantor for a grant with ${name} in its scope.`
  }
  if (held.every(({ actions }) => actions !== undefined && !actions.includes(method))) {
    const methods = [...new Set(held.flatMap(({ actions = [] }) => actions))]
    return `${whose} covers it only with: ${listed(methods)}. Ask the grantor for a grant that covers ${method}.`
  }
  const places = held.flatMap(({ locations = [], paths = [] }) => [...locations, ...paths])
  return `${whose} covers it only at: ${listed(places)}. Ask the grantor for a grant that covers this path.`
}

/** What is asked, as refusals begin. */
export function asked({ method, endpoint }: Pick<Facts, 'method' | 'endpoint'>): string {
  const path = endpoint.path.length > 200 ? `${endpoint.path.slice(0, 200)}…` : endpoint.path
  return `\`${method} ${path}\` on ${endpoint.host} is the operation ${endpoint.operation.name}`
}

/** The first eight, and how many more there are. */
export function listed(all: readonly string[]): string {
  if (all.length === 0) return 'nothing'
  return all.length > 8 ? `${all.slice(0, 8).join(', ')} and ${all.length - 8} more` : all.join(', ')
}

function otherTrace(): Reach {
  return refused(
    'constraint_unmet',
    'This grant is for one trace only, and the request does not carry its id. Send the `traceparent` header of that trace.',
  )
}

function refused(code: ProblemCode, detail: string): Reach {
  return { isWithin: false, code, detail }
}
