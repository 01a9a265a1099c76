/** What Google says when it gives no token: codes of OAuth from its token endpoints, states of google.rpc from the others. */
import { GatewayError } from '../../protocol/problem.ts'
import type { IssuerAnswer } from '../oauth/issuer-exchange.ts'

const ADVICE: Readonly<Record<string, string>> = {
  invalid_grant:
    'Check that the key was not deleted or disabled, that the pool trusts the issuer of the assertions, and the clock.',
  invalid_client: 'Check the key and its service account.',
  unauthorized_client: 'Allow the service account domain-wide delegation with exactly this scope.',
  invalid_scope: 'Correct scope.',
  invalid_target: 'Correct federation.provider.',
  invalid_request: 'Check scope, federation and storage.',
  access_denied: 'Allow it at Google.',
  PERMISSION_DENIED:
    'Give the caller roles/iam.serviceAccountTokenCreator on the account that impersonate names; that takes some minutes.',
  UNAUTHENTICATED: 'Check the key and its service account.',
  NOT_FOUND: 'Correct impersonate.',
  INVALID_ARGUMENT: 'Check scope, delegates and impersonate.',
  FAILED_PRECONDITION: 'Enable the IAM Service Account Credentials API, and check that the accounts are not disabled.',
}

/** `credential_rejected`, with a known code and nothing else of the answer. */
export function googleRefusal(issuer: string, { status, json }: IssuerAnswer): GatewayError {
  const error = json?.error
  const code = typeof error === 'object' && error !== null ? (error as { status?: unknown }).status : error
  const advice = typeof code === 'string' && Object.hasOwn(ADVICE, code) ? `${code}. ${ADVICE[code]}` : undefined
  return new GatewayError(
    'credential_rejected',
    `${issuer} gave no token: ${advice ?? `it answered ${status} with a code that is not known here. Check the settings of this credential.`}`,
  )
}
