/** OAuth 2.0 client credentials (RFC 6749 §4.4): the gateway asks in its own name. */

import type { Provider } from '../provider.ts'
import type { ClientCredentialsConfig } from './client-schema.ts'
import { createTokenProvider, type TokenTools } from './token-provider.ts'

export function createClientCredentials(config: ClientCredentialsConfig, tools: TokenTools): Provider {
  return createTokenProvider(config, tools, {
    name: 'oauth_client_credentials',
    grantType: 'client_credentials',
    parameters: async () => ({}),
  })
}
