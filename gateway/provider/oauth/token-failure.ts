/**
 * A failed token request as a coded refusal. The causes of `oauth4webapi` carry whole answers, tokens included, and error
 * descriptions can echo what was sent: so no cause is kept, and only codes from these tables reach a message.
 */
import * as oauth from 'oauth4webapi'
import { GatewayError, problems } from '../../protocol/problem.ts'
import { AnswerTooLarge } from '../bounded-fetch.ts'

/** RFC 6749 §5.2, RFC 8707 §2, RFC 9449 §5, RFC 9470 §3: what the operator has to change, and where. */
const REJECTIONS: Readonly<Record<string, string>> = {
  invalid_client: 'Check client_id, client_auth and the secret or key.',
  unauthorized_client: 'Allow this client the grant type that its provider asks with.',
  unsupported_grant_type: 'Allow the grant type that the provider asks with at the server.',
  invalid_scope: 'Ask for a scope that this client is registered for.',
  invalid_target: 'Name a resource or audience that the server knows.',
  invalid_request: 'Check scope, resource, audience and assertion_audience, and what is presented.',
  invalid_grant:
    'Check scope, resource, audience and assertion_audience, and whether the server trusts the issuer of what is presented.',
  invalid_dpop_proof: 'Check the clocks, and that token_url is the one that the server knows itself by.',
  insufficient_user_authentication: 'The human has to log in more strongly first.',
  access_denied: 'Allow this client at the server.',
}

interface Exchange {
  readonly host: string
  /** Undefined: it asked as nobody. */
  readonly clientId: string | undefined
  /** Status of the answer, if one came. */
  readonly status: number | undefined
  /** Milliseconds that the answer asked to wait. */
  readonly retryAfterMs?: number | undefined
  readonly signal: AbortSignal
}

export function tokenFailure(cause: unknown, exchange: Exchange): GatewayError {
  if (exchange.signal.aborted) return unavailable(exchange, 'did not answer in time')
  const refusal = guardedRefusal(cause)
  if (refusal !== undefined)
    return new GatewayError(refusal.code, `Token request to ${exchange.host}: ${refusal.detail}`)
  if (cause instanceof AnswerTooLarge) return unavailable(exchange, 'sent an answer larger than 256 KiB')
  if (exchange.status === undefined) return unavailable(exchange, `could not be reached (${networkCode(cause)})`)
  if (exchange.status >= 500 || exchange.status === 429 || exchange.status === 408) {
    return unavailable(exchange, `answered ${exchange.status}`)
  }
  if (cause instanceof oauth.ResponseBodyError) return answeredError(cause.error, exchange)
  if (exchange.status === 200) return unavailable(exchange, 'answered something that is not a token response')
  return rejected(exchange, `answered ${exchange.status} without an OAuth error. Check token_url.`)
}

/** What the operator has to change for an error code of a token endpoint; undefined for one that no standard defines. */
export function adviceOn(code: unknown): string | undefined {
  return typeof code === 'string' && Object.hasOwn(REJECTIONS, code) ? REJECTIONS[code] : undefined
}

/** A nonce comes with the next answer. */
const PASSING: ReadonlySet<string> = new Set(['temporarily_unavailable', 'server_error', 'slow_down', 'use_dpop_nonce'])

function answeredError(code: string, exchange: Exchange): GatewayError {
  const advice = adviceOn(code)
  const whom = exchange.clientId === undefined ? 'the request' : `client ${exchange.clientId}`
  if (advice !== undefined) return rejected(exchange, `refused ${whom}: ${code}. ${advice}`)
  if (PASSING.has(code)) return unavailable(exchange, `answered ${code}`)
  return rejected(
    exchange,
    `refused ${whom} with status ${exchange.status} and an error code that RFC 6749 does not know.`,
  )
}

/** What the guarded dial says is more precise than "unreachable", when the operator has to change something. */
export function guardedRefusal(cause: unknown): GatewayError | undefined {
  for (let error = cause; error instanceof Error; error = error.cause) {
    if (error instanceof GatewayError) return problems[error.code].remedy === 'fix_configuration' ? error : undefined
  }
  return undefined
}

export function networkCode(cause: unknown): string {
  for (let error = cause; error instanceof Error; error = error.cause) {
    if (error instanceof GatewayError) return error.code
    const code = (error as Error & { code?: unknown }).code
    if (typeof code === 'string' && /^[A-Z0-9_]{1,40}$/.test(code)) return code
  }
  return 'network error'
}

function unavailable(exchange: Exchange, what: string): GatewayError {
  const { host, retryAfterMs } = exchange
  return new GatewayError('credential_unavailable', `The authorization server at ${host} ${what}.`, { retryAfterMs })
}

function rejected(exchange: Exchange, what: string): GatewayError {
  return new GatewayError('credential_rejected', `The authorization server at ${exchange.host} ${what}`)
}
