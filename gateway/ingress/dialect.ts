/**
 * Bodies of refusals in the shape that a service's own clients display (docs/clients.md). The members of the problem
 * document travel inside where the shape leaves room for them. Pure.
 */
import { type Advice, adviceWords } from '../protocol/advice.ts'
import type { ProblemCode, Remedy } from '../protocol/problem.ts'
import type { Dialect } from '../protocol/service.ts'

/** RFC 9457 members, with ours. */
export interface ProblemBody extends Advice {
  readonly type: string
  readonly title: string
  readonly status: number
  readonly detail: string
  readonly code: ProblemCode
  readonly remedy: Remedy
  readonly instance: string
}

export interface RenderedProblem {
  readonly status: number
  readonly contentType: string
  readonly text: string
  /** More fields of the head. */
  readonly headers?: readonly string[]
}

/** The refusal as the clients of `dialect` expect an error. Only Slack's clients need another status. */
export function renderProblem(problem: ProblemBody, dialect: Dialect): RenderedProblem {
  return SHAPES[dialect](problem)
}

const SHAPES: Readonly<Record<Dialect, (problem: ProblemBody) => RenderedProblem>> = {
  problem: (problem) => json(problem, problem, 'application/problem+json'),
  openai: (problem) =>
    json(problem, { error: { ...told(problem), ...inner(problem, 'permission_error'), param: null } }),
  anthropic: (problem) =>
    json(problem, { type: 'error', error: { ...told(problem), ...inner(problem, anthropicType(problem.status)) } }),
  google: (problem) => json(problem, { error: { ...told(problem), ...googleMembers(problem) } }),
  github: (problem) => json(problem, { ...told(problem), documentation_url: problem.type, ...problem }),
  stripe: (problem) =>
    json(problem, {
      error: {
        ...told(problem),
        ...inner(problem, problem.status < 500 ? 'invalid_request_error' : 'api_error'),
      },
    }),
  slack: (problem) => ({
    ...json(problem, {
      ok: false,
      error: problem.code,
      response_metadata: { messages: [`[ERROR] ${sentence(problem)}`] },
      ...problem,
    }),
    status: slackStatus(problem.status),
  }),
  /** REST-XML, S3 above all: the error is the root. */
  'aws-xml': (problem) => xml(problem, errorElement(problem)),
  /** The Query protocol (STS, IAM): the error is wrapped. */
  'aws-query': (problem) =>
    xml(problem, `<ErrorResponse>${errorElement(problem)}<RequestId>${problem.instance}</RequestId></ErrorResponse>`),
  /** The error's code stands in `__type`; SDKs take a member `code` for it as well, so ours does not appear. */
  'aws-json': ({ code, ...rest }) =>
    json(
      { ...rest, code },
      { __type: `${awsCode(rest.status)}Exception`, ...told({ ...rest, code }), keyless: { ...rest, code } },
      'application/x-amz-json-1.1',
    ),
  kubernetes: (problem) =>
    json(problem, {
      kind: 'Status',
      apiVersion: 'v1',
      metadata: {},
      status: 'Failure',
      ...told(problem),
      reason: KUBERNETES_REASONS[problem.status] ?? 'Unknown',
      details: { causes: [{ reason: problem.code, message: problem.detail }], uid: problem.instance },
      code: problem.status,
      keyless: problem,
    }),
  docker: (problem) =>
    json(problem, { errors: [{ code: dockerCode(problem.status), ...told(problem), detail: problem }] }),
  /** A string: npm prints `[object Object]` of anything else. */
  npm: (problem) => json(problem, { error: sentence(problem), ...problem }),
  /** JSON-RPC 2.0 §5.1. No id: the request may not have been read, and an id that does not match hangs some clients. */
  mcp: (problem) =>
    json(problem, { jsonrpc: '2.0', id: null, error: { code: -32001, ...told(problem), data: problem } }),
  /** git shows a body only when it is plain text. */
  git: (problem) => ({
    status: problem.status,
    contentType: 'text/plain; charset=utf-8',
    text: `${sentence(problem)}\n`,
  }),
}

