/** The constraints inside `authorization_details`: one row says what each may be. Pure. */
import { formatCidr, parseCidr } from './cidr.ts'
import { APPROVALS, CONSTRAINT_NAMES, SENSITIVITIES } from './constraint.ts'
import {
  invalidDetails,
  parseElements,
  parseList,
  parseMembers,
  parseObject,
  parseText,
  shown,
} from './details-shape.ts'
import type { Constraints, ParameterRule } from './grant.ts'
import { parseParameter } from './parameter.ts'
import { isScalar, type Place, type Scalar } from './parameter-rule.ts'

const MAX_PARAMETERS = 32
/** The last second that RFC 3339 can write. */
const MAX_INSTANT = 253_402_300_799
const MAX_WINDOW_S = 86_400

type Row<T> = (value: unknown, at: string) => T
type Rows<T> = { readonly [K in keyof Required<T>]: Row<Required<T>[K]> }

const count = wholeNumber(1, Number.MAX_SAFE_INTEGER)
const instant = wholeNumber(0, MAX_INSTANT)

const rows: Rows<Constraints> = {
  max_calls: count,
  max_bytes: count,
  rate: (value, at) => {
    const { n, per } = parseMembers(value, at, ['n', 'per'])
    return { n: count(n, `${at}.n`), per: wholeNumber(1, MAX_WINDOW_S)(per, `${at}.per`) }
  },
  single_use: (value, at) => {
    if (typeof value === 'boolean') return value
    throw invalidDetails(at, shown(value), 'true or false')
  },
  not_before: instant,
  not_after: instant,
  source: (value, at) => parseList(value, at, CIDR),
  geo: (value, at) => parseList(value, at, REGION),
  params: parseParameters,
  sensitivity_max: (value, at) => parseWord(value, at, SENSITIVITIES),
  approval: (value, at) => parseWord(value, at, APPROVALS),
}

export function parseConstraints(value: unknown, at: string): Constraints {
  const members = parseMembers(value, at, CONSTRAINT_NAMES)
  const entries = CONSTRAINT_NAMES.flatMap((name) =>
    Object.hasOwn(members, name) ? [[name, rows[name as keyof Constraints](members[name], `${at}.${name}`)]] : [],
  )
  if (entries.length === 0) throw invalidDetails(at, 'empty', 'at least one constraint, or to leave it out')
  const constraints: Constraints = Object.fromEntries(entries)
  const { not_before = 0, not_after = MAX_INSTANT + 1 } = constraints
  if (not_after <= not_before)
    throw invalidDetails(`${at}.not_after`, String(not_after), `later than not_before (${not_before})`)
  return constraints
}

const CIDR = {
  isRight: (text: string) => {
    const cidr = parseCidr(text)
    return cidr !== undefined && formatCidr(cidr) === text
  },
  form: 'a range in its canonical form, such as 10.0.0.0/8 or 2001:db8::/32: lower case, no bits beyond the prefix length',
}

const REGION = {
  isRight: (text: string) => /^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$/.test(text),
  form: 'a region of the settings, such as CH',
}

const ruleRows: Rows<ParameterRule> = {
  equals: parseScalar,
  one_of: parseScalars,
  prefix: (value, at) => parseText(value, at, { isRight: isText, form: 'a text that is not empty' }),
  glob: (value, at) => parseText(value, at, GLOB),
  max: parseNumber,
  min: parseNumber,
  within: parseScalars,
}
const RULE_NAMES = Object.keys(ruleRows)

const GLOB = {
  isRight: (text: string) => isText(text) && !text.includes('**'),
  form: 'a text in which * stands for any characters but /, never two in a row',
}

function parseParameters(value: unknown, at: string): Record<string, ParameterRule> {
  const form = `an object of 1 to ${MAX_PARAMETERS} rules under names such as query.state or body./labels/0`
  const entries = Object.entries(parseObject(value, at, form))
  if (entries.length === 0 || entries.length > MAX_PARAMETERS) throw invalidDetails(at, `${entries.length} rules`, form)
  return Object.fromEntries(
    entries.map(([key, rule]) => {
      const parameter =
        key.length <= 256 && key.isWellFormed() && !/\p{Cc}/u.test(key) ? parseParameter(key) : undefined
      const allowed = '`query.` and a name, or `body.` and a JSON pointer (RFC 6901), at most 256 characters'
      if (parameter === undefined) throw invalidDetails(`${at}[${shown(key)}]`, 'not the name of a parameter', allowed)
      return [key, parseRule(rule, `${at}[${shown(key)}]`, parameter.place)]
    }),
  )
}

function parseRule(value: unknown, at: string, place: Place): ParameterRule {
  const members = parseMembers(value, at, RULE_NAMES)
  const entries = RULE_NAMES.flatMap((name) =>
    Object.hasOwn(members, name) ? [[name, ruleRows[name as keyof ParameterRule](members[name], `${at}.${name}`)]] : [],
  )
  if (entries.length === 0)
    throw invalidDetails(at, 'empty', `an object with some of the members ${RULE_NAMES.join(', ')}`)
  const rule: ParameterRule = Object.fromEntries(entries)
  if (rule.within !== undefined && place === 'query') {
    throw invalidDetails(`${at}.within`, 'about an array', 'only for a value in the body')
  }
  const { min = Number.NEGATIVE_INFINITY, max = Number.POSITIVE_INFINITY } = rule
  if (min > max) throw invalidDetails(`${at}.min`, String(min), `at most max (${max})`)
  return rule
}

function parseScalars(value: unknown, at: string): readonly Scalar[] {
  return parseElements(value, at, SCALAR_FORM).map((one, i) => parseScalar(one, `${at}[${i}]`))
}

const SCALAR_FORM = 'a text of at most 512 characters, a number up to 2^53, true, false or null'

function parseScalar(value: unknown, at: string): Scalar {
  if (typeof value === 'number') return parseNumber(value, at)
  if (isScalar(value) && !(typeof value === 'string' && !(value.length <= 512 && value.isWellFormed()))) return value
  throw invalidDetails(at, shown(value), SCALAR_FORM)
}

function parseNumber(value: unknown, at: string): number {
  // A negative zero does not survive being written.
  if (typeof value === 'number' && Math.abs(value) <= Number.MAX_SAFE_INTEGER && !Object.is(value, -0)) return value
  throw invalidDetails(at, shown(value), 'a number up to 2^53')
}

function isText(text: string): boolean {
  return text !== '' && text.isWellFormed()
}

function parseWord<W extends string>(value: unknown, at: string, words: readonly W[]): W {
  const word = words.find((one) => one === value)
  if (word === undefined) throw invalidDetails(at, shown(value), `one of ${words.join(', ')}`)
  return word
}

function wholeNumber(least: number, most: number): Row<number> {
  return (value, at) => {
    if (Number.isSafeInteger(value) && Number(value) >= least && Number(value) <= most) return Number(value)
    throw invalidDetails(at, shown(value), `a whole number from ${least} to ${most}`)
  }
}
