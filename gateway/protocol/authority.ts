/**
 * What a grant covers (LG/1 §1.5): operation patterns, origins and path patterns of `keyless_access`. Pure.
 * One entry must cover the whole request; two entries never add up to a third. What cannot be understood covers nothing.
 */
import type { Authority } from './grant.ts'
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

/** Whether one entry covers the endpoint: its operation, its origin and its canonical path. */
export function covers(authority: readonly Authority[], endpoint: Endpoint): boolean {
  const entries = entriesFor(authority, endpoint.operation.name)
  for (const entry of entries) {
    if (entry.isUnbounded) return true
    if (entry.origins !== undefined && !entry.origins.has(originOf(endpoint))) continue
    if (entry.paths === undefined || matchesAny(entry.paths, endpoint.path)) return true
  }
  return false
}

interface Entry {
  readonly patterns: readonly string[]
  readonly isUnbounded: boolean
  readonly origins: ReadonlySet<string> | undefined
  readonly paths: readonly (readonly string[])[] | undefined
}

interface Compiled {
  readonly entries: readonly Entry[]
  /** operation name → entries that cover it; bounded by the operations that exist */
  readonly byOperation: Map<string, readonly Entry[]>
}

/** A grant's authority array lives as long as the grant; so does what it was compiled to. */
const compiledAuthorities = new WeakMap<readonly Authority[], Compiled>()

const MAX_OPERATIONS_KEPT = 4096

function entriesFor(authority: readonly Authority[], name: string): readonly Entry[] {
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

function compile(authority: Authority): Entry {
  return {
    patterns: authority.operations.filter(isOperationPattern),
    isUnbounded: authority.locations === undefined && authority.paths === undefined,
    origins: authority.locations && new Set(authority.locations.flatMap(parseOrigin)),
    paths: authority.paths?.flatMap(parsePathPattern),
  }
}

/** A location with a path, query or userinfo is no origin and covers nothing. */
function parseOrigin(location: string): string[] {
  const url = URL.parse(location)
  if (url === null || !(url.protocol === 'https:' || url.protocol === 'http:')) return []
  if (url.pathname !== '/' || url.search !== '' || url.hash !== '' || url.username !== '' || url.password !== '')
    return []
  return [url.origin]
}

function originOf(endpoint: Endpoint): string {
  return `${endpoint.scheme}://${formatAuthority(endpoint, DEFAULT_PORTS[endpoint.scheme])}`
}

function parsePathPattern(pattern: string): string[][] {
  if (!pattern.startsWith('/')) return []
  const segments = pattern.slice(1).split('/')
  const isValid = segments.every(
    (segment, i) => !segment.includes('*') || segment === '*' || (segment === '**' && i === segments.length - 1),
  )
  return isValid ? [segments] : []
}

function matchesAny(patterns: readonly (readonly string[])[], path: string): boolean {
  const segments = path.slice(1).split('/')
  return patterns.some((pattern) => matches(pattern, segments))
}

/** `*` is one segment that is not empty; `**` is the place itself and everything below it. */
function matches(pattern: readonly string[], segments: readonly string[]): boolean {
  const hasTail = pattern.at(-1) === '**'
  const fixed = hasTail ? pattern.length - 1 : pattern.length
  if (hasTail ? segments.length < fixed : segments.length !== fixed) return false
  for (let i = 0; i < fixed; i++) {
    const wanted = pattern[i]
    if (wanted === '*' ? segments[i] === '' : segments[i] !== wanted) return false
  }
  return true
}
