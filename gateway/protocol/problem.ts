/**
 * The error table: one row is the whole truth about a refusal. Codes are never renamed; `test/protocol/problem.test.ts`
 * keeps this table, `docs/errors.md` and the types equal.
 */

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

/**
 * Rows with status 407 are about the agent's own credentials: 407 on the proxy connection itself, 401 in reverse mode, and
 * 403 inside a tunnel, where 401 starts login flows and 407 is a network error to most clients (clients.md §0.2).
 */
export const problems = {
  grant_missing: {
    status: 407,
    proxyError: 'http_request_denied',
    title: 'No grant was presented',
    remedy: 'renew_grant',
  },
  grant_invalid: {
    status: 407,
    proxyError: 'http_request_denied',
    title: 'The grant is not valid here',
    remedy: 'renew_grant',
  },
  grant_expired: {
    status: 407,
    proxyError: 'http_request_denied',
    title: 'The grant has expired',
    remedy: 'renew_grant',
  },
  grant_revoked: {
    status: 407,
    proxyError: 'http_request_denied',
    title: 'The grant was revoked or its task has ended',
    remedy: 'renew_grant',
  },

  policy_denied: {
    status: 403,
    proxyError: 'http_request_denied',
    title: 'Policy does not allow this call',
    remedy: 'ask_grantor',
  },
  scope_exceeded: {
    status: 403,
    proxyError: 'http_request_denied',
    title: 'The grant does not cover this operation',
    remedy: 'ask_grantor',
  },
  use_spent: {
    status: 403,
    proxyError: 'http_request_denied',
    title: 'This single-use operation was already used',
    remedy: 'ask_grantor',
  },
  constraint_unmet: {
    status: 403,
    proxyError: 'http_request_denied',
    title: 'A constraint of the grant is not met',
    remedy: 'ask_grantor',
  },
  limit_exceeded: {
    status: 403,
    proxyError: 'http_request_denied',
    title: 'A budget of the grant or of one above it is used up',
    remedy: 'ask_grantor',
  },
  approval_required: {
    status: 403,
    proxyError: 'http_request_denied',
    title: 'Somebody has to approve this call first',
    remedy: 'request_approval',
  },
  task_suspended: {
    status: 403,
    proxyError: 'http_request_denied',
    title: 'The task is suspended',
    remedy: 'renew_grant',
  },
  host_unmanaged: {
    status: 403,
    proxyError: 'http_request_denied',
    title: 'No service covers this host',
    remedy: 'fix_configuration',
  },
  address_forbidden: {
    status: 403,
    proxyError: 'destination_ip_prohibited',
    title: 'The host resolves to a forbidden address',
    remedy: 'fix_configuration',
  },

  request_malformed: {
    status: 400,
    proxyError: 'http_request_error',
    title: 'The request cannot be understood in one way only',
    remedy: 'fix_request',
  },
  method_refused: {
    status: 405,
    proxyError: 'http_request_error',
    title: 'The method is never forwarded',
    remedy: 'fix_request',
  },
  target_mismatch: {
    status: 421,
    proxyError: 'http_request_error',
    title: 'Host, SNI and CONNECT target differ',
    remedy: 'fix_request',
  },
  path_ambiguous: {
    status: 400,
    proxyError: 'http_request_error',
    title: 'The path could be read as two places',
    remedy: 'fix_request',
  },
  upgrade_refused: {
    status: 403,
    proxyError: 'http_request_denied',
    title: 'Upgraded connections are not carried',
    remedy: 'fix_request',
  },
  route_unknown: {
    status: 404,
    proxyError: 'http_request_error',
    title: 'No reverse route of this name',
    remedy: 'fix_request',
  },

  upstream_unresolved: {
    status: 502,
    proxyError: 'dns_error',
    title: 'The host name could not be resolved',
    remedy: 'retry',
  },
  upstream_refused: {
    status: 502,
    proxyError: 'connection_refused',
    title: 'The upstream could not be reached',
    remedy: 'retry',
  },
  upstream_tls: {
    status: 502,
    proxyError: 'tls_protocol_error',
    title: 'The upstream did not prove its identity',
    remedy: 'fix_configuration',
  },
  upstream_timeout: {
    status: 504,
    proxyError: 'http_response_timeout',
    title: 'The upstream did not answer in time',
    remedy: 'retry',
  },
  upstream_broken: {
    status: 502,
    proxyError: 'http_response_incomplete',
    title: 'The upstream broke off or broke HTTP',
    remedy: 'retry',
  },
  upstream_encoding: {
    status: 502,
    proxyError: 'http_response_content_coding',
    title: 'The answer uses a coding that cannot be scrubbed',
    remedy: 'retry',
  },

  credential_unavailable: {
    status: 502,
    proxyError: 'http_request_error',
    title: 'No upstream credential could be obtained',
    remedy: 'retry',
  },
  credential_rejected: {
    status: 502,
    proxyError: 'http_request_error',
    title: 'The issuer refused to give a credential',
    remedy: 'fix_configuration',
  },
  credential_unconfigured: {
    status: 502,
    proxyError: 'proxy_configuration_error',
    title: 'The service has no usable credential',
    remedy: 'fix_configuration',
  },
  credential_too_wide: {
    status: 502,
    proxyError: 'http_request_error',
    title: 'The issuer granted more than was asked',
    remedy: 'fix_configuration',
  },

  audit_unavailable: {
    status: 503,
    proxyError: 'proxy_internal_error',
    title: 'The call cannot be recorded, so it is not made',
    remedy: 'retry',
  },
  store_unavailable: {
    status: 503,
    proxyError: 'proxy_internal_error',
    title: 'Shared state cannot be reached',
    remedy: 'retry',
  },
  too_many_requests: {
    status: 503,
    proxyError: 'proxy_internal_error',
    title: 'Too many requests at once or in a short time',
    remedy: 'retry',
  },
  draining: { status: 503, proxyError: 'proxy_internal_error', title: 'The gateway is shutting down', remedy: 'retry' },
  gateway_unreachable: {
    status: 502,
    proxyError: 'connection_refused',
    title: 'The gateway does not answer',
    remedy: 'retry',
  },
  internal: {
    status: 500,
    proxyError: 'proxy_internal_error',
    title: 'Unexpected error in the gateway',
    remedy: 'retry',
  },

  instruction_invalid: {
    status: 400,
    proxyError: 'http_request_error',
    title: 'The instruction is not valid',
    remedy: 'fix_request',
  },
  agent_unknown: {
    status: 403,
    proxyError: 'http_request_denied',
    title: 'The agent is not registered',
    remedy: 'fix_configuration',
  },
  task_unknown: { status: 404, proxyError: 'http_request_error', title: 'No such task', remedy: 'fix_request' },
  delegation_refused: {
    status: 403,
    proxyError: 'http_request_denied',
    title: 'This grant cannot be delegated like that',
    remedy: 'ask_grantor',
  },
  subject_invalid: {
    status: 400,
    proxyError: 'http_request_denied',
    title: 'The subject token is not acceptable',
    remedy: 'reauthorize',
  },
  actor_invalid: {
    status: 400,
    proxyError: 'http_request_denied',
    title: 'The actor token is not acceptable',
    remedy: 'reauthorize',
  },
  client_invalid: {
    status: 401,
    proxyError: 'http_request_denied',
    title: 'The client did not prove who it is',
    remedy: 'reauthorize',
  },
  dpop_invalid: {
    status: 400,
    proxyError: 'http_request_denied',
    title: 'The DPoP proof is not acceptable',
    remedy: 'fix_request',
  },
  dpop_nonce_required: {
    status: 400,
    proxyError: 'http_request_denied',
    title: 'The DPoP proof needs the nonce of this answer',
    remedy: 'retry',
  },
  lineage_invalid: {
    status: 400,
    proxyError: 'http_request_denied',
    title: 'An attestation does not verify',
    remedy: 'fix_request',
  },
  lineage_spliced: {
    status: 400,
    proxyError: 'http_request_denied',
    title: 'An attestation was signed by someone else than the delegator',
    remedy: 'fix_request',
  },
  lineage_truncated: {
    status: 400,
    proxyError: 'http_request_denied',
    title: 'An attestation is missing from the chain',
    remedy: 'fix_request',
  },
  lineage_reordered: {
    status: 400,
    proxyError: 'http_request_denied',
    title: 'The attestations are not in the order in which they were made',
    remedy: 'fix_request',
  },
  lineage_duplicated: {
    status: 400,
    proxyError: 'http_request_denied',
    title: 'An attestation appears twice',
    remedy: 'fix_request',
  },
  lineage_grafted: {
    status: 400,
    proxyError: 'http_request_denied',
    title: 'An attestation belongs to another task or grant',
    remedy: 'fix_request',
  },
  lineage_reencoded: {
    status: 400,
    proxyError: 'http_request_denied',
    title: 'An attestation is not in the bytes that were signed over',
    remedy: 'fix_request',
  },
  step_unknown: {
    status: 404,
    proxyError: 'http_request_error',
    title: 'No such step of the task',
    remedy: 'fix_request',
  },
  invalid_details: {
    status: 400,
    proxyError: 'http_request_denied',
    title: 'The authorization details cannot be understood',
    remedy: 'fix_request',
  },
  invalid_target: {
    status: 400,
    proxyError: 'http_request_denied',
    title: 'The resource or audience asked for is not one of this gateway',
    remedy: 'fix_request',
  },
  grant_type_unsupported: {
    status: 400,
    proxyError: 'http_request_error',
    title: 'The grant type is not offered',
    remedy: 'fix_request',
  },
  invalid_scope: {
    status: 400,
    proxyError: 'http_request_denied',
    title: 'The scope asked for cannot be granted',
    remedy: 'fix_request',
  },
} as const satisfies Record<string, Row>

export type ProblemCode = keyof typeof problems

/**
 * An expected refusal. `detail` says what was asked, which rule said no, and what to do; it never holds a credential, a
 * token, a key or a query string. Anything else that is thrown is a bug and becomes `internal`.
 */
export class GatewayError extends Error {
  readonly code: ProblemCode

  constructor(code: ProblemCode, detail: string, options?: ErrorOptions) {
    super(detail, options)
    this.name = 'GatewayError'
    this.code = code
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
