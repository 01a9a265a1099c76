/** What a Vault or OpenBao server means by an answer that is no success. Its texts can repeat what was sent: none of them is kept. */
import { GatewayError, type ProblemCode } from '../../protocol/problem.ts'
import { type IssuerAnswer, isPassing, unavailable } from '../oauth/issuer-exchange.ts'

/** Statuses of nodes that cannot answer now (API, "HTTP status codes" and `sys/health`). */
const PASSING: Readonly<Record<number, string>> = {
  412: 'has not seen its own latest write yet (412)',
  429: 'is busy or a standby (429)',
  472: 'is the standby of another site (472)',
  473: 'is a performance standby (473)',
  474: 'is a standby that does not reach the active node (474)',
  501: 'is not initialized (501)',
  503: 'is sealed or under maintenance (503)',
}

/** What to change about a request that was understood and refused. */
export interface Advice {
  /** What was asked for: `the login by approle`. */
  readonly asked: string
  readonly 400: string
  readonly 403: string
  readonly 404: string
}

/** @param code of a refusal that trying again does not change. */
export function vaultFailure(
  issuer: string,
  answer: IssuerAnswer,
  advice: Advice,
  code: ProblemCode = 'credential_rejected',
): GatewayError {
  const { status, retryAfterMs } = answer
  const passing = PASSING[status]
  if (passing !== undefined) return unavailable(issuer, passing, retryAfterMs)
  // A standby that does not forward requests: following would send the token wherever the answer says.
  if (status >= 300 && status < 400)
    return unavailable(issuer, `sends callers elsewhere (${status}): name the active node, or a load balancer`)
  if (isPassing(status)) return unavailable(issuer, `answered ${status}`, retryAfterMs)
  if (status >= 200 && status < 300) return unavailable(issuer, 'answered something that is not its API')
  const known = status === 400 || status === 403 || status === 404 ? advice[status] : 'Check the address in settings.'
  return new GatewayError(code, `${issuer} refused ${advice.asked} (${status}). ${known}`)
}
