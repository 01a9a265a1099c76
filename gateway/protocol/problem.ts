/**
 * The error table: one row is the whole truth about a refusal. Codes are never renamed; `test/protocol/problem.test.ts`
 * keeps this table, `docs/errors.md` and the types equal.
 */

import type { Advice } from './advice.ts'

/** What the caller can do about it (DESIGN §13). */
export type Remedy =
  | 'retry'
  | 'renew_grant'
  | 'request_approval'
  | 'ask_grantor'
  | 'fix_request'
  | 'reauthorize'
  | 'fix_configuration'

interface Row {
  /** Status inside a tunnel, on absolute-form requests and in reverse mode, before `authentication` rows are adapted. */
  readonly status: number
  /** RFC 9209 §2.3 `error` parameter of Proxy-Status. */
  readonly proxyError: string
  readonly title: string
  readonly remedy: Remedy
}

function row(status: number, proxyError: string, remedy: Remedy, title: string): Row {
  return { status, proxyError, title, remedy }
}

/**
 * Rows with status 407 are about the agent's own credentials: 407 on the proxy connection itself, 401 in reverse mode, and
 * 403 inside a tunnel, where 401 starts login flows and 407 is a network error to most clients (clients.md §0.2).
 */
export const problems = {
  grant_missing: row(407, 'http_request_denied', 'renew_grant', 'No grant was presented'),
  grant_invalid: row(407, 'http_request_denied', 'renew_grant', 'The grant is not valid here'),
  grant_expired: row(407, 'http_request_denied', 'renew_grant', 'The grant has expired'),
  grant_revoked: row(407, 'http_request_denied', 'renew_grant', 'The grant was revoked or its task has ended'),

  policy_denied: row(403, 'http_request_denied', 'ask_grantor', 'Policy does not allow this call'),
  policy_unavailable: row(503, 'http_request_denied', 'retry', 'A policy engine that has to agree cannot be asked'),
  scope_exceeded: row(403, 'http_request_denied', 'ask_grantor', 'The grant does not cover this operation'),
  use_spent: row(403, 'http_request_denied', 'ask_grantor', 'This single-use operation was already used'),
  constraint_unmet: row(403, 'http_request_denied', 'ask_grantor', 'A constraint of the grant is not met'),
  limit_exceeded: row(403, 'http_request_denied', 'ask_grantor', 'A budget of the grant or of one above it is used up'),
  approval_required: row(403, 'http_request_denied', 'request_approval', 'Somebody has to approve this call first'),
  approval_denied: row(
    403,
    'http_request_denied',
    'ask_grantor',
    'Somebody was asked to approve this call and said no',
  ),
  approval_expired: row(403, 'http_request_denied', 'request_approval', 'Nobody approved this call in time'),
  access_blocked: row(403, 'http_request_denied', 'ask_grantor', 'Access is blocked until somebody lifts it'),
  task_suspended: row(403, 'http_request_denied', 'renew_grant', 'The task is suspended'),
  host_unmanaged: row(403, 'http_request_denied', 'fix_configuration', 'No service covers this host'),
  foreign_credential: row(
    403,
    'http_request_denied',
    'fix_request',
    'The request carries a credential that is not ours',
  ),
  address_forbidden: row(
    403,
    'destination_ip_prohibited',
    'fix_configuration',
    'The host resolves to a forbidden address',
  ),

  request_malformed: row(400, 'http_request_error', 'fix_request', 'The request cannot be understood in one way only'),
  content_too_large: row(413, 'http_request_error', 'fix_request', 'The body is larger than the gateway takes whole'),
  method_refused: row(405, 'http_request_error', 'fix_request', 'The method is never forwarded'),
  target_mismatch: row(421, 'http_request_error', 'fix_request', 'Host, SNI and CONNECT target differ'),
  path_ambiguous: row(400, 'http_request_error', 'fix_request', 'The path could be read as two places'),
  upgrade_refused: row(426, 'http_request_denied', 'fix_request', 'The operation is not carried as a WebSocket'),
  route_unknown: row(404, 'http_request_error', 'fix_request', 'No reverse route of this name'),

  upstream_unresolved: row(502, 'dns_error', 'retry', 'The host name could not be resolved'),
  upstream_refused: row(502, 'connection_refused', 'retry', 'The upstream could not be reached'),
  upstream_proxy: row(
    502,
    'proxy_configuration_error',
    'fix_configuration',
    'The proxy on the way to the upstream refused',
  ),
  upstream_tls: row(502, 'tls_protocol_error', 'fix_configuration', 'The upstream did not prove its identity'),
  upstream_timeout: row(504, 'http_response_timeout', 'retry', 'The upstream did not answer in time'),
  upstream_broken: row(502, 'http_response_incomplete', 'retry', 'The upstream broke off or broke HTTP'),
  upstream_encoding: row(
    502,
    'http_response_content_coding',
    'retry',
    'The answer uses a coding that cannot be scrubbed',
  ),

  answer_withheld: row(
    502,
    'http_response_incomplete',
    'fix_configuration',
    'The credential in the answer cannot be held back',
  ),
  credential_unavailable: row(502, 'http_request_error', 'retry', 'No upstream credential could be obtained'),
  credential_rejected: row(502, 'http_request_error', 'fix_configuration', 'The issuer refused to give a credential'),
  credential_unconfigured: row(
    502,
    'proxy_configuration_error',
    'fix_configuration',
    'The service has no usable credential',
  ),
  reauthorize: row(403, 'http_request_denied', 'reauthorize', 'The human has to connect the service'),
  credential_too_wide: row(502, 'http_request_error', 'fix_configuration', 'The issuer granted more than was asked'),

  audit_unavailable: row(503, 'proxy_internal_error', 'retry', 'The call cannot be recorded, so it is not made'),
  store_unavailable: row(503, 'proxy_internal_error', 'retry', 'Shared state cannot be reached'),
  clock_set_back: row(503, 'proxy_internal_error', 'fix_configuration', 'The clock of the gateway was set back'),
  too_many_requests: row(503, 'proxy_internal_error', 'retry', 'Too many requests at once or in a short time'),
  draining: row(503, 'proxy_internal_error', 'retry', 'The gateway is shutting down'),
  gateway_unreachable: row(502, 'connection_refused', 'retry', 'The gateway does not answer'),
  internal: row(500, 'proxy_internal_error', 'retry', 'Unexpected error in the gateway'),

  instruction_invalid: row(400, 'http_request_error', 'fix_request', 'The instruction is not valid'),
  policy_rejected: row(409, 'http_request_error', 'fix_configuration', 'What was offered cannot be taken up'),
  agent_unknown: row(403, 'http_request_denied', 'fix_configuration', 'The agent is not registered'),
  task_unknown: row(404, 'http_request_error', 'fix_request', 'No such task'),
  delegation_refused: row(403, 'http_request_denied', 'ask_grantor', 'This grant cannot be delegated like that'),
  subject_invalid: row(400, 'http_request_denied', 'reauthorize', 'The subject token is not acceptable'),
  actor_invalid: row(400, 'http_request_denied', 'reauthorize', 'The actor token is not acceptable'),
  client_invalid: row(407, 'http_request_denied', 'reauthorize', 'The client did not prove who it is'),
  dpop_invalid: row(400, 'http_request_denied', 'fix_request', 'The DPoP proof is not acceptable'),
  dpop_nonce_required: row(400, 'http_request_denied', 'retry', 'The DPoP proof needs the nonce of this answer'),
  lineage_invalid: row(400, 'http_request_denied', 'fix_request', 'An attestation does not verify'),
  lineage_spliced: row(
    400,
    'http_request_denied',
    'fix_request',
    'An attestation was signed by someone else than the delegator',
  ),
  lineage_truncated: row(400, 'http_request_denied', 'fix_request', 'An attestation is missing from the chain'),
  lineage_reordered: row(
    400,
    'http_request_denied',
    'fix_request',
    'The attestations are not in the order in which they were made',
  ),
  lineage_duplicated: row(400, 'http_request_denied', 'fix_request', 'An attestation appears twice'),
  lineage_grafted: row(400, 'http_request_denied', 'fix_request', 'An attestation belongs to another task or grant'),
  lineage_reencoded: row(
    400,
    'http_request_denied',
    'fix_request',
    'An attestation is not in the bytes that were signed over',
  ),
  approval_unknown: row(404, 'http_request_error', 'fix_request', 'No such approval'),
  approver_refused: row(403, 'http_request_denied', 'ask_grantor', 'This human cannot decide on the approval'),
  approval_closed: row(409, 'http_request_error', 'fix_request', 'The approval is decided or over already'),
  break_glass_refused: row(403, 'http_request_denied', 'ask_grantor', 'Emergency access is not opened'),
  signal_invalid: row(400, 'http_request_denied', 'fix_request', 'The security event token is not acceptable'),
  stream_unknown: row(404, 'http_request_error', 'fix_request', 'No such stream of security events'),
  webhook_unknown: row(404, 'http_request_error', 'fix_request', 'No such webhook'),
  step_unknown: row(404, 'http_request_error', 'fix_request', 'No such step of the task'),
  invalid_details: row(400, 'http_request_denied', 'fix_request', 'The authorization details cannot be understood'),
  invalid_target: row(
    400,
    'http_request_denied',
    'fix_request',
    'The resource or audience asked for is not one of this gateway',
  ),
  grant_type_unsupported: row(400, 'http_request_error', 'fix_request', 'The grant type is not offered'),
  invalid_scope: row(400, 'http_request_denied', 'fix_request', 'The scope asked for cannot be granted'),
} satisfies Record<string, Row>

