/**
 * Bodies of the OAuth endpoints: `application/x-www-form-urlencoded`, read in one way only. What a lenient reader would mend
 * (a broken escape, a parameter given twice) is refused, because another reader could mend it differently.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { asGatewayError, GatewayError } from '../../protocol/problem.ts'

/** Parameter → value; those of `REPEATABLE` → every value in order. Empty values are left out (RFC 6749 §3.2). No prototype. */
export type Form = Readonly<Record<string, string | readonly string[] | undefined>>

/** RFC 8693 §2.1 and RFC 8707 §2; everything else "MUST NOT be included more than once" (RFC 6749 §3.2). */
const REPEATABLE: ReadonlySet<string> = new Set(['resource', 'audience'])

const MAX_PARAMETERS = 64

type Refused = (request: FastifyRequest, refusal: GatewayError) => Promise<GatewayError>

/** Forms alone, in this context of the door: what is sent as anything else is not guessed at. @param refused asked what to answer. */
export function takeForms(app: FastifyInstance, refused: Refused): void {
  app.removeAllContentTypeParsers()
  app.addContentTypeParser(
    'application/x-www-form-urlencoded',
    { parseAs: 'buffer' },
    async (request: FastifyRequest, body: Buffer) => {
      try {
        return parseForm(body)
      } catch (cause) {
        throw await refused(request, asGatewayError(cause))
      }
    },
  )
}

/** @throws {GatewayError} `instruction_invalid` saying which parameter, never its value. */
export function parseForm(body: Buffer): Form {
  const text = body.toString('latin1')
  if (!/^[\x20-\x7e]*$/.test(text))
    throw invalid('The body has bytes that a form cannot hold. Percent-encode everything outside printable ASCII.')
  const pairs = text.split('&').filter((pair) => pair !== '')
  if (pairs.length > MAX_PARAMETERS)
    throw invalid(`The form has ${pairs.length} parameters; at most ${MAX_PARAMETERS} are read.`)
  const form: Record<string, string | string[]> = Object.create(null)
  const seen = new Set<string>()
  for (const pair of pairs) {
    const at = pair.indexOf('=')
    const name = decode(at === -1 ? pair : pair.slice(0, at), 'a name')
    const value = at === -1 ? '' : decode(pair.slice(at + 1), quoted(name))
    const isRepeatable = REPEATABLE.has(name)
    if (seen.has(name) && !isRepeatable) throw invalid(`The parameter ${quoted(name)} is given twice. Send it once.`)
    seen.add(name)
    if (value === '') continue
    if (isRepeatable) form[name] = [...(form[name] ?? []), value]
    else form[name] = value
  }
  return form
}

function decode(part: string, what: string): string {
  try {
    return decodeURIComponent(part.replaceAll('+', ' '))
  } catch (cause) {
    throw invalid(`The percent-encoding of ${what} is broken or not UTF-8.`, cause)
  }
}

function quoted(name: string): string {
  return JSON.stringify(name.slice(0, 60))
}

function invalid(detail: string, cause?: unknown): GatewayError {
  return new GatewayError('instruction_invalid', detail, { cause })
}
