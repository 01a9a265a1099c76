/** When one value of a request satisfies a rule. What is not understood is satisfied by nothing. Pure. */
import type { ParameterRule } from './grant.ts'

export type Scalar = string | number | boolean | null

/** Where a value stands decides how it is read: everything in a query is text, in a body it has a type. */
export type Place = 'query' | 'body'

export function satisfies(rule: ParameterRule, value: unknown, place: Place): boolean {
  return Object.entries(rule).every(([member, bound]) => memberHolds(member, bound, value, place))
}

/** Whether a value satisfies one member of a rule. */
export function memberHolds(member: string, bound: unknown, value: unknown, place: Place): boolean {
  switch (member) {
    case 'equals':
      return isSame(bound, value, place)
    case 'one_of':
      return Array.isArray(bound) && bound.some((one) => isSame(one, value, place))
    case 'within':
      return place === 'body' && Array.isArray(bound) && Array.isArray(value) && value.every((one) => isIn(bound, one))
    case 'prefix':
      return typeof bound === 'string' && typeof value === 'string' && value.startsWith(bound)
    case 'glob':
      return typeof bound === 'string' && typeof value === 'string' && globMatches(bound, value)
    case 'max':
      return typeof bound === 'number' && numberOf(value, place) <= bound
    case 'min':
      return typeof bound === 'number' && numberOf(value, place) >= bound
    default:
      return false
  }
}

/** What a query has to say for it to be this value: 5 is `5`, true is `true`. */
export function asText(scalar: Scalar): string {
  return typeof scalar === 'string' ? scalar : JSON.stringify(scalar)
}

export function isScalar(value: unknown): value is Scalar {
  return value === null || typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean'
}

function isSame(bound: unknown, value: unknown, place: Place): boolean {
  if (!isScalar(bound)) return false
  if (place === 'query') return value === asText(bound)
  return bound === value && (typeof value !== 'number' || isExact(value))
}

function isIn(bound: readonly unknown[], element: unknown): boolean {
  return bound.some((one) => isSame(one, element, 'body'))
}

/** Beyond 2^53 neighbours are one number here and two for a reader of long integers. */
function isExact(value: number): boolean {
  return Math.abs(value) <= Number.MAX_SAFE_INTEGER
}

/** At most 15 digits: no rounding. No leading zero, plus sign or exponent: some readers take them otherwise. */
const DECIMAL = /^-?(?:0|[1-9]\d*)(?:\.\d+)?$/
const MAX_DECIMAL_LENGTH = 16

/** NaN, which is neither less nor greater than any bound, for what is not a number that everybody reads alike. */
function numberOf(value: unknown, place: Place): number {
  if (place === 'body') return typeof value === 'number' && isExact(value) ? value : Number.NaN
  const isPlain = typeof value === 'string' && value.length <= MAX_DECIMAL_LENGTH && DECIMAL.test(value)
  return isPlain ? Number(value) : Number.NaN
}

/**
 * `*` stands for any characters but `/`. A `*` in the text is matched by a `*` only, so for two globs this is at the same
 * time the exact answer to whether everything that `text` matches is matched by `glob`.
 */
export function globMatches(glob: string, text: string): boolean {
  const wanted = glob.split('/')
  const segments = text.split('/')
  return wanted.length === segments.length && wanted.every((one, i) => segmentMatches(one, segments[i] ?? ''))
}

/** Leftmost placement of each literal piece between the first and the last: linear, nothing to backtrack into. */
function segmentMatches(glob: string, text: string): boolean {
  const pieces = glob.split('*')
  const head = pieces[0] ?? ''
  if (pieces.length === 1) return text === head
  const tail = pieces.at(-1) ?? ''
  if (text.length < head.length + tail.length || !text.startsWith(head) || !text.endsWith(tail)) return false
  const end = text.length - tail.length
  let from = head.length
  for (const piece of pieces.slice(1, -1)) {
    const at = text.indexOf(piece, from)
    if (at === -1 || at + piece.length > end) return false
    from = at + piece.length
  }
  return true
}
