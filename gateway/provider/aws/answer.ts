/**
 * Answers of STS, which are XML. What is needed of them are a few elements of narrow content, so they are found by name, each
 * exactly once, and nothing else of the text is read: there is no document to parse and no entity to expand.
 */
import { GatewayError } from '../../protocol/problem.ts'
import { Secret } from '../../protocol/secret.ts'

export interface Session {
  readonly accessKeyId: Secret
  readonly secretAccessKey: Secret
  readonly sessionToken: Secret
  /** Epoch seconds. */
  readonly expiresAt: number
}

/** Code → what the operator has to change; undefined: nothing, it passes. */
const CODES: ReadonlyMap<string, string | undefined> = new Map([
  [
    'AccessDenied',
    'Allow the source sts:AssumeRole (and sts:TagSession, sts:SetSourceIdentity) in the trust policy of the role and in its own policies; check external_id; or set lineage_tags or source_identity to false.',
  ],
  ['InvalidClientTokenId', 'The source access key does not exist there: check access_key_id and sts_url.'],
  ['SignatureDoesNotMatch', 'Check secret_access_key, and the clock of the gateway.'],
  ['ExpiredToken', 'The source credential has expired: renew what source names.'],
  ['ExpiredTokenException', 'The source token has expired: renew what source names.'],
  [
    'InvalidIdentityToken',
    'Register the issuer of the token as identity provider in IAM, with its audience, so that AWS can fetch its keys.',
  ],
  ['IDPRejectedClaim', 'Check the audience, and the conditions on the token in the trust policy of the role.'],
  ['MalformedPolicyDocument', 'AWS does not take the session policy: check `iam` in the service file.'],
  [
    'PackedPolicyTooLarge',
    'Session policy and tags are too large together: let the grant name fewer places, set session_policy: operations, or lineage_tags: false.',
  ],
  ['RegionDisabledException', 'Activate STS in this region, or name another region.'],
  ['ValidationError', 'Check role_arn, duration_s (at most what the role allows), external_id and tags.'],
  ['OptInRequired', 'The account has not opted in to this region.'],
  ['MissingAuthenticationToken', 'Check sts_url: what answers there is not STS.'],
  ['IncompleteSignature', 'Check sts_url: what answers there is not STS.'],
  ['NoSuchEntity', 'The role does not exist: check role_arn.'],
  ['RequestExpired', undefined],
  ['RequestTimeTooSkewed', undefined],
  ['IDPCommunicationError', undefined],
  ['Throttling', undefined],
  ['ThrottlingException', undefined],
  ['ServiceUnavailable', undefined],
  ['InternalFailure', undefined],
])

/** @param host how messages call the endpoint. @throws {GatewayError} `credential_rejected` */
export function readSession(text: string, host: string): Session {
  const expiration = element(text, 'Expiration', /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z$/)
  const accessKeyId = element(text, 'AccessKeyId', /^\w{16,128}$/)
  const secretAccessKey = element(text, 'SecretAccessKey', /^[A-Za-z0-9/+=]{16,256}$/)
  const sessionToken = element(text, 'SessionToken', /^[A-Za-z0-9/+=_.-]{16,8192}$/)
  if (!expiration || !accessKeyId || !secretAccessKey || !sessionToken)
    throw new GatewayError('credential_rejected', `The answer of STS at ${host} holds no credentials. Check sts_url.`)
  return {
    accessKeyId: new Secret(accessKeyId),
    secretAccessKey: new Secret(secretAccessKey),
    sessionToken: new Secret(sessionToken),
    expiresAt: Math.floor(Date.parse(expiration) / 1000),
  }
}

/** An answer that is none, as a refusal. Only codes of the table are repeated. */
export function stsFailure(status: number, text: string, host: string): GatewayError {
  const code = element(text, 'Code', /^[A-Za-z]{1,64}$/) ?? ''
  const advice = CODES.get(code)
  if (CODES.has(code) && advice === undefined)
    return new GatewayError('credential_unavailable', `STS at ${host} answered ${code}.`)
  if (status >= 500 || status === 429)
    return new GatewayError('credential_unavailable', `STS at ${host} answered ${status}.`)
  if (advice !== undefined) return new GatewayError('credential_rejected', `STS at ${host} refused: ${code}. ${advice}`)
  return new GatewayError(
    'credential_rejected',
    `STS at ${host} refused with status ${status} and a code that is not known here. Check sts_url and role_arn.`,
  )
}

/** Content of the only element of this name; undefined if there is none, more than one, or other content than is allowed. */
function element(text: string, name: string, allowed: RegExp): string | undefined {
  const found = [...text.matchAll(new RegExp(`<${name}>([^<>&]{0,8192})</${name}>`, 'g'))]
  const content = found.length === 1 ? found[0]?.[1]?.trim() : undefined
  return content !== undefined && allowed.test(content) ? content : undefined
}
