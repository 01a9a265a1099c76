/**
 * The terms of a grant as asked for: authority, lifetime, depth, what it is bound to. On their own, or within those of a grant
 * above. What is too long, too wide or unknown is refused with everything that was; it is cut only where the request says so.
 */
import { parseScope } from '../protocol/authority.ts'
import { parseDetails } from '../protocol/details.ts'
import type { Authority, Grant } from '../protocol/grant.ts'
import type { GrantRequest } from '../protocol/instruction.ts'
import { GatewayError } from '../protocol/problem.ts'
import { type Excess, excessOf, narrow } from './attenuate/attenuate.ts'
import { checkPreset, type Lifetime, lifetimeOf, presetAuthority } from './propose/preset.ts'

const SCOPE_LIMIT = 4096
const TRACE_ID = /^(?!0{32})[0-9a-f]{32}$/ // W3C Trace Context §3.2.2.3
const STEP_NAME = /^[A-Za-z0-9._-]{1,64}$/ // no slash: it separates task and step in a mark
const THUMBPRINT = /^[A-Za-z0-9_-]{43}$/
/** Faults that are spelled out; more are counted. */
const FAULTS_SHOWN = 32

type Bindings = Pick<Grant, 'preset' | 'step' | 'trace'>

export type Terms = Pick<Grant, 'authority' | 'issuedAt' | 'expiresAt' | 'maxDepth' | 'delegable'> & Bindings

/** What settings and catalogue allow at all. */
export interface Limits {
  knowsOperation(pattern: string): boolean
  readonly ttl: Lifetime
  /** Delegations below a root grant. */
  readonly maxDepth: number
}

/**
 * Terms that nothing stands above.
 * @param held authority when the request names none. @throws {GatewayError} `invalid_scope`, `invalid_details`, `instruction_invalid`
 */
export function termsAsked(request: GrantRequest, limits: Limits, nowMs: number, held?: readonly Authority[]): Terms {
  checkRequest(request)
  const authority = authorityAsked(request, limits) ?? held
  if (authority === undefined) throw nothingAsked()
  const issuedAt = Math.floor(nowMs / 1000)
  return {
    authority: presetAuthority(authority, request.preset),
    issuedAt,
    expiresAt: issuedAt + ttlAsked(request, limits.ttl),
    maxDepth: depthAsked(request.maxDepth ?? limits.maxDepth, 0, limits.maxDepth),
    delegable: request.delegable ?? true,
    ...bindingsOf(request),
  }
}

/** The grant above, and how deep the one below it is. */
export interface Bound {
  readonly above: Terms
  readonly depth: number
  /** When the request names none. */
  readonly held: readonly Authority[]
  /** For the refusal: `its parent 0199…`. */
  readonly name: string
}

/**
 * Terms within those of the grant above, and what was cut to get there.
 * @throws {GatewayError} `invalid_scope` naming everything that was too wide, `invalid_details`, `instruction_invalid`
 */
export function termsWithin(
  { above, depth, held, name }: Bound,
  asked: GrantRequest,
  limits: Limits,
  nowMs: number,
): { readonly terms: Terms; readonly cut: readonly string[] } {
  const request = { ...asked, ...bindingsOf(above), ...bindingsOf(asked) }
  checkRequest(request)
  const wanted = presetAuthority(authorityAsked(asked, limits) ?? held, request.preset)
  const issuedAt = Math.max(Math.floor(nowMs / 1000), above.issuedAt) // another replica's clock may be ahead of ours
  const ttlS = ttlAsked(request, limits.ttl)
  const maxDepth = depthAsked(asked.maxDepth ?? above.maxDepth, depth, Number.MAX_SAFE_INTEGER)
  const delegable = asked.delegable ?? above.delegable
  const bounds = [
    ...(asked.ttlS === undefined ? [] : beyond('ttl_s', ttlS, above.expiresAt - issuedAt)),
    ...beyond('max_depth', maxDepth, above.maxDepth),
    ...beyond('delegable', Number(delegable), Number(above.delegable)),
  ]
  const excess = [
    ...(wanted === above.authority ? [] : excessOf(above.authority, wanted)),
    ...bounds,
    ...elsewhere(above, request),
  ]
  const { authority, cut } = settle({
    above: above.authority,
    wanted,
    excess,
    name,
    mayCut: asked.allowNarrowing === true,
  })
  const terms: Terms = {
    authority,
    issuedAt,
    expiresAt: Math.min(issuedAt + ttlS, above.expiresAt),
    maxDepth: Math.min(maxDepth, above.maxDepth),
    delegable: delegable && above.delegable,
    ...bindingsOf(request),
  }
  return { terms, cut: excess.length === 0 ? [] : [...cut, ...bounds.map(({ at }) => at)] }
}

/** Members that are taken over as asked. */
export function bindingsOf({ preset, step, trace }: Bindings | GrantRequest): Bindings {
  return {
    ...(preset !== undefined && { preset }),
    ...(step !== undefined && { step }),
    ...(trace !== undefined && { trace }),
  }
}

export function invalid(what: string): GatewayError {
  return new GatewayError('instruction_invalid', `${what}.`)
}

