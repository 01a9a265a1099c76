/**
 * A narrow policy from what an agent was seen doing: a `forbid` with exceptions, so that added to the policies in force it can only
 * take away, and their conditions and obligations stay. What the log does not hold is not narrowed by, and is said.
 */
import type { Value } from '../attributes/attributes.ts'
import { NAMEABLE, quoted, slugOf } from '../cedar-text.ts'
import type { Facts } from './supposed.ts'

/** One call that was allowed. */
export interface Observed {
  readonly agent: string
  readonly operation: string
  /** Those that are known: `resource.host`, `resource tags`, `context.human`, … */
  readonly facts: Facts
}

export interface Suggestion {
  readonly agent: string
  readonly calls: number
  /** What to ask for in grants. */
  readonly scope: string
  /** Undefined: the agent's id has characters that Cedar refuses in names. */
  readonly policy: string | undefined
}

export interface SuggestOptions {
  /** Combinations of what paths hold, by operation; of more, the name that varies most is left open. */
  readonly most: number
  /** `2027-02-22`: when the owner looks at it again at the latest. */
  readonly review: string
}

/** By agent, in the order of their ids. */
export function suggest(observed: readonly Observed[], options: SuggestOptions): Suggestion[] {
  const agents = [...Map.groupBy(observed, ({ agent }) => agent)].sort(([a], [b]) => (a < b ? -1 : 1))
  return agents.map(([agent, calls]) => ({
    agent,
    calls: calls.length,
    scope: [...new Set(calls.map(({ operation }) => operation))].sort().join(' '),
    policy: NAMEABLE.test(agent) ? policyOf(agent, calls, options) : undefined,
  }))
}

function policyOf(agent: string, calls: readonly Observed[], { most, review }: SuggestOptions): string {
  const owner = calls.map(({ facts }) => facts.get('principal.owner')).findLast((one) => one !== undefined)
  const notes = new Set<string>()
  const places = [...Map.groupBy(calls, ({ operation }) => operation)].map(([operation, group]) => ({
    operation,
    where: placeOf(operation, group, { most, notes }),
  }))
  const humans = humansOf(calls, notes)
  const exceptions = [...Map.groupBy(places, ({ where }) => where)].sort(([a], [b]) => (a < b ? -1 : 1))
  const told = exceptions.map(([where, group]) => {
    const actions = group.map(({ operation }) => `Action::${quoted(operation)}`).sort()
    return `  (action in [${actions.join(', ')}]${where})`
  })
  return [
    `// ${calls.length} calls of ${operationsText(places.length)}. Beyond them the agent does nothing, whatever else permits it.`,
    ...[...notes].sort().map((note) => `// ${note}`),
    `@id(${quoted(`only-what-was-seen-${slugOf(agent)}`)})`,
    `@owner(${quoted(ownerText(owner))})`,
    `@review(${quoted(review)})`,
    `forbid (principal == Agent::${quoted(agent)}, action, resource is Endpoint)`,
    'unless',
    '{',
    humans === '' ? told.join(' ||\n') : `  (${humans}) &&\n  (\n${told.join(' ||\n')}\n  )`,
    '};',
    '',
  ].join('\n')
}

function ownerText(owner: Value | undefined): string {
  const text = String(owner ?? '').trim()
  return NAMEABLE.test(text) ? text : 'security'
}

function operationsText(n: number): string {
  return n === 1 ? 'one operation' : `${n} operations`
}

interface Noting {
  readonly most: number
  readonly notes: Set<string>
}

/** ` && …`, or nothing where nothing is known of the place. */
function placeOf(operation: string, calls: readonly Observed[], noting: Noting): string {
  const hosts = distinct(calls.map(({ facts }) => facts.get('resource.host')))
  if (hosts === undefined) noting.notes.add(`At which hosts ${operation} was called is not in the log.`)
  const at = hosts === undefined ? '' : ` && [${hosts.map(quoted).join(', ')}].contains(resource.host)`
  return at + tagsText(operation, calls, noting)
}

/** Undefined: of some call it is not known. */
function distinct(values: readonly (Value | undefined)[]): string[] | undefined {
  return values.includes(undefined) ? undefined : [...new Set(values.map(String))].sort()
}

type Tags = Readonly<Record<string, string>>

function tagsText(operation: string, calls: readonly Observed[], { most, notes }: Noting): string {
  const all = calls.map(({ facts }) => facts.get('resource tags') as Tags | undefined)
  if (all.includes(undefined)) {
    notes.add(
      `What paths of ${operation} held is not known of every call: a query or a body says which operation it is.`,
    )
    return ''
  }
  let tags = all as Tags[]
  const without = (left: string) => tags.map(({ [left]: _, ...others }) => others)
  let names = [...new Set(tags.flatMap((one) => Object.keys(one)))].sort()
  for (const name of names.filter((one) => !tags.every(({ [one]: value = '' }) => isNameable(value)))) {
    notes.add(`${name} of ${operation} is left open: Cedar does not load policies with such texts as were seen.`)
    names = names.filter((one) => one !== name)
    tags = without(name)
  }
  while (combinations(tags, names).length > most) {
    const widest = names.reduce((a, b) => (valuesOf(tags, b) > valuesOf(tags, a) ? b : a))
    notes.add(`${widest} of ${operation} is left open: ${valuesOf(tags, widest)} different ones were seen.`)
    names = names.filter((name) => name !== widest)
    tags = without(widest)
  }
  if (names.length === 0) return ''
  const told = combinations(tags, names).map((one) => Object.entries(one).map(tagText).join(' && '))
  return told.length === 1 ? ` && ${told[0]}` : ` && (${told.map((one) => `(${one})`).join(' || ')})`
}

function isNameable(text: string): boolean {
  return text === '' || NAMEABLE.test(text)
}

function valuesOf(tags: readonly Tags[], name: string): number {
  return new Set(tags.map((one) => one[name])).size
}

function combinations(tags: readonly Tags[], names: readonly string[]): Tags[] {
  const sorted = tags.map((one) =>
    names.flatMap((name) => (one[name] === undefined ? [] : [[name, one[name]] as const])),
  )
  const keys = new Map(sorted.map((pairs) => [JSON.stringify(pairs), Object.fromEntries(pairs)]))
  return [...keys].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, one]) => one)
}

function tagText([name, value]: readonly [string, string]): string {
  return `resource.hasTag(${quoted(name)}) && resource.getTag(${quoted(name)}) == ${quoted(value)}`
}

function humansOf(calls: readonly Observed[], notes: Set<string>): string {
  const pairs = calls.map(({ facts }) => [facts.get('context.human_iss'), facts.get('context.human')])
  if (!pairs.flat().every((text) => text !== undefined && isNameable(String(text)))) {
    notes.add('For which human is not narrowed: the log has names that are sealed here, or that Cedar does not load.')
    return ''
  }
  const told = pairs.map(
    ([iss, sub]) => `context.human_iss == ${quoted(String(iss))} && context.human == ${quoted(String(sub))}`,
  )
  const each = [...new Set(told)].sort()
  return each.length === 1 ? (each[0] ?? '') : each.map((one) => `(${one})`).join(' || ')
}
