/** Settings of a client of an authorization server: where that is, as which client, proved how, for which scope and audience. */
import { z } from 'zod'
import { addressRange, endpointUrl, refuseCleartext } from '../endpoint-schema.ts'
import { secretReference } from '../reference.ts'
import { credentialTerms } from '../terms.ts'

/** RFC 6749 §3.3 scope-token characters. */
export const scope = z.string().regex(/^[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*$/, {
  error: 'is not a list of scopes separated by single spaces',
})

const oneOrMore = z.union([z.string().min(1), z.array(z.string().min(1)).min(1)])

/** Where an authorization server is. */
const place = {
  /** Token endpoint: `https`, or `http` on a literal address that `addresses` names. */
  token_url: endpointUrl,
  /** RFC 7009 endpoint of the same server. Absent: tokens end only by expiring. */
  revocation_url: endpointUrl.optional(),
  /** Ranges outside the public Internet that the endpoints may resolve to. Default: none. */
  addresses: z.array(addressRange).default([]),
  /** Issuer identifier of the server: `aud` of what is signed for it. Default: `token_url`. */
  assertion_audience: z.string().min(1).optional(),
} as const

/** What is asked for, whatever the grant type. */
const target = {
  /** Asked for at every issue; a token with more than this is refused. Absent: the client's registered scope. */
  scope: scope.optional(),
  /** RFC 8707 resource indicator, one or several. */
  resource: oneOrMore.optional(),
  /** `audience` parameter of the token request, for servers that use it instead of `resource`. */
  audience: oneOrMore.optional(),
  /** What `aud` of a token that is a JWT names one of. Default: what `resource` and `audience` ask for. */
  token_audience: oneOrMore.optional(),
  /** Tokens are bound to a key that the gateway makes for each and keeps (RFC 9449). Default: bearer tokens. */
  dpop: z.boolean().default(false),
} as const

const clientId = { client_id: z.string().min(1) } as const

/** How the client proves that it is the one. */
const authentication = {
  secret: {
    ...clientId,
    client_auth: z.enum(['client_secret_basic', 'client_secret_post']),
    client_secret: secretReference,
  },
  key: {
    ...clientId,
    client_auth: z.literal('private_key_jwt'),
    /** Private key, PEM (PKCS#8) or JWK: P-256, RSA, RSA-PSS or Ed25519. */
    key: secretReference,
    /** `kid` of the assertion header. Default: the JWK's own, or none. */
    kid: z.string().min(1).optional(),
  },
  certificate: {
    ...clientId,
    client_auth: z.enum(['tls_client_auth', 'self_signed_tls_client_auth']),
    /** PEM: the certificate, and its intermediates after it. */
    client_certificate: secretReference,
    /** PEM: its private key. */
    client_key: secretReference,
    /** Tokens work only together with the certificate (RFC 8705 §3), which is then shown to the service too. Default no. */
    certificate_bound: z.boolean().default(false),
  },
  assertion: {
    ...clientId,
    /** The gateway's own assertion, whose keys the server fetches: nothing secret is shared with it. */
    client_auth: z.literal('assertion'),
  },
  none: {
    client_id: z.string().min(1).optional(),
    client_auth: z.literal('none'),
  },
} as const

const METHODS = 'client_secret_basic, client_secret_post, private_key_jwt, tls_client_auth, self_signed_tls_client_auth'

/** A client that the server knows. @param own what settings say besides */
function confidential<S extends z.ZodRawShape>(own: S) {
  const common = { ...place, ...own }
  return [
    z.strictObject({ ...common, ...authentication.secret }),
    z.strictObject({ ...common, ...authentication.key }),
    z.strictObject({ ...common, ...authentication.certificate }),
    z.strictObject({ ...common, ...authentication.assertion }),
  ] as const
}

/** Where another server is that has to be asked first, and as which client. */
export const otherServer = z
  .discriminatedUnion('client_auth', confidential({}), { error: `client_auth is one of ${METHODS}, assertion` })
  .superRefine(safely)

/** @param own what this provider says besides */
export function confidentialClient<P extends string, S extends z.ZodRawShape>(provider: P, own: S) {
  const common = { provider: z.literal(provider), ...credentialTerms, ...target, ...own }
  return z.discriminatedUnion('client_auth', confidential(common), {
    error: `client_auth is one of ${METHODS}, assertion`,
  })
}

/** The same for grants that are authorised by what is presented with them (RFC 7521 §4.1): there may be no client at all. */
export function anyClient<P extends string, S extends z.ZodRawShape>(provider: P, own: S) {
  const common = { provider: z.literal(provider), ...credentialTerms, ...target, ...own }
  const nobody = z.strictObject({ ...place, ...common, ...authentication.none })
  return z.discriminatedUnion('client_auth', [...confidential(common), nobody], {
    error: `client_auth is one of ${METHODS}, assertion, none`,
  })
}

export const clientCredentialsSchema = confidentialClient('oauth_client_credentials', {}).superRefine(safely)

export type ClientCredentialsConfig = z.output<typeof clientCredentialsSchema>

/** What a client of any of these has. */
export type ClientConfig = z.output<ReturnType<typeof anyClient<string, Record<never, never>>>>

/** As far as speaking with its server goes. */
export type EndpointConfig = z.output<typeof otherServer> | ClientConfig

/** A secret never travels in the clear, and over http there is nothing to show a certificate in. */
export function safely(
  config: {
    readonly token_url: string
    readonly revocation_url?: string | undefined
    readonly addresses: readonly string[]
    readonly client_auth: string
  },
  context: z.RefinementCtx,
): void {
  refuseCleartext<typeof config>(['token_url', 'revocation_url'])(config, context)
  if (!config.client_auth.endsWith('tls_client_auth') || config.token_url.startsWith('https:')) return
  context.addIssue({
    code: 'custom',
    path: ['token_url'],
    message: `is not https: ${config.client_auth} shows a certificate in TLS. Write https://…`,
  })
}
