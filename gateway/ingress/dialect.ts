/**
 * Bodies of refusals in the shape that a service's own clients display (clients.md §3). The members of the problem
 * document travel inside where the shape leaves room for them. Pure.
 */
import type { ProblemCode, Remedy } from '../protocol/problem.ts'
import type { Dialect } from '../protocol/service.ts'

/** RFC 9457 members, with ours. */
export interface ProblemBody {
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
}

const JSON_TYPE = 'application/json'

/** The refusal as the clients of `dialect` expect an error. Only Slack's clients need another status. */
export function renderProblem(problem: ProblemBody, dialect: Dialect): RenderedProblem {
  const { status } = problem
  switch (dialect) {
    case 'problem':
      return { status, contentType: 'application/problem+json', text: JSON.stringify(problem) }
    case 'openai':
      return json(status, { error: { message: sentence(problem), ...inner(problem, 'permission_error'), param: null } })
    case 'anthropic':
      return json(status, {
        type: 'error',
        error: { message: sentence(problem), ...inner(problem, anthropicType(status)) },
      })
    case 'github':
      return json(status, { message: sentence(problem), documentation_url: problem.type, ...problem })
    case 'stripe':
      return json(status, {
        error: { message: sentence(problem), ...inner(problem, status < 500 ? 'invalid_request_error' : 'api_error') },
      })
    case 'slack':
      return json(slackStatus(status), {
        ok: false,
        error: problem.code,
        response_metadata: { messages: [`[ERROR] ${sentence(problem)}`] },
        ...problem,
      })
    case 'git':
      return { status, contentType: 'text/plain; charset=utf-8', text: `${sentence(problem)}\n` }
    default:
      return dialect satisfies never
  }
}

function json(status: number, body: object): RenderedProblem {
  return { status, contentType: JSON_TYPE, text: JSON.stringify(body) }
}

/** One line that stands alone: what happened, and the word to look up. */
function sentence({ title, detail, code, instance }: ProblemBody): string {
  return `${title}: ${detail} (keyless ${code}, ${instance})`
}

/** The problem as members of an `error` object; `type` there is the API's own word. */
function inner({ title, status, detail, code, remedy, instance }: ProblemBody, type: string): object {
  return { type, code, title, status, detail, remedy, instance }
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
