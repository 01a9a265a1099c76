/**
 * Requests to operations, one step a segment: literal before `{name}.suffix` before `{name}` before `{name**}`, so the most
 * specific pattern wins and the cost does not grow with the number of operations. Built at load, read-only afterwards.
 */
import { ABSENT, type Readable, readParameter } from '../../protocol/parameter.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { type Told, told } from '../attributes/told.ts'
import type { Condition, RequestPattern, Segment } from './pattern.ts'

interface Leaf<T> {
  readonly value: T
  readonly names: readonly string[]
  readonly query: RequestPattern['query']
  readonly condition: RequestPattern['condition']
}

interface Step<T> {
  readonly literals: Map<string, Step<T>>
  /** Longest suffix first; the empty suffix is the plain `{name}`. */
  readonly ones: { readonly suffix: string; readonly mayHoldSlash: boolean; readonly next: Step<T> }[]
  /** method → leaves, those with most query parameters first */
  readonly here: Map<string, Leaf<T>[]>
  readonly rest: { readonly mayHoldSlash: boolean; readonly leaves: Map<string, Leaf<T>[]> }[]
}

export interface Match<T> {
  readonly value: T
  readonly params: Readonly<Record<string, string>>
}

export class OperationTrie<T> {
  readonly #root: Step<T> = emptyStep()

  /** @returns the value that already owns exactly this pattern, in which case nothing is added. */
  add(pattern: RequestPattern, value: T): T | undefined {
    let step = this.#root
    let leaves = step.here
    const names: string[] = []
    for (const segment of pattern.segments) {
      if (segment.kind !== 'literal') names.push(segment.name)
      if (segment.kind === 'rest') leaves = restLeaves(step, segment.mayHoldSlash)
      else {
        step = nextStep(step, segment)
        leaves = step.here
      }
    }
    const siblings = leaves.get(pattern.method) ?? []
    const owner = siblings.find(
      (leaf) => sameQuery(leaf.query, pattern.query) && sameCondition(leaf.condition, pattern.condition),
    )
    if (owner !== undefined) return owner.value
    siblings.push({ value, names, query: pattern.query, condition: pattern.condition })
    siblings.sort((a, b) => rank(b) - rank(a))
    leaves.set(pattern.method, siblings)
    return undefined
  }

