/** Settings of `oauth_client_credentials`: which authorization server, as which client, for which scope. */
import { z } from 'zod'
import { addressRange, endpointUrl, refuseCleartext } from './endpoint-schema.ts'
import { secretReference } from './reference.ts'
import { credentialTerms } from './terms.ts'

/** RFC 6749 §3.3 scope-token characters. */
const scope = z.string().regex(/^[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*$/, {
  error: 'is not a list of scopes separated by single spaces',
})

const common = {
  provider: z.literal('oauth_client_credentials'),
  ...credentialTerms,
  /** Token endpoint: `https`, or `http` on a literal address that `addresses` names. */
  token_url: endpointUrl,
  /** RFC 7009 endpoint of the same server. Absent: tokens end only by expiring. */
  revocation_url: endpointUrl.optional(),
  client_id: z.string().min(1),
  /** Asked for at every issue; a token with more than this is refused. Absent: the client's registered scope. */
  scope: scope.optional(),
  /** RFC 8707 resource indicator, one or several. */
  resource: z.union([z.string().min(1), z.array(z.string().min(1)).min(1)]).optional(),
  /** `audience` parameter of the token request, for servers that use it instead of `resource`. */
  audience: z.string().min(1).optional(),
  /** `aud` of the client assertion (private_key_jwt): the issuer identifier of the server. Default: `token_url`. */
  assertion_audience: z.string().min(1).optional(),
  /** Ranges outside the public Internet that the endpoints may resolve to. Default: none. */
  addresses: z.array(addressRange).default([]),
}

const secretClient = z.strictObject({
  ...common,
  client_auth: z.enum(['client_secret_basic', 'client_secret_post']),
  client_secret: secretReference,
})

const keyClient = z.strictObject({
  ...common,
  client_auth: z.literal('private_key_jwt'),
  /** Private key, PEM (PKCS#8) or JWK: P-256, RSA, RSA-PSS or Ed25519. */
  key: secretReference,
  /** `kid` of the assertion header. Default: the JWK's own, or none. */
  kid: z.string().min(1).optional(),
})

export const clientCredentialsSchema = z
  .discriminatedUnion('client_auth', [secretClient, keyClient], {
    error: 'client_auth is one of client_secret_basic, client_secret_post, private_key_jwt',
  })
  .superRefine(refuseCleartext(['token_url', 'revocation_url']))

export type ClientCredentialsConfig = z.output<typeof clientCredentialsSchema>
