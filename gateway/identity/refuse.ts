/** How a refusal of this room is worded: what was presented, why not, never the token itself. */
import { GatewayError, type ProblemCode } from '../protocol/problem.ts'

/** @param why a clause that follows "it is refused:", without full stop. */
export type Refuse = (why: string, cause?: unknown) => GatewayError

export function refusing(code: ProblemCode, what: string): Refuse {
  return (why, cause) => new GatewayError(code, `${what} is refused: ${why}.`, { cause })
}

const SHOWN = 80

/** A value out of a token as it may be shown: quoted, short, on one line. */
export function shown(value: unknown): string {
  const quoted = JSON.stringify(value) ?? 'nothing'
  return quoted.length > SHOWN ? `${quoted.slice(0, SHOWN)}…` : quoted
}