  /**
   * @param path canonical path, `%2F` standing for a slash inside a segment.
   * @param query what follows the question mark, raw.
   * @param said what it says besides. Default: nothing.
   * @throws {GatewayError} `request_malformed`
   */
  match(method: string, path: string, query: string, said: Told = SILENT): Match<T> | undefined {
    const segments = path === '/' ? [] : path.slice(1).split('/')
    const readable = { rawPath: `?${query}` }
    const walk: Walk = { method, query, readable, said, segments, hasSlash: path.includes('%2F'), captured: [] }
    return descend(this.#root, 0, walk)
  }
}

interface Walk {
  readonly method: string
  readonly query: string
  /** The query again: one object for all leaves, so that it is parsed once. */
  readonly readable: Readable
  readonly said: Told
  readonly segments: readonly string[]
  /** Whether some segment holds an encoded slash. */
  readonly hasSlash: boolean
  readonly captured: string[]
}

// The three below run for every request: plain loops, no closures.

function descend<T>(step: Step<T>, i: number, walk: Walk): Match<T> | undefined {
  const segment = walk.segments[i]
  if (segment === undefined) return settle(step.here, walk)
  const literal = step.literals.get(segment)
  if (literal !== undefined) {
    const found = descend(literal, i + 1, walk)
    if (found !== undefined) return found
  }
  const found = step.ones.length === 0 ? undefined : descendOne(step, segment, i, walk)
  return found ?? (step.rest.length === 0 ? undefined : settleRest(step, i, walk))
}

function descendOne<T>(step: Step<T>, segment: string, i: number, walk: Walk): Match<T> | undefined {
  for (const one of step.ones) {
    const { suffix } = one
    if (segment.length <= suffix.length || (suffix !== '' && !segment.endsWith(suffix))) continue
    if (walk.hasSlash && !one.mayHoldSlash && segment.includes('%2F')) continue
    walk.captured.push(suffix === '' ? segment : segment.slice(0, -suffix.length))
    const found = descend(one.next, i + 1, walk)
    if (found !== undefined) return found
    walk.captured.pop()
  }
  return undefined
}

function settleRest<T>(step: Step<T>, i: number, walk: Walk): Match<T> | undefined {
  for (const rest of step.rest) {
    const tail = walk.segments.slice(i)
    // A server that merges slashes would read an empty segment as another place.
    if (!rest.mayHoldSlash && tail.some((part) => part === '' || part.includes('%2F'))) continue
    walk.captured.push(tail.join('/'))
    const found = settle(rest.leaves, walk)
    if (found !== undefined) return found
    walk.captured.pop()
  }
  return undefined
}

function settle<T>(leaves: Map<string, Leaf<T>[]>, walk: Walk): Match<T> | undefined {
  // A HEAD is a GET whose body is not sent (RFC 9110 §9.3.2).
  const candidates = leaves.get(walk.method) ?? (walk.method === 'HEAD' ? leaves.get('GET') : undefined)
  if (candidates === undefined) return undefined
  for (const leaf of candidates) {
    if (leaf.query.length > 0 && !queryAgrees(leaf.query, walk.readable)) continue
    if (leaf.condition !== undefined && !told(leaf.condition, walk.said, walk.query)) continue
    if (candidates.length > 1 && (leaf.query.length > 0 || leaf.condition !== undefined))
      refuseSecondMeaning(leaf, candidates, walk)
    return { value: leaf.value, params: paramsOf(leaf.names, walk.captured) }
  }
  return undefined
}

function paramsOf(names: readonly string[], captured: readonly string[]): Readonly<Record<string, string>> {
  if (names.length === 0) return NO_PARAMS
  const params: Record<string, string> = {}
  for (let n = 0; n < names.length; n++) params[names[n] ?? ''] = captured[n] ?? ''
  return params
}

const NO_PARAMS: Readonly<Record<string, string>> = Object.freeze({})

/**
 * What makes two operations of one path must not be readable in two ways: else this one is decided on, and the other is done.
 * @throws {GatewayError} `request_malformed`
 */
function queryAgrees(wanted: RequestPattern['query'], request: Readable): boolean {
  return wanted.every(([name, value]) => {
    const found = readParameter({ place: 'query', name }, request)
    if ('value' in found) return value === '*' || found.value === value
    if (found === ABSENT) return false
    throw new GatewayError(
      'request_malformed',
      `The operation depends on the query parameter ${JSON.stringify(name)}, which ${found.fault}. Send it once.`,
    )
  })
}

/**
 * `?partNumber=1&acl` asks for two operations, and which one the upstream does is its own choice. What asks for less than the leaf that
 * was found means the same; what asks for something else as well must not.
 * @throws {GatewayError} `request_malformed`
 */
function refuseSecondMeaning<T>(found: Leaf<T>, candidates: readonly Leaf<T>[], { query, readable, said }: Walk): void {
  for (const other of candidates) {
    if (other.value === found.value) continue
    const { condition } = other
    const isOtherField = condition !== undefined && !isSameField(condition, found.condition)
    const isOtherQuery = other.query.some(([name]) => !found.query.some(([known]) => known === name))
    if (!isOtherField && !isOtherQuery) continue
    if (!queryAgrees(other.query, readable)) continue
    // Another field counts whatever it says: the upstream may know values that the service file does not.
    if (condition !== undefined && !told(isOtherField ? { ...condition, value: '*' } : condition, said, query)) continue
    throw new GatewayError(
      'request_malformed',
      `The request asks for two operations at once: ${asksOf(found)} and ${asksOf(other)}. Send one of them.`,
    )
  }
}

function isSameField(one: Condition, other: Condition | undefined): boolean {
  return one.in === other?.in && one.name === other.name
}

/** In words of the service file. */
function asksOf({ query, condition }: Leaf<unknown>): string {
  return [...query.map(([name]) => `?${name}`), ...(condition ? [condition.name] : [])].join(' with ')
}

function nextStep<T>(step: Step<T>, segment: Exclude<Segment, { kind: 'rest' }>): Step<T> {
  if (segment.kind === 'literal') {
    const known = step.literals.get(segment.text) ?? emptyStep<T>()
    step.literals.set(segment.text, known)
    return known
  }
  const { suffix, mayHoldSlash } = segment
  const known = step.ones.find((one) => one.suffix === suffix && one.mayHoldSlash === mayHoldSlash)
  if (known !== undefined) return known.next
  const next = emptyStep<T>()
  step.ones.push({ suffix, mayHoldSlash, next })
  step.ones.sort((a, b) => b.suffix.length - a.suffix.length || Number(a.mayHoldSlash) - Number(b.mayHoldSlash))
  return next
}

function restLeaves<T>(step: Step<T>, mayHoldSlash: boolean): Map<string, Leaf<T>[]> {
  const known = step.rest.find((rest) => rest.mayHoldSlash === mayHoldSlash)
  if (known !== undefined) return known.leaves
  const leaves = new Map<string, Leaf<T>[]>()
  step.rest.push({ mayHoldSlash, leaves })
  step.rest.sort((a, b) => Number(a.mayHoldSlash) - Number(b.mayHoldSlash))
  return leaves
}

function sameQuery(a: RequestPattern['query'], b: RequestPattern['query']): boolean {
  return JSON.stringify([...a].sort()) === JSON.stringify([...b].sort())
}

function sameCondition(a: Condition | undefined, b: Condition | undefined): boolean {
  return a?.in === b?.in && a?.name === b?.name && a?.value === b?.value
}

/** The more a pattern asks for, the earlier it is tried; of two beginnings, the longer one. */
function rank({ query, condition }: Pick<Leaf<unknown>, 'query' | 'condition'>): number {
  const exact = query.filter(([, value]) => value !== '*').length
  if (condition === undefined) return (query.length * 2 + exact) * 1000
  return (
    (query.length * 2 + exact) * 1000 +
    500 +
    (condition.value.endsWith('*') ? Math.min(condition.value.length, 400) : 450)
  )
}

const SILENT: Told = { rawHeaders: [] }

function emptyStep<T>(): Step<T> {
  return { literals: new Map(), ones: [], here: new Map(), rest: [] }
}
