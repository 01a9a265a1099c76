/** Settings of the providers that present a token to get another: what is presented, and which kind is wanted. */
import { z } from 'zod'
import { anyClient, confidentialClient, otherServer, safely } from './client-schema.ts'
import { ownAssertion, tokenSource } from './token-source.ts'

const PREFIX = 'urn:ietf:params:oauth:token-type:'

/** RFC 8693 §3 by its last word, or any URI. */
const tokenType = z.string().regex(/^(?:access_token|refresh_token|id_token|saml1|saml2|jwt|[a-z][a-z0-9+.-]*:\S+)$/, {
  error: 'is neither access_token, id_token, jwt, saml2, refresh_token nor a URI',
})

/** As it goes over the wire. */
export function tokenTypeUri(name: string): string {
  return name.includes(':') ? name : `${PREFIX}${name}`
}

export const tokenExchangeSchema = anyClient('oauth_token_exchange', {
  /** For whom. Default: an assertion about the human. */
  subject_token: ownAssertion,
  subject_token_type: tokenType.default('jwt'),
  /** Who acts. Default: an assertion about the agent and its lineage. */
  actor_token: z.union([z.literal('none'), tokenSource]).default({
    assertion: { algorithm: 'ES256', lifetime_s: 120, claims: {} },
  }),
  actor_token_type: tokenType.default('jwt'),
  /** Default: what the server likes to give, if it is an access token or a JWT. */
  requested_token_type: tokenType.optional(),
}).superRefine(safely)

export type TokenExchangeConfig = z.output<typeof tokenExchangeSchema>

export const jwtBearerSchema = anyClient('oauth_jwt_bearer', {
  /** What is presented. Default: an assertion about the human and who acts for it. */
  assertion: ownAssertion,
}).superRefine(safely)

export type JwtBearerConfig = z.output<typeof jwtBearerSchema>

export const idJagSchema = confidentialClient('oauth_id_jag', {
  /** The human's identity provider, as whose client the gateway asks for the grant. */
  idp: otherServer,
  /** What the identity provider said of the human. Default: an assertion, for one that trusts this gateway. */
  subject_token: ownAssertion,
  subject_token_type: tokenType.default('id_token'),
})
  .superRefine(safely)
  .superRefine(({ assertion_audience, audience }, context) => {
    const issue = (path: string, message: string) => context.addIssue({ code: 'custom', path: [path], message })
    if (assertion_audience === undefined)
      issue(
        'assertion_audience',
        'is missing: write the issuer identifier of the server at token_url, for which the identity provider makes the grant',
      )
    if (audience !== undefined)
      issue('audience', 'is not asked for here: assertion_audience names the server, resource the API')
  })

export type IdJagConfig = z.output<typeof idJagSchema>
