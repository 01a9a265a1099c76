/**
 * For which region and service a request may be signed. What the agent claims is held against the slot of the service, the host and
 * the settings: a signature for another service or region would be good for calls that nobody decided on. Pure.
 */
import { AWS4, AWS4A, type AwsScope } from '../../protocol/aws-claim.ts'
import type { Outbound } from '../../protocol/message.ts'
import { GatewayError } from '../../protocol/problem.ts'

export interface ScopeTerms {
  /** Region where a host names none. */
  readonly region: string
  /** Every region that may be signed for; absent: the one that the host names, else `region` and, at AWS, `us-east-1`. */
  readonly regions: readonly string[] | undefined
}

const AWS_HOST = /\.(?:amazonaws\.com(?:\.cn)?|amazonaws\.eu|api\.aws)$/
const REGION = /^[a-z]{2,4}(?:-[a-z]+)+-\d{1,2}$/
/** Where global endpoints of AWS are signed for. */
const GLOBAL = 'us-east-1'

/** @throws {GatewayError} `target_mismatch` */
export function requireScope(
  { service, host, signed }: Pick<Outbound, 'service' | 'host' | 'signed'>,
  terms: ScopeTerms,
): AwsScope {
  const names = service.slots.flatMap((slot) =>
    slot.in === 'signature' && slot.scheme === 'aws4' ? (slot.services ?? []) : [],
  )
  const isAws = AWS_HOST.test(host)
  const here = isAws ? host.split('.').findLast((label) => REGION.test(label)) : undefined
  const scope = signed?.scope ?? {
    algorithm: AWS4,
    region: here ?? (isAws ? GLOBAL : terms.region),
    service: names[0] ?? '',
  }
  if (!names.includes(scope.service))
    throw mismatch(
      `it is signed for the service "${scope.service}", and ${service.name} is signed for ${names.join(' or ')}`,
    )
  const allowed = terms.regions ?? (here ? [here] : isAws ? [terms.region, GLOBAL] : [terms.region])
  for (const region of scope.algorithm === AWS4A ? scope.region.split(',') : [scope.region]) {
    if (here !== undefined && region !== here)
      throw mismatch(`it is signed for the region "${region}", and ${host} is in ${here}`)
    if (!allowed.includes(region))
      throw mismatch(
        `it is signed for the region "${region}", and allowed here is ${allowed.join(', ')}: set the region of the client, or add it to regions of credential ${service.credential}`,
      )
  }
  return scope
}

function mismatch(what: string): GatewayError {
  return new GatewayError('target_mismatch', `The AWS signature of the request does not fit its place: ${what}.`)
}
