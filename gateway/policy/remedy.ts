/**
 * Values under which a condition would come out otherwise: guesses by the shape of the expression, for `explain.ts` to try. Nothing
 * here decides; a guess that does not lead to another decision is thrown away.
 */
import type { Expr } from '@cedar-policy/cedar-wasm/nodejs'
import type { Value } from './attributes/attributes.ts'
import type { Atom, Term } from './tools/conditions.ts'

export type Values = ReadonlyMap<string, Value>

/** Guesses that are followed at once: policies with many alternatives have many ways, and few are worth reading. */
const MOST = 6

/** Values under which the term may be as wanted, the nearest first; as they are when it is so already. */
export function valuesFor(term: Term, wanted: boolean, values: Values): Values[] {
  if (term.kind === 'atom') return atomValues(term.atom, wanted, values)
  if (term.kind === 'not') return valuesFor(term.of, !wanted, values)
  const needsEach = (term.kind === 'all') === wanted
  if (!needsEach) {
    const ways = term.of.flatMap((part) => valuesFor(part, wanted, values)).filter((way) => way !== values)
    return ways.length === 0 ? [values] : ways.slice(0, MOST)
  }
  return term.of.reduce<Values[]>(
    (ways, part) => ways.flatMap((way) => valuesFor(part, wanted, way)).slice(0, MOST),
    [values],
  )
}

/** What a condition compares: an attribute, or one of its tags or members. */
interface Place {
  readonly name: string
  readonly member?: string
}

type Operands = { readonly left: Expr; readonly right: Expr }

function atomValues({ expr }: Atom, wanted: boolean, values: Values): Values[] {
  const [[operator, operand] = ['', undefined]] = Object.entries(expr) as [string, unknown][]
  const rule = RULES[operator]
  const guesses = rule === undefined ? plain(expr, wanted, values) : rule(operand as Operands, wanted, values)
  // What is as wanted already, or can't be changed, stays: whether that is enough is for Cedar to say.
  return guesses.length === 0 ? [values] : guesses
}

/** A condition that is a Boolean attribute itself. */
function plain(expr: Expr, wanted: boolean, values: Values): Values[] {
  const place = placeOf(expr)
  return place === undefined ? [] : [put(values, place, wanted)]
}

type Rule = (operands: Operands, wanted: boolean, values: Values) => Values[]

const RULES: Readonly<Record<string, Rule>> = {
  '==': equality(true),
  '!=': equality(false),
  '<': order((value, limit) => value < limit),
  '<=': order((value, limit) => value <= limit),
  '>': order((value, limit) => value > limit),
  '>=': order((value, limit) => value >= limit),
  in: (operands, wanted, values) => equality(true)(operands, wanted, values),
  like({ left, ...rest }, wanted, values) {
    const place = placeOf(left)
    const { pattern } = rest as unknown as { pattern: readonly (string | { Literal: string })[] }
    const text = pattern.map((part) => (typeof part === 'string' ? '' : part.Literal)).join('')
    return place === undefined ? [] : [put(values, place, wanted ? text : other(text))]
  },
  contains: ({ left, right }, wanted, values) => {
    const [place, item] = [placeOf(left), literalOf(right)]
    if (place !== undefined && item !== undefined) return [putItems(values, place, [item], wanted)]
    const [inner, items] = [placeOf(right), literalsOf(left)]
    if (inner === undefined || items === undefined) return []
    return wanted ? items.map((one) => put(values, inner, one)) : [put(values, inner, other(items[0]))]
  },
  containsAll: items((all) => [all]),
  containsAny: items((all) => all.map((one) => [one])),
  hasTag({ left, right }, wanted, values) {
    const place = tagged(left, right)
    if (place?.member === undefined) return []
    if (!wanted) return [put(values, place, undefined)]
    const isThere = membersIn(values, place.name)[place.member] !== undefined
    return isThere ? [] : [put(values, place, place.name.endsWith(' tags') ? '' : 1)]
  },
  isInRange(operands, wanted, values) {
    const [address, range] = operands as unknown as readonly Expr[]
    const [place, text] = [address && placeOf(address), range && literalOf(range)]
    if (place === undefined || typeof text !== 'string') return []
    return wanted ? [put(values, place, text.split('/')[0])] : ELSEWHERE.map((one) => put(values, place, one))
  },
  isLoopback: (operands, wanted, values) => address(operands, values, wanted ? ['127.0.0.1'] : ELSEWHERE),
  isIpv4: (operands, wanted, values) => address(operands, values, [wanted ? '192.0.2.1' : '2001:db8::1']),
  isIpv6: (operands, wanted, values) => address(operands, values, [wanted ? '2001:db8::1' : '192.0.2.1']),
}

/** Addresses for documentation (RFC 5737, RFC 3849), which no range of anybody holds. */
const ELSEWHERE = ['192.0.2.1', '198.51.100.1', '2001:db8::1']

function address(operands: Operands, values: Values, candidates: readonly string[]): Values[] {
  const [of] = operands as unknown as readonly Expr[]
  const place = of && placeOf(of)
  return place === undefined ? [] : candidates.map((one) => put(values, place, one))
}

