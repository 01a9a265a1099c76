/**
 * OAuth 2.0 Token Exchange (RFC 8693): the human's token and the agent's for one that names both. By default the gateway asserts both,
 * so the lineage travels, and nothing secret is kept anywhere.
 */

import type { Provider } from '../provider.ts'
import { agentClaims, humanClaims } from './subject-claims.ts'
import { createTokenProvider, type TokenTools } from './token-provider.ts'
import type { TokenExchangeConfig } from './token-schema.ts'
import { tokenTypeUri } from './token-schema.ts'
import { tokenFrom } from './token-source.ts'

export const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'

export function createTokenExchange(config: TokenExchangeConfig, tools: TokenTools): Provider {
  const { subject_token, actor_token, requested_token_type } = config
  const audience = config.assertion_audience ?? config.token_url
  const types = requested_token_type === undefined ? ['access_token', 'jwt'] : [requested_token_type]
  return createTokenProvider(config, tools, {
    name: 'oauth_token_exchange',
    grantType: TOKEN_EXCHANGE,
    // RFC 8693 §2.2.1: REQUIRED. A refresh token or an ID token is no credential for a service.
    issuedTypes: types.map(tokenTypeUri),
    async parameters({ grant }, signal) {
      const subject = await tokenFrom(subject_token, tools, { grant, claims: humanClaims(grant), audience }, signal)
      const asked = {
        subject_token: subject.reveal(),
        subject_token_type: tokenTypeUri(config.subject_token_type),
        ...(requested_token_type && { requested_token_type: tokenTypeUri(requested_token_type) }),
      }
      if (actor_token === 'none') return asked
      const actor = await tokenFrom(actor_token, tools, { grant, claims: agentClaims(grant), audience }, signal)
      return { ...asked, actor_token: actor.reveal(), actor_token_type: tokenTypeUri(config.actor_token_type) }
    },
  })
}
