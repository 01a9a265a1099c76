/** JWT as authorization grant (RFC 7523 §2.1): one assertion that says for whom, through whom and for which task, for an access token. */

import type { Provider } from '../provider.ts'
import { subjectClaims } from './subject-claims.ts'
import { createTokenProvider, type TokenTools } from './token-provider.ts'
import type { JwtBearerConfig } from './token-schema.ts'
import { tokenFrom } from './token-source.ts'

export const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer'

export function createJwtBearer(config: JwtBearerConfig, tools: TokenTools): Provider {
  const audience = config.assertion_audience ?? config.token_url
  return createTokenProvider(config, tools, {
    name: 'oauth_jwt_bearer',
    grantType: JWT_BEARER,
    async parameters({ grant }, signal) {
      const presented = { grant, claims: subjectClaims(grant), audience }
      return { assertion: (await tokenFrom(config.assertion, tools, presented, signal)).reveal() }
    },
  })
}
