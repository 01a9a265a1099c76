/**
 * What stood behind a refusal, for the operator: names, codes and the place in our own source. Never a message: texts of
 * foreign errors quote what they choke on, and that can be a header with a credential in it.
 */
import { GatewayError } from '../../protocol/problem.ts'

const MAX_DEPTH = 5

/** `undefined` when nothing stood behind it. Example: `TypeError ERR_INVALID_CHAR at upstream/headers.ts:41:7`. */
export function traceCause(refusal: GatewayError): string | undefined {
  if (refusal.cause === undefined) return undefined
  const steps: string[] = []
  let cause: unknown = refusal.cause
  for (let depth = 0; cause instanceof Error && depth < MAX_DEPTH; depth++) {
    steps.push(describe(cause))
    cause = cause.cause
  }
  return steps.length > 0 ? steps.join(' < ') : typeof refusal.cause
}

function describe(error: Error): string {
  if (error instanceof GatewayError) return `GatewayError ${error.code}`
  const name = word(error.name) ?? 'Error'
  const code = 'code' in error ? word(String(error.code)) : undefined
  const frame = /\n\s+at [^\n]*\/gateway\/([\w./-]+\.ts:\d+:\d+)/.exec(error.stack?.slice(0, 10_000) ?? '')?.[1]
  return `${name}${code ? ` ${code}` : ''}${frame ? ` at ${frame}` : ''}`
}

/** Only what looks like a name: anything else could be a value. */
function word(text: string): string | undefined {
  return /^\w{1,64}$/.test(text) ? text : undefined
}

/** `ENOSPC`, or the error's name: messages hold paths. */
export function nameOf(cause: NodeJS.ErrnoException): string {
  return cause.code ?? cause.name
}

/** The refusal of whatever asked for a record that cannot be made. */
export function unavailable(cause: NodeJS.ErrnoException | undefined): GatewayError {
  const why = cause ? `The log cannot be written (${nameOf(cause)})` : 'The log is closed'
  return new GatewayError(
    'audit_unavailable',
    `${why}, so nothing was done. Calls go on as soon as it can be written again.`,
    { cause },
  )
}
