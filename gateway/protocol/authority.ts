/**
 * What a grant covers (LG/1 §1.5): operation patterns, methods, origins and path patterns of `keyless_access`, in the form in
 * which requests are held against them. Pure. What cannot be understood covers nothing.
 */
import { type Condition, conditionsOf, hasBudget } from './constraint.ts'
import type { Approval, Authority, Constraints } from './grant.ts'
import { type PathPattern, parsePathPattern, pathMatches } from './path-pattern.ts'
import { GatewayError } from './problem.ts'
import type { Endpoint } from './service.ts'
import { DEFAULT_PORTS, formatAuthority } from './target.ts'

const MAX_SCOPE_TOKENS = 256

/** `service:operation`, `service:*`, `service:group.*`: a star stands only as the whole last part. */
const OPERATION_PATTERN = /^[a-z][a-z0-9-]*:(?:[A-Za-z0-9_-]+\.)*(?:[A-Za-z0-9_-]+|\*)$/

/** Whether the text names an operation or, with a star as its last part, everything below a colon or dot. */
export function isOperationPattern(text: string): boolean {
  return OPERATION_PATTERN.test(text)
}

/** Whether `name` is what the pattern says, or lies below it. `github:issues.*` covers `github:issues.read`, not `github:issues`. */
export function patternCovers(pattern: string, name: string): boolean {
  if (!pattern.endsWith('*')) return pattern === name
  return name.length >= pattern.length && name.startsWith(pattern.slice(0, -1))
}

/**
 * The short form of `authorization_details`: operation patterns separated by single spaces (RFC 6749 §3.3).
 * @throws {GatewayError} `invalid_scope` naming the first token that is wrong and the form it should have.
 */
export function parseScope(scope: string): Authority[] {
  const tokens = scope.split(' ')
  if (scope === '') throw new GatewayError('invalid_scope', `The scope is empty. ${SCOPE_FORM}`)
  if (tokens.length > MAX_SCOPE_TOKENS) {
    throw new GatewayError(
      'invalid_scope',
      `The scope has ${tokens.length} parts; at most ${MAX_SCOPE_TOKENS} are allowed. Use a pattern such as github:*.`,
    )
  }
  for (const token of tokens) {
    if (!isOperationPattern(token)) throw new GatewayError('invalid_scope', `${scopeTokenFault(token)} ${SCOPE_FORM}`)
  }
  return [{ operations: [...new Set(tokens)] }]
}

/** The short form of what is granted without further constraint; an entry that has one would be told wider than it is. */
export function formatScope(authority: readonly Authority[]): string {
  const plain = authority.filter((entry) => Object.keys(entry).every((member) => member === 'operations'))
  return [...new Set(plain.flatMap(({ operations }) => operations))].join(' ')
}

const SCOPE_FORM = 'Write operation names separated by single spaces, such as: github:issues.read github:pulls.*'

function scopeTokenFault(token: string): string {
  if (token === '') return 'The scope has two spaces in a row, or begins or ends with one.'
  const shown = JSON.stringify(token.length > 80 ? `${token.slice(0, 80)}…` : token)
  if (!/^[\x21\x23-\x5b\x5d-\x7e]+$/.test(token))
    return `The scope token ${shown} has characters that RFC 6749 does not allow.`
  if (!token.includes(':')) return `The scope token ${shown} names no service.`
  if (token.includes('*')) return `The scope token ${shown} has a star elsewhere than after its last dot or colon.`
  return `The scope token ${shown} is not an operation name.`
}

/** One entry of an authority, compiled. */
export interface Entry {
  /** Its place in the authority. */
  readonly index: number
  readonly patterns: readonly string[]
  /** Nothing but the operation is asked for. */
  readonly isUnbounded: boolean
  readonly actions: ReadonlySet<string> | undefined
  readonly origins: ReadonlySet<string> | undefined
  readonly paths: readonly PathPattern[] | undefined
  readonly constraints: Constraints | undefined
  readonly conditions: readonly Condition[]
  readonly approval: Approval
  readonly hasBudget: boolean
  readonly readsBody: boolean
}

interface Compiled {
  readonly entries: readonly Entry[]
  /** operation name → entries that cover it; bounded by the operations that exist */
  readonly byOperation: Map<string, readonly Entry[]>
}

/** A grant's authority array lives as long as the grant; so does what it was compiled to. */
const compiledAuthorities = new WeakMap<readonly Authority[], Compiled>()

const MAX_OPERATIONS_KEPT = 4096

/** The entries whose operations cover the name, in the order of the authority. */
export function entriesFor(authority: readonly Authority[], name: string): readonly Entry[] {
  let compiled = compiledAuthorities.get(authority)
  if (compiled === undefined) {
    compiled = { entries: authority.map(compile), byOperation: new Map() }
    compiledAuthorities.set(authority, compiled)
  }
  const known = compiled.byOperation.get(name)
  if (known !== undefined) return known
  const covering = compiled.entries.filter((entry) => entry.patterns.some((pattern) => patternCovers(pattern, name)))
  if (compiled.byOperation.size < MAX_OPERATIONS_KEPT) compiled.byOperation.set(name, covering)
  return covering
}

function compile(authority: Authority, index: number): Entry {
  const { operations, actions, locations, paths, constraints } = authority
  const { approval = 'none', params = {} } = constraints ?? {}
  return {
    index,
    patterns: operations.filter(isOperationPattern),
    isUnbounded: [actions, locations, paths, constraints].every((part) => part === undefined),
    actions: actions && new Set(actions),
    origins: locations && new Set(locations.flatMap((location) => parseOrigin(location) ?? [])),
    paths: paths?.flatMap((path) => parsePathPattern(path) ?? []),
    constraints,
    conditions: conditionsOf(constraints ?? {}),
    approval,
    hasBudget: hasBudget(constraints ?? {}),
    readsBody: Object.keys(params).some((key) => key.startsWith('body.')),
  }
}

/** Whether the endpoint is at one of the entry's origins and paths. */
export function isPlaceOf(entry: Entry, endpoint: Endpoint): boolean {
  if (entry.origins !== undefined && !entry.origins.has(originOf(endpoint))) return false
  if (entry.paths === undefined) return true
  const path = entry.origins === undefined ? (endpoint.place ?? endpoint.path) : endpoint.path
  const segments = path.slice(1).split('/')
  return entry.paths.some((pattern) => pathMatches(pattern, segments))
}

/** The origin in its normal form (RFC 6454 §6.1). A location with a path, query or userinfo is none. */
export function parseOrigin(location: string): string | undefined {
  const url = URL.parse(location)
  if (url === null || !(url.protocol === 'https:' || url.protocol === 'http:')) return undefined
  const extras = url.search + url.hash + url.username + url.password
  return url.pathname === '/' && extras === '' ? url.origin : undefined
}

function originOf(endpoint: Endpoint): string {
  return `${endpoint.scheme}://${formatAuthority(endpoint, DEFAULT_PORTS[endpoint.scheme])}`
}