function equality(isEqual: boolean): Rule {
  return ({ left, right }, wanted, values) => {
    const place = placeOf(left) ?? placeOf(right)
    const literals = literalsOf(right) ?? literalsOf(left)
    if (place === undefined || literals === undefined) return []
    if (wanted === isEqual) return literals.map((literal) => put(values, place, literal))
    return [put(values, place, other(literals[0]))]
  }
}

/** The nearest value on the wanted side of the limit. */
function order(holds: (value: number, limit: number) => boolean): Rule {
  return ({ left, right }, wanted, values) => {
    const isLeft = placeOf(left) !== undefined
    const [place, limit] = isLeft ? [placeOf(left), literalOf(right)] : [placeOf(right), literalOf(left)]
    if (place === undefined || typeof limit !== 'number') return []
    const is = (value: number) => (isLeft ? holds(value, limit) : holds(limit, value))
    const now = place.member === undefined ? values.get(place.name) : membersIn(values, place.name)[place.member]
    if (typeof now === 'number' && is(now) === wanted) return []
    const near = [limit, limit + 1, limit - 1].find((value) => is(value) === wanted)
    return near === undefined ? [] : [put(values, place, near)]
  }
}

function items(choices: (all: readonly Item[]) => readonly (readonly Item[])[]): Rule {
  return ({ left, right }, wanted, values) => {
    const [place, all] = [placeOf(left), literalsOf(right)]
    if (place === undefined || all === undefined) return []
    return wanted
      ? choices(all).map((some) => putItems(values, place, some, true))
      : [putItems(values, place, all, false)]
  }
}

type Item = string | number | boolean

function placeOf(expr: Expr): Place | undefined {
  if ('Var' in expr) return expr.Var === 'principal' ? { name: 'principal' } : undefined
  if ('getTag' in expr) {
    const { left, right } = (expr as { getTag: Operands }).getTag
    return tagged(left, right)
  }
  if (!('.' in expr)) return undefined
  const { left, attr } = (expr as { '.': { left: Expr; attr: string } })['.']
  const variable = variableOf(left)
  if (variable !== undefined) return { name: `${variable}.${attr}` }
  const outer = placeOf(left)
  return outer === undefined || outer.member !== undefined ? undefined : { name: outer.name, member: attr }
}

/** The tags of a variable, or of an entity that is an attribute. */
function tagged(left: Expr, right: Expr): Place | undefined {
  const [variable, tag, outer] = [variableOf(left), literalOf(right), placeOf(left)]
  const name = variable === undefined ? outer?.name : `${variable} tags`
  return name === undefined || typeof tag !== 'string' || outer?.member !== undefined
    ? undefined
    : { name, member: tag }
}

function variableOf(expr: Expr): string | undefined {
  return 'Var' in expr ? String(expr.Var) : undefined
}

function literalOf(expr: Expr): Item | undefined {
  const [first, ...others] = literalsOf(expr) ?? []
  return others.length === 0 ? first : undefined
}

/** One literal, or those of a set; an entity counts by its id, a time by its epoch seconds. */
function literalsOf(expr: Expr): readonly Item[] | undefined {
  if ('Set' in expr) {
    const all = (expr as { Set: Expr[] }).Set.map((one) => literalOf(one))
    return all.includes(undefined) ? undefined : (all as Item[])
  }
  const [[name, argument] = ['', undefined]] = Object.entries(expr) as [string, unknown][]
  if (name === 'Value') return itemOf(argument)
  if (name !== 'ip' && name !== 'datetime') return undefined
  const [inner] = argument as Expr[]
  const text = inner && literalOf(inner)
  if (typeof text !== 'string') return undefined
  return name === 'ip' ? [text] : [Math.floor(Date.parse(text) / 1000)]
}

function itemOf(value: unknown): readonly Item[] | undefined {
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return [value]
  const entity = (value as { __entity?: { id: string } } | null)?.__entity
  return entity === undefined ? undefined : [entity.id]
}

/** Something else of the same type. */
function other(item: Item | undefined): Item {
  if (typeof item === 'number') return item + 1
  return typeof item === 'boolean' ? !item : `${item ?? ''}${ANOTHER}`
}

const ANOTHER = '-other'

/** Whether a text was tried only because it is not the one that stood there. */
export function isAnother(from: Value | undefined, to: Value): boolean {
  return typeof from === 'string' && to === `${from}${ANOTHER}`
}

function membersIn(values: Values, name: string): { readonly [name: string]: Value } {
  const value = values.get(name)
  return typeof value === 'object' && !Array.isArray(value) ? (value as { [name: string]: Value }) : {}
}

/** @param item undefined: without the member. */
function put(values: Values, { name, member }: Place, item: Item | undefined): Values {
  if (!values.has(name)) return values // fixed by the operation, or not there at all
  if (member === undefined) return item === undefined ? values : new Map([...values, [name, item]])
  const { [member]: _, ...others } = membersIn(values, name)
  return new Map([...values, [name, item === undefined ? others : { ...others, [member]: item }]])
}

function putItems(values: Values, { name, member }: Place, some: readonly Item[], isIn: boolean): Values {
  const before = values.get(name)
  if (member !== undefined || !Array.isArray(before)) return values
  const without = (before as Item[]).filter((one) => !some.includes(one))
  return new Map([...values, [name, isIn ? [...without, ...some] : without]])
}
