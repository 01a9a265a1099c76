/** Settings of `oauth_refresh_token`: with which authorization server a human connects, as which client, for which scope. */
import { z } from 'zod'
import { addressRange, endpointUrl, refuseCleartext } from '../endpoint-schema.ts'
import { secretReference } from '../reference.ts'
import { credentialTerms } from '../terms.ts'

/** RFC 6749 §3.3 scope-token characters. */
const scope = z.string().regex(/^[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*$/, {
  error: 'is not a list of scopes separated by single spaces',
})

/** What the flow itself sets. */
const OWN_PARAMETERS = /^(?:response_type|client_id|redirect_uri|scope|state|code_challenge(?:_method)?|resource)$/

const common = {
  provider: z.literal('oauth_refresh_token'),
  ...credentialTerms,
  /** Issuer identifier. With it endpoints that are not given are looked up (RFC 8414), and `iss` of callbacks is held against it. */
  issuer: endpointUrl.optional(),
  /** Where the human's browser is sent. */
  authorization_url: endpointUrl.optional(),
  token_url: endpointUrl.optional(),
  /** RFC 7009 endpoint. Absent: access tokens end by expiring. */
  revocation_url: endpointUrl.optional(),
  /** RFC 8628 endpoint, for `keyless connect --device`. */
  device_url: endpointUrl.optional(),
  client_id: z.string().min(1),
  /** Asked for when a human connects, and at every refresh; a token with more than this is refused. */
  scope: scope.optional(),
  /** RFC 8707 resource indicator. */
  resource: z.string().min(1).optional(),
  /** Further parameters of the authorization request, such as `access_type: offline`. */
  authorization_params: z
    .record(z.string().regex(/^(?!.{65})[a-z0-9_.-]+$/i), z.string().max(512))
    .default({})
    .refine((params) => !Object.keys(params).some((name) => OWN_PARAMETERS.test(name)), {
      error: 'names a parameter that the gateway sets itself',
    }),
  /** Whose connection a credential comes from: that of the human behind the task, or one for everybody. */
  per: z.enum(['human', 'gateway']).default('human'),
  /**
   * Revoke access tokens when their task ends. Default no: a server may end the refresh token with them (RFC 7009 §2.1), and many do;
   * then the first task that ends would end the connection.
   */
  revoke_access: z.boolean().default(false),
  /** Shape of the token endpoint's answers. */
  answers: z.enum(['oauth', 'slack']).default('oauth'),
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

/** A public client: PKCE alone protects the code. */
const publicClient = z.strictObject({ ...common, client_auth: z.literal('none') })

export const oauthRefreshSchema = z
  .discriminatedUnion('client_auth', [secretClient, keyClient, publicClient], {
    error: 'client_auth is one of client_secret_basic, client_secret_post, private_key_jwt, none',
  })
  .superRefine(refuseCleartext(['issuer', 'authorization_url', 'token_url', 'revocation_url', 'device_url']))
  .superRefine(({ issuer, token_url }, context) => {
    if (issuer === undefined && token_url === undefined)
      context.addIssue({
        code: 'custom',
        path: ['token_url'],
        message: 'is missing: give token_url, or issuer to look it up',
      })
  })

export type OauthRefreshConfig = z.output<typeof oauthRefreshSchema>
