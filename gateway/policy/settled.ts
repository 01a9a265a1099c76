/**
 * Conditions that are settled before anybody calls: what a service file fixes for an operation makes some of them false for good, and
 * a policy with such a one has no say on the operation. Sound only if nothing before it could fail, because a failure is a no: what is
 * not understood here settles nothing. Pure.
 */
import type { PolicyJson } from '@cedar-policy/cedar-wasm/nodejs'

/** Attributes of the resource that are the same for every call of an operation: strings, booleans, lists of strings. */
export type Fixed = Readonly<Record<string, unknown>>

type Node = Readonly<Record<string, unknown>>
type Pair = Readonly<Record<'left' | 'right', Node>>

/** Whether the policy applies to no call at all where these are fixed, and fails on none. */
export function isNeverMet({ conditions }: PolicyJson, fixed: Fixed): boolean {
  for (const { kind, body } of conditions) {
    const held = constantOf(body as unknown as Node, fixed)
    if (held === (kind === 'unless')) return true
    if (held === undefined && !isHarmless(body as unknown as Node)) return false
  }
  return false
}

/** @returns undefined for what depends on the call, and for whatever is not understood. */
function constantOf(node: Node, fixed: Fixed): unknown {
  const [operator = '', operand] = Object.entries(node)[0] ?? []
  return (CONSTANTS[operator] as ((operand: unknown, fixed: Fixed) => unknown) | undefined)?.(operand, fixed)
}

type Reader<T> = (operand: T, fixed: Fixed) => unknown
type Attribute = { readonly left: Node; readonly attr: unknown }

const either = (settles: boolean): Reader<Pair> => {
  return ({ left, right }, fixed) => {
    const first = constantOf(left, fixed)
    if (first === !settles) return truthOf(right, fixed)
    if (first === settles) return settles
    return isHarmless(left) && truthOf(right, fixed) === settles ? settles : undefined
  }
}

const equal = (isWanted: boolean): Reader<Pair> => {
  return ({ left, right }, fixed) => {
    const [a, b] = [constantOf(left, fixed), constantOf(right, fixed)]
    return isPlain(a) && isPlain(b) ? (a === b) === isWanted : undefined
  }
}

const CONSTANTS: Readonly<Record<string, Reader<never>>> = {
  Value: (value: unknown) => (isPlain(value) ? value : undefined),
  Set: (of: readonly Node[], fixed: Fixed) => {
    const values = of.map((one) => constantOf(one, fixed))
    return values.every(isPlain) ? values : undefined
  },
  '.': ({ left, attr }: Attribute, fixed: Fixed) => (isFixed(left, attr, fixed) ? fixed[attr] : undefined),
  has: ({ left, attr }: Attribute, fixed: Fixed) => isFixed(left, attr, fixed) || undefined,
  '&&': either(false),
  '||': either(true),
  '!': ({ arg }: { readonly arg: Node }, fixed: Fixed) => {
    const truth = truthOf(arg, fixed)
    return truth === undefined ? undefined : !truth
  },
  '==': equal(true),
  '!=': equal(false),
  contains: ({ left, right }: Pair, fixed: Fixed) => {
    const [all, one] = [constantOf(left, fixed), constantOf(right, fixed)]
    return Array.isArray(all) && isPlain(one) ? all.includes(one) : undefined
  },
}

function isFixed(left: Node, attr: unknown, fixed: Fixed): attr is string {
  return left.Var === 'resource' && typeof attr === 'string' && Object.hasOwn(fixed, attr)
}

function truthOf(node: Node, fixed: Fixed): boolean | undefined {
  const value = constantOf(node, fixed)
  return typeof value === 'boolean' ? value : undefined
}

/** Of two of these it is known whether Cedar takes them for equal. */
function isPlain(value: unknown): value is string | boolean {
  return typeof value === 'string' || typeof value === 'boolean'
}

/** What Cedar does without fail in a policy that has passed validation: there attributes are there, and values are of their types. */
const HARMLESS = new Set(['&&', '||', '!', '==', '!=', 'contains', 'like', '<', '<=', '>', '>='])

function isHarmless(node: Node): boolean {
  const [operator = '', operand] = Object.entries(node)[0] ?? []
  if (operator === 'Value' || operator === 'Var') return true
  if (operator === 'Set') return (operand as readonly Node[]).every(isHarmless)
  // Of a variable alone: what an attribute names need not be there.
  if (operator === '.' || operator === 'has') return 'Var' in (operand as Attribute).left
  if (!HARMLESS.has(operator)) return false
  const { left, right, arg } = operand as Partial<Pair> & { readonly arg?: Node }
  return [left, right, arg].every((part) => part === undefined || isHarmless(part))
}