export type ProblemCode = keyof typeof problems

/**
 * An expected refusal. `detail` says what was asked, which rule said no, and what to do; it never holds a credential, a
 * token, a key or a query string. Anything else that is thrown is a bug and becomes `internal`.
 */
export class GatewayError extends Error {
  readonly code: ProblemCode
  /** Id of the grant that was presented and is refused, where it is known: for the record, never for the answer. */
  grant?: string
  /** Where in an answer that is not passed on a credential stood, and how often: for the record, never for the answer. */
  leaks?: Readonly<Partial<Record<'head' | 'body' | 'trailer' | 'frame', number>>>
  /** Milliseconds after which trying again is worth it, where that is known: `Retry-After` of the refusal. */
  retryAfterMs?: number | undefined
  /** Where in the request a credential stands that is not ours to send: for the record, which names no value either. */
  sightings?: readonly { readonly rule: string; readonly where: string }[]
  /** What the agent may do about it, for the answer. */
  advice?: Advice

  constructor(code: ProblemCode, detail: string, o?: ErrorOptions & Pick<GatewayError, 'retryAfterMs' | 'advice'>) {
    super(detail, o)
    this.name = 'GatewayError'
    this.code = code
    if (o?.retryAfterMs !== undefined) this.retryAfterMs = o.retryAfterMs
    if (o?.advice !== undefined) this.advice = o.advice
  }

  get detail(): string {
    return this.message
  }
}

/** Any thrown value as a coded refusal; the text of an unexpected one stays out of the answer. */
export function asGatewayError(cause: unknown): GatewayError {
  if (cause instanceof GatewayError) return cause
  return new GatewayError(
    'internal',
    'An unexpected error stopped this call. The operator finds it in the log under this id.',
    { cause },
  )
}
