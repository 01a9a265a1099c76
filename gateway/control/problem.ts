/** Refusals of the control door as `application/problem+json` (RFC 9457). The only place that writes one here. */
import type { FastifyError, FastifyReply, FastifyRequest, FastifySchemaValidationError } from 'fastify'
import { asGatewayError, GatewayError, problems } from '../protocol/problem.ts'

export function writeProblem(request: FastifyRequest, reply: FastifyReply, refusal: GatewayError): void {
  const { status: told, title, remedy } = problems[refusal.code]
  const status = told === 407 ? 401 : told // nobody stands in between here: what is missing is missing at this door
  if (status === 401) void reply.header('www-authenticate', 'Bearer, DPoP') // RFC 9110 §15.5.2
  if (refusal.retryAfterMs !== undefined)
    void reply.header('retry-after', String(Math.ceil(refusal.retryAfterMs / 1000)))
  void reply
    .status(status)
    .header('keyless-error', refusal.code)
    .header('cache-control', 'no-store')
    .type('application/problem+json')
    .serializer((body: unknown) => JSON.stringify(body)) // a route's own schema must not cut it down
    .send({
      type: `urn:keyless:error:${refusal.code}`,
      title,
      status,
      detail: refusal.detail,
      code: refusal.code,
      remedy,
      instance: request.id,
      ...refusal.advice,
    })
}

const JSON_BODIES = 'Bodies are JSON of at most 64 KiB, sent as application/json.'

/** Whatever was thrown on the way, by the framework or by us, as a coded refusal. @param bodies what a body here has to be. */
export function refusalOf(error: FastifyError | Error, bodies = JSON_BODIES): GatewayError {
  if (error instanceof GatewayError) return error
  const known = error as FastifyError
  if (known.validation !== undefined) {
    const where = known.validationContext === 'body' ? '' : `${known.validationContext ?? ''} `
    return new GatewayError('instruction_invalid', known.validation.map((fault) => where + explain(fault)).join(' '), {
      cause: error,
    })
  }
  if (known.statusCode !== undefined && known.statusCode >= 400 && known.statusCode < 500) {
    return new GatewayError('instruction_invalid', `${known.message}. ${bodies}`, { cause: error })
  }
  return asGatewayError(error)
}

interface Fault extends FastifySchemaValidationError {
  /** With Ajv's `verbose`. */
  readonly data?: unknown
  readonly parentSchema?: {
    readonly description?: string
    readonly properties?: Record<string, { readonly description?: string }>
  }
}

/** Field, got, allowed. Values are not repeated: a purpose or a scope may hold what does not belong into an error. */
function explain(found: FastifySchemaValidationError): string {
  const fault = found as Fault
  const field = fault.instancePath.slice(1).replaceAll('/', '.')
  const properties = fault.parentSchema?.properties ?? {}
  if (fault.keyword === 'required') {
    const missing = String(fault.params.missingProperty)
    return `${missing}: got nothing, needed is ${properties[missing]?.description ?? 'a value'}.`
  }
  if (fault.keyword === 'additionalProperties') {
    const extra = String(fault.params.additionalProperty).slice(0, 60)
    return `${JSON.stringify(extra)}: got a member that is not known, allowed are ${Object.keys(properties).join(', ')}.`
  }
  return `${field === '' ? 'the body' : field}: got ${kindOf(fault.data)}, allowed is ${fault.parentSchema?.description ?? fault.message ?? 'another value'}.`
}

function kindOf(value: unknown): string {
  if (value === undefined) return 'nothing'
  if (value === null || typeof value === 'boolean' || typeof value === 'number') return String(value)
  if (typeof value === 'string') return value === '' ? 'an empty string' : `a string of ${value.length} characters`
  return Array.isArray(value) ? 'an array' : 'an object'
}
