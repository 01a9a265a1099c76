/**
 * What Entra says when it gives no token. Its OAuth codes are few and wide, so the numbers of its own (`error_codes`, AADSTS…) are
 * looked up too: only as advice, because Microsoft may change them. learn.microsoft.com: "Microsoft Entra authentication and
 * authorization error codes".
 */
import { GatewayError } from '../../protocol/problem.ts'
import { type IssuerAnswer, unavailable } from '../oauth/issuer-exchange.ts'

/** Number → what the operator has to change. */
const ADVICE: Readonly<Record<number, string>> = {
  50013: 'The assertion is not valid: check certificate and clock.',
  50027: 'The assertion is not a valid JWT: check certificate and tenant.',
  53003: 'A conditional access policy blocks the application: allow this gateway there.',
  65001: 'An administrator has not consented to what the application asks for.',
  70001: 'The application is disabled or not in this tenant.',
  70002: 'The client secret is wrong: give its value, not its id.',
  70011: 'Scope is not one resource with /.default.',
  70021:
    'No federated identity credential of the application matches the assertions: compare issuer, subject and audience.',
  90002: 'There is no such tenant: correct tenant or cloud.',
  90038: 'The tenant belongs to another national cloud: correct cloud.',
  500011: 'The resource in scope is unknown in this tenant: correct scope, or have an administrator consent to it.',
  700016: 'There is no such application in this tenant: correct client_id or tenant.',
  700024: 'The assertion is not valid at this time: check the clock.',
  700025: 'The application is a public client: make it confidential, so that it may prove who it is.',
  700027: 'The certificate is not registered with the application, or signs with another key: upload it.',
  700211:
    'No federated identity credential of the application names the issuer of the assertions: add one with the URL that this gateway publishes them at.',
  700212: 'No federated identity credential of the application names this audience: correct federation.audience.',
  700213:
    'No federated identity credential of the application names this subject: correct federation.subject. It has upper and lower case.',
  700222: 'Federated identity credentials do not take tokens of Entra itself.',
  650057: 'The resource in scope is not among the permissions of the application: add it there.',
  1002012: 'Scope is not one resource with /.default.',
  7000112: 'The application is disabled.',
  7000215: 'The client secret is wrong: give its value, not its id.',
  7000222: 'The client secret or certificate has expired: make a new one.',
  7002138:
    'The subject differs from that of the federated identity credential in upper and lower case: correct federation.subject.',
  7000229: 'The application has no service principal in this tenant: have an administrator consent to it.',
}

/** For the moment only: worth another try. */
const PASSING: ReadonlySet<number> = new Set([90006, 90024, 90033, 90090])

/** OAuth codes that Entra uses (RFC 6749 §5.2), where no number says more. */
const CODES: ReadonlySet<unknown> = new Set([
  'invalid_request',
  'invalid_client',
  'invalid_grant',
  'invalid_scope',
  'invalid_resource',
  'unauthorized_client',
  'unsupported_grant_type',
])

/** Known numbers and codes, and nothing else of the answer: its description repeats what was sent. */
export function azureRefusal(issuer: string, { status, json, retryAfterMs }: IssuerAnswer): GatewayError {
  if (json?.error === 'temporarily_unavailable') return unavailable(issuer, 'is not available', retryAfterMs)
  const numbers = numbersOf(json?.error_codes)
  const passing = numbers.find((one) => PASSING.has(one))
  if (passing !== undefined) return unavailable(issuer, `answered AADSTS${passing}`, retryAfterMs)
  const number = numbers.find((one) => Object.hasOwn(ADVICE, one))
  const code = CODES.has(json?.error) ? ` (${json?.error})` : ''
  const why =
    number === undefined ? 'Check tenant, client_id, scope and the proof.' : `AADSTS${number}. ${ADVICE[number]}`
  return new GatewayError('credential_rejected', `${issuer} gave no token: it answered ${status}${code}. ${why}`)
}

function numbersOf(value: unknown): readonly number[] {
  return Array.isArray(value) ? value.filter((one): one is number => Number.isSafeInteger(one)) : []
}
