/** Authorization server metadata (RFC 8414), built from settings once: what a client needs to know before it asks. */
import { SIGNATURES } from '../../identity/trust.ts'
import { DPOP_ALGORITHMS, type TokenType } from '../../protocol/identity.ts'
import { ASSERTION_TYPES, AUTH_METHODS } from './client.ts'
import { GRANT_TYPES, TOKEN_TYPES } from './request.ts'
import { tokenForm } from './shapes.ts'

export const WELL_KNOWN = '/.well-known/oauth-authorization-server'

/** RFC 8414 §3.1: the path of the issuer comes after the well-known part. `''` for an issuer without a path. */
export function issuerPath(issuer: string): string {
  return new URL(issuer).pathname.replace(/\/$/, '')
}

/** @param issuer the setting `public_url`, repeated exactly. @param o.hasTls clients can show a certificate to this door. */
export function metadataOf(issuer: string, o: { readonly hasTls: boolean; readonly takesChains: boolean }): object {
  const methods = o.hasTls ? [...AUTH_METHODS.byAssertion, ...AUTH_METHODS.byCertificate] : AUTH_METHODS.byAssertion
  return {
    issuer,
    token_endpoint: `${issuer}/oauth/token`,
    revocation_endpoint: `${issuer}/oauth/revoke`,
    introspection_endpoint: `${issuer}/oauth/introspect`,
    jwks_uri: `${issuer}/.well-known/jwks.json`,
    grant_types_supported: Object.keys(GRANT_TYPES),
    response_types_supported: [], // required by RFC 8414 §2, and there is no authorization endpoint
    token_endpoint_auth_methods_supported: methods,
    token_endpoint_auth_signing_alg_values_supported: SIGNATURES,
    revocation_endpoint_auth_methods_supported: methods,
    revocation_endpoint_auth_signing_alg_values_supported: SIGNATURES,
    introspection_endpoint_auth_methods_supported: [...methods, 'Bearer', 'DPoP'],
    introspection_endpoint_auth_signing_alg_values_supported: SIGNATURES,
    dpop_signing_alg_values_supported: DPOP_ALGORITHMS,
    tls_client_certificate_bound_access_tokens: o.hasTls, // RFC 8705 §3.3
    authorization_details_types_supported: ['keyless_access'],
    // Not registered, but a client cannot guess them.
    client_assertion_types_supported: Object.keys(ASSERTION_TYPES),
    subject_token_types_supported: namesOf([
      'access_token',
      'id_token',
      'jwt',
      ...(o.takesChains ? (['aat-chain'] as const) : []),
    ]),
    actor_token_types_supported: namesOf(['id_token', 'jwt', 'jwt-svid', 'aws-iam']),
    token_request_parameters_supported: Object.keys(tokenForm.properties),
  }
}

function namesOf(types: readonly TokenType[]): string[] {
  return Object.entries(TOKEN_TYPES).flatMap(([name, type]) => (types.includes(type) ? [name] : []))
}