function json({ status }: ProblemBody, body: object, contentType = 'application/json'): RenderedProblem {
  return { status, contentType, text: JSON.stringify(body) }
}

function xml({ status }: ProblemBody, root: string): RenderedProblem {
  return { status, contentType: 'application/xml', text: `<?xml version="1.0" encoding="UTF-8"?>\n${root}` }
}

/** One line that stands alone: what happened, what to do about it, and the word to look up. */
export function sentence(problem: ProblemBody): string {
  const { title, detail, code, instance } = problem
  const advice = adviceWords(problem)
  return `${title}: ${detail}${advice === '' ? '' : ` ${advice}`} (keyless ${code}, ${instance})`
}

function told(problem: ProblemBody): { readonly message: string } {
  return { message: sentence(problem) }
}

/** The problem as members of an `error` object; `type` there is the API's own word. */
function inner({ type: _, ...problem }: ProblemBody, type: string): object {
  return { type, ...problem }
}

function anthropicType(status: number): string {
  if (status === 401 || status === 407) return 'authentication_error'
  if (status === 404) return 'not_found_error'
  if (status >= 500) return 'api_error'
  return status === 403 ? 'permission_error' : 'invalid_request_error'
}

/** Slack's clients read `ok: false` only from a 200; challenges and our own failures keep their status. */
function slackStatus(status: number): number {
  return status === 401 || status === 407 || status >= 500 ? status : 200
}

/** AIP-193: `reason` and `metadata` are strings for programs. */
function googleMembers({ status, type: _, ...problem }: ProblemBody): object {
  const { code } = problem
  const metadata = Object.fromEntries(
    Object.entries(problem).map(([name, value]) => [name, typeof value === 'string' ? value : JSON.stringify(value)]),
  )
  const reason = { reason: code.toUpperCase(), domain: 'keyless', metadata }
  return {
    code: status,
    status: GOOGLE_STATUSES[status] ?? (status < 500 ? 'FAILED_PRECONDITION' : 'INTERNAL'),
    details: [{ '@type': 'type.googleapis.com/google.rpc.ErrorInfo', ...reason }],
  }
}

const GOOGLE_STATUSES: Readonly<Record<number, string>> = {
  400: 'INVALID_ARGUMENT',
  401: 'UNAUTHENTICATED',
  403: 'PERMISSION_DENIED',
  404: 'NOT_FOUND',
  407: 'UNAUTHENTICATED',
  502: 'UNAVAILABLE',
  503: 'UNAVAILABLE',
  504: 'DEADLINE_EXCEEDED',
}

const KUBERNETES_REASONS: Readonly<Record<number, string>> = {
  400: 'BadRequest',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'NotFound',
  405: 'MethodNotAllowed',
  500: 'InternalError',
  503: 'ServiceUnavailable',
  504: 'Timeout',
}

/** OCI distribution-spec, table of error codes. */
function dockerCode(status: number): string {
  if (status === 401 || status === 407) return 'UNAUTHORIZED'
  return status < 500 ? 'DENIED' : 'UNAVAILABLE'
}

function awsCode(status: number): string {
  if (status >= 500) return 'ServiceUnavailable'
  return status === 403 || status === 401 || status === 407 ? 'AccessDenied' : 'InvalidRequest'
}

function errorElement(problem: ProblemBody): string {
  const message = escaped(sentence(problem))
  return `<Error><Type>Sender</Type><Code>${awsCode(problem.status)}</Code><Message>${message}</Message><RequestId>${problem.instance}</RequestId></Error>`
}

/** XML 1.0 §2.2 has no other control characters, not even escaped, and a lone surrogate is none of its characters. */
function escaped(text: string): string {
  return text
    .toWellFormed()
    .replaceAll(/[^\t\n\r\u0020-\ufffd\u{10000}-\u{10ffff}]/gu, '\ufffd')
    .replaceAll(/[<>&"']/g, (one) => `&#${one.charCodeAt(0)};`)
}
