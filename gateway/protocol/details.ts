/**
 * `authorization_details` of type `keyless_access` (RFC 9396 §2), read and written. Whatever is unknown, twice, empty or written
 * in another than its one canonical way is refused with the place at which it stands: what is granted is hashed and compared.
 */
import { isOperationPattern, parseOrigin } from './authority.ts'
import { CONSTRAINT_NAMES } from './constraint.ts'
import { parseConstraints } from './details-constraints.ts'
import { invalidDetails, parseList, parseMembers, shown } from './details-shape.ts'
import type { Authority, Constraints, ParameterRule } from './grant.ts'
import { parsePathPattern } from './path-pattern.ts'

const TYPE = 'keyless_access'
const MAX_ENTRIES = 64
/** Elements of all lists and rules of all entries together; bounds what comparing two grants costs. */
const MAX_PATTERNS = 256
const MEMBERS = ['type', 'locations', 'actions', 'operations', 'paths', 'constraints']

/**
 * @param value parsed JSON (`parseStrictJson`): 1 to 64 objects with at most 256 list elements and rules together
 * @throws {GatewayError} `invalid_details` naming the member, what was got and what is allowed
 */
export function parseDetails(value: unknown): readonly Authority[] {
  if (!Array.isArray(value) || value.length === 0 || value.length > MAX_ENTRIES) {
    const got = Array.isArray(value) ? `${value.length} objects` : shown(value)
    throw invalidDetails('authorization_details', got, `an array of 1 to ${MAX_ENTRIES} objects of the type ${TYPE}`)
  }
  const authority = value.map((entry, i) => parseEntry(entry, `authorization_details[${i}]`))
  if (!fitsLimits(authority)) {
    const allowed = `at most ${MAX_PATTERNS}; use patterns such as github:issues.* or /repos/acme/**`
    throw invalidDetails('authorization_details', `${sizeOf(authority)} names, places and values together`, allowed)
  }
  return authority
}

/** Whether `parseDetails` would take as much, were it written as details. */
export function fitsLimits(authority: readonly Authority[]): boolean {
  return authority.length <= MAX_ENTRIES && sizeOf(authority) <= MAX_PATTERNS
}

function sizeOf(authority: readonly Authority[]): number {
  return authority.reduce((sum, entry) => sum + patternsOf(entry), 0)
}

/** The way back: members and constraints in one fixed order, absent ones left out. */
export function detailsOf(authority: readonly Authority[]): readonly Record<string, unknown>[] {
  return authority.map(({ locations, actions, operations, paths, constraints }) => ({
    type: TYPE,
    ...(locations && { locations }),
    ...(actions && { actions }),
    operations,
    ...(paths && { paths }),
    ...(constraints && { constraints: inOrder(constraints) }),
  }))
}

function inOrder(constraints: Constraints): Constraints {
  const known = constraints as Readonly<Record<string, unknown>>
  return Object.fromEntries(
    CONSTRAINT_NAMES.flatMap((name) => (Object.hasOwn(known, name) ? [[name, known[name]]] : [])),
  )
}

function patternsOf({ locations = [], actions = [], operations, paths = [], constraints }: Authority): number {
  const rules: ParameterRule[] = Object.values(constraints?.params ?? {})
  const values = rules.reduce((sum, { one_of = [], within = [] }) => sum + 1 + one_of.length + within.length, 0)
  const ranges = (constraints?.source?.length ?? 0) + (constraints?.geo?.length ?? 0)
  return locations.length + actions.length + operations.length + paths.length + ranges + values
}

function parseEntry(value: unknown, at: string): Authority {
  const { type, locations, actions, operations, paths, constraints } = parseMembers(value, at, MEMBERS)
  if (type !== TYPE) throw invalidDetails(`${at}.type`, shown(type), `"${TYPE}"`)
  return {
    operations: parseList(operations, `${at}.operations`, OPERATION),
    ...(actions !== undefined && { actions: parseList(actions, `${at}.actions`, METHOD) }),
    ...(locations !== undefined && { locations: parseList(locations, `${at}.locations`, ORIGIN) }),
    ...(paths !== undefined && { paths: parseList(paths, `${at}.paths`, PATH) }),
    ...(constraints !== undefined && { constraints: parseConstraints(constraints, `${at}.constraints`) }),
  }
}

const OPERATION = {
  isRight: isOperationPattern,
  form: 'an operation such as github:issues.read, or a pattern such as github:issues.*',
}

/** RFC 9110 §5.6.2 token; methods are case-sensitive, and registered ones are upper case. */
const METHOD = {
  isRight: (text: string) => /^[A-Z][A-Z0-9-]{0,31}$/.test(text),
  form: 'an HTTP method in upper case, such as GET',
}

const ORIGIN = {
  isRight: (text: string) => parseOrigin(text) === text,
  form: 'an origin in its normal form, such as https://api.github.com: lower case, no default port, no path, no slash at the end',
}

const PATH = {
  isRight: isCanonicalPattern,
  form: 'a path such as /repos/acme/**: decoded, with * for one whole segment and ** only at the end, no dot segment, no slash at the end',
}

/** What no canonical path holds (`canonicalPath`) cannot be matched: better told than granted in vain. */
function isCanonicalPattern(text: string): boolean {
  if (parsePathPattern(text) === undefined || !text.isWellFormed()) return false
  if (/[\p{Cc}\\;?#]|%(?!2F)|(?:^|\/)\.{1,2}(?:\/|$)/u.test(text)) return false
  return text === '/' || !text.endsWith('/')
}
