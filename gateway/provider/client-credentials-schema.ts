/** Settings of `oauth_client_credentials`: which authorization server, as which client, for which scope. */
import ipaddr from 'ipaddr.js'
import { z } from 'zod'
import { secretReference } from './reference.ts'
import { credentialTerms } from './terms.ts'

const tokenEndpoint = z.string().superRefine((text, context) => {
  const url = URL.canParse(text) ? new URL(text) : undefined
  // The text is not repeated: a URL with a password in it must not reach a message.
  if (url === undefined || (url.protocol !== 'https:' && url.protocol !== 'http:'))
    context.addIssue('is not an https:// URL')
  else if (url.username !== '' || url.password !== '') {
    context.addIssue('must not hold a user or password: use client_auth and client_secret: { file: path }')
  } else if (url.hash !== '') context.addIssue('must not have a fragment (RFC 6749 §3.2)')
})

const addressRange = z.string().refine((text) => ipaddr.isValidCIDR(text), {
  error: 'is not an address range such as 10.20.0.0/16 or 127.0.0.1/32',
})

/** RFC 6749 §3.3 scope-token characters. */
const scope = z.string().regex(/^[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*$/, {
  error: 'is not a list of scopes separated by single spaces',
})

const common = {
  provider: z.literal('oauth_client_credentials'),
  ...credentialTerms,
  /** Token endpoint: `https`, or `http` on a literal address that `addresses` names. */
  token_url: tokenEndpoint,
  /** RFC 7009 endpoint of the same server. Absent: tokens end only by expiring. */
  revocation_url: tokenEndpoint.optional(),
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
  .superRefine((config, context) => {
    for (const name of ['token_url', 'revocation_url'] as const) {
      const url = config[name]
      if (url === undefined || isReachedSafely(url, config.addresses)) continue
      context.addIssue({
        code: 'custom',
        path: [name],
        message:
          'is not https: a client secret or token would travel in the clear. Use https, or a literal address (http://127.0.0.1:…) that addresses names',
      })
    }
  })

export type ClientCredentialsConfig = z.output<typeof clientCredentialsSchema>

/** Only a literal address is known to stay where settings put it: a name could resolve to a public address later. */
function isReachedSafely(text: string, ranges: readonly string[]): boolean {
  const url = new URL(text)
  if (url.protocol === 'https:') return true
  const literal = url.hostname.replace(/^\[|\]$/g, '')
  if (!ipaddr.isValid(literal)) return false
  const address = ipaddr.process(literal)
  return ranges.some((range) => {
    const [network, bits] = ipaddr.parseCIDR(range)
    return network.kind() === address.kind() && address.match(network, bits)
  })
}