/** A glimpse of what was given. */
export function quote(text: string): string {
  return JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}…` : text)
}

/** Everything but authority, lifetime and depth. */
function checkRequest(request: GrantRequest): void {
  checkPreset(request)
  const { trace, step, cnf } = request
  if (trace !== undefined && !TRACE_ID.test(trace))
    throw invalid('trace is not a W3C trace id; allowed are 32 lower-case hex digits, not all zero')
  if (step !== undefined && !STEP_NAME.test(step))
    throw invalid('step is not a step name; allowed are 1 to 64 of the characters A-Z a-z 0-9 . _ -')
  for (const thumbprint of Object.values(cnf ?? {})) {
    if (thumbprint !== undefined && !THUMBPRINT.test(thumbprint))
      throw invalid('cnf holds no thumbprint; allowed is a SHA-256 in base64url, 43 characters')
  }
}

/** `scope` and `authorization_details` together; undefined when neither was given. */
function authorityAsked({ scope, details }: GrantRequest, limits: Limits): readonly Authority[] | undefined {
  if (scope === undefined && details === undefined) return undefined
  if (scope !== undefined && scope.length > SCOPE_LIMIT) {
    throw new GatewayError(
      'invalid_scope',
      `The scope has ${scope.length} characters; at most ${SCOPE_LIMIT} are allowed. Use patterns such as github:issues.*`,
    )
  }
  const authority = [
    ...(scope === undefined ? [] : parseScope(scope)),
    ...(details === undefined ? [] : parseDetails(details)),
  ]
  if (authority.length === 0) throw nothingAsked()
  const unknown = authority.flatMap(({ operations }) => operations).filter((pattern) => !limits.knowsOperation(pattern))
  if (unknown.length === 0) return authority
  throw new GatewayError(
    'invalid_scope',
    `The catalogue has no operation under ${unknown.map(quote).join(', ')}. Check the spelling against the service's file (shipped ones: policies/services), and that the service is listed under \`services\` in the settings.`,
  )
}

function nothingAsked(): GatewayError {
  return new GatewayError(
    'invalid_scope',
    'The scope names no operation. Name at least one, such as github:issues.read',
  )
}

/** Seconds. */
function ttlAsked({ ttlS, preset }: GrantRequest, ttl: Lifetime): number {
  const { defaultS, maxS } = lifetimeOf(preset, ttl)
  if (ttlS === undefined) return defaultS
  if (Number.isSafeInteger(ttlS) && ttlS >= 1 && ttlS <= maxS) return ttlS
  const why = preset === undefined ? '`grants.max_ttl_s` in the settings' : `preset ${preset}`
  throw invalid(`a lifetime of ${ttlS} s was asked for; allowed are 1 to ${maxS} s (${why})`)
}

function depthAsked(maxDepth: number, own: number, allowed: number): number {
  if (Number.isSafeInteger(maxDepth) && maxDepth >= own && maxDepth <= allowed) return maxDepth
  const most = allowed === Number.MAX_SAFE_INTEGER ? 'more' : `${allowed} (\`grants.max_depth\` in the settings)`
  throw invalid(`a maximum depth of ${maxDepth} was asked for; allowed are ${own} to ${most}`)
}

export function beyond(at: string, got: number, allowed: number): readonly Excess[] {
  return got <= allowed ? [] : [{ at, got: String(got), allowed: `at most ${allowed}` }]
}

/** Another step or prompt is not a part of the one above. */
function elsewhere(above: Terms, request: GrantRequest): readonly Excess[] {
  return (['step', 'trace'] as const).flatMap((at) => {
    const allowed = above[at]
    return allowed === undefined || request[at] === allowed
      ? []
      : [{ at, got: quote(request[at] ?? ''), allowed: quote(allowed) }]
  })
}

function settle(o: {
  readonly above: readonly Authority[]
  readonly wanted: readonly Authority[]
  readonly excess: readonly Excess[]
  readonly name: string
  readonly mayCut: boolean
}): { readonly authority: readonly Authority[]; readonly cut: readonly string[] } {
  const { above, wanted, excess, name, mayCut } = o
  if (excess.length === 0) return { authority: wanted, cut: [] }
  if (!mayCut || excess.some(({ at }) => at === 'step' || at === 'trace')) throw tooWide(name, excess, OR_CUT)
  const narrowed = narrow(above, wanted)
  if (narrowed.authority.length === 0) throw tooWide(name, excess)
  return narrowed
}

const OR_CUT = 'Ask for less, or send allow_narrowing (`--narrow`) to have it cut.'

/** @param advice for whoever can have it cut. */
export function tooWide(name: string, excess: readonly Excess[], advice = 'Ask for less.'): GatewayError {
  const shown = excess.slice(0, FAULTS_SHOWN).map(({ at, got, allowed }) => `${at}: got ${got}, allowed ${allowed}`)
  const more = excess.length > FAULTS_SHOWN ? `; and ${excess.length - FAULTS_SHOWN} more` : ''
  return new GatewayError(
    'invalid_scope',
    `The grant asked for is wider than ${name}. ${shown.join('; ')}${more}. ${advice}`,
  )
}
