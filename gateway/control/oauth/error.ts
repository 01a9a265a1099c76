/**
 * Refusals of the OAuth endpoints as RFC 6749 §5.2 and its extensions word them. `keyless_code` keeps our own, finer code;
 * the only place that writes one of these answers.
 */
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import { DPOP_ALGORITHMS } from '../../protocol/identity.ts'
import { type GatewayError, type ProblemCode, problems } from '../../protocol/problem.ts'
import { refusalOf } from '../problem.ts'

/** Codes that have an error of their own. The others are `invalid_request`, as RFC 8693 §2.2.2 wants it for bad tokens. */
const ERRORS: Partial<Record<ProblemCode, string>> = {
  client_invalid: 'invalid_client',
  agent_unknown: 'unauthorized_client',
  grant_type_unsupported: 'unsupported_grant_type',
  invalid_scope: 'invalid_scope',
  scope_exceeded: 'invalid_scope',
  invalid_details: 'invalid_authorization_details', // RFC 9396 §5
  invalid_target: 'invalid_target', // RFC 8707 §2
  dpop_invalid: 'invalid_dpop_proof', // RFC 9449 §5
  dpop_nonce_required: 'use_dpop_nonce', // RFC 9449 §8
  policy_denied: 'access_denied',
  approval_required: 'access_denied',
  access_blocked: 'access_denied',
  approval_denied: 'access_denied',
  approval_expired: 'access_denied',
  limit_exceeded: 'access_denied',
  use_spent: 'access_denied',
  internal: 'server_error',
}

const ABOUT_THE_HOLDER: ReadonlySet<ProblemCode> = new Set([
  'grant_missing',
  'grant_invalid',
  'grant_expired',
  'grant_revoked',
  'task_suspended',
])

/** RFC 6749 §5.2 answers 400 "unless specified otherwise": these say more to HTTP itself. */
const KEPT: ReadonlySet<number> = new Set([401, 405, 421])

export interface ErrorContext {
  /** Protection space of the challenges. */
  readonly issuer: string
  nonce(): string
}

export function writeOauthError(
  request: FastifyRequest,
  reply: FastifyReply,
  refusal: GatewayError,
  context: ErrorContext,
): void {
  const { error, status } = errorOf(refusal.code, request)
  if (status === 401) void reply.header('www-authenticate', challengeOf(request, error, context))
  if (status === 405) void reply.header('allow', 'POST')
  if (status === 503) void reply.header('retry-after', '1')
  if (request.headers.dpop !== undefined || error === 'use_dpop_nonce') void reply.header('dpop-nonce', context.nonce())
  void reply
    .status(status)
    .header('keyless-error', refusal.code)
    .header('cache-control', 'no-store')
    .type('application/json')
    .serializer((body: unknown) => JSON.stringify(body)) // a route's own schema must not cut it down
    .send({
      error,
      error_description: describe(refusal.detail),
      keyless_code: refusal.code,
      remedy: problems[refusal.code].remedy,
      instance: request.id,
      ...refusal.advice,
    })
}

/** Whatever was thrown on the way, by the framework or by us. */
export function oauthRefusalOf(error: FastifyError | Error): GatewayError {
  return refusalOf(error, 'Bodies are forms of at most 64 KiB, sent as application/x-www-form-urlencoded.')
}

function errorOf(code: ProblemCode, request: FastifyRequest): { readonly error: string; readonly status: number } {
  const scheme = schemeOf(request)
  // A caller that presents a grant of its own is at a protected resource: RFC 6750 §3.1, RFC 9449 §9.
  if (scheme === 'Bearer' || scheme === 'DPoP') {
    if (ABOUT_THE_HOLDER.has(code)) return { error: 'invalid_token', status: 401 }
    if (code === 'dpop_invalid' || code === 'dpop_nonce_required')
      return { error: ERRORS[code] ?? 'invalid_token', status: 401 }
  }
  // RFC 8693 §2.2.2: an actor that is unacceptable "for any reason" makes the request invalid.
  if (code === 'agent_unknown' && isExchange(request)) return { error: 'invalid_request', status: 400 }
  const status = code === 'client_invalid' ? 401 : problems[code].status // RFC 6749 §5.2
  if (status >= 500) return { error: ERRORS[code] ?? 'temporarily_unavailable', status }
  return { error: ERRORS[code] ?? 'invalid_request', status: KEPT.has(status) ? status : 400 }
}

/** RFC 9110 §15.5.2: a 401 names a scheme; RFC 6749 §5.2: the one that the client tried. */
function challengeOf(request: FastifyRequest, error: string, { issuer }: ErrorContext): string {
  const scheme = schemeOf(request) ?? 'Bearer'
  const params = [`realm="${issuer}"`]
  if (scheme !== 'Basic') params.push(`error="${error}"`)
  if (scheme === 'DPoP') params.push(`algs="${DPOP_ALGORITHMS.join(' ')}"`)
  return `${scheme} ${params.join(', ')}`
}

function schemeOf(request: FastifyRequest): 'Basic' | 'Bearer' | 'DPoP' | undefined {
  const scheme = /^(basic|bearer|dpop)(?: |$)/i.exec(request.headers.authorization ?? '')?.[1]?.toLowerCase()
  if (scheme === undefined) return undefined
  return scheme === 'basic' ? 'Basic' : scheme === 'dpop' ? 'DPoP' : 'Bearer'
}

function isExchange(request: FastifyRequest): boolean {
  const body = request.body as { readonly grant_type?: unknown } | null | undefined
  return typeof body?.grant_type === 'string' && body.grant_type.endsWith(':token-exchange')
}

/** RFC 6749 §5.2: %x20-21 / %x23-5B / %x5D-7E. */
function describe(detail: string): string {
  return detail
    .replaceAll(/["“”„]/g, "'")
    .replaceAll('\\', '/')
    .replaceAll('…', '...')
    .replaceAll(/[^\x20-\x7e]/gu, '?')
}
