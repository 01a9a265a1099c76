/**
 * Cross-app access (draft-ietf-oauth-identity-assertion-authz-grant): the human's identity provider says, by an ID-JAG, that this client may
 * act for the human at another company's authorization server, which takes it for an access token. Nobody consents twice.
 */
import { decodeJwt, decodeProtectedHeader } from 'jose'
import type { IssueRequest, Provider } from '../provider.ts'
import { createProofs } from './dpop.ts'
import { JWT_BEARER } from './jwt-bearer.ts'
import { subjectClaims } from './subject-claims.ts'
import { excessScope, scopeWords, unusable } from './token-credential.ts'
import { openTokenEndpoint, type TokenEndpoint } from './token-endpoint.ts'
import { TOKEN_EXCHANGE } from './token-exchange.ts'
import { createTokenProvider, list, type TokenTools } from './token-provider.ts'
import { type IdJagConfig, tokenTypeUri } from './token-schema.ts'
import { tokenFrom } from './token-source.ts'

/** §4.3 of the draft. */
const ID_JAG = 'urn:ietf:params:oauth:token-type:id-jag'
/** §3: the `typ` of one. */
const TYPE = 'oauth-id-jag+jwt'

export function createIdJag(config: IdJagConfig, tools: TokenTools): Provider {
  const idp = openTokenEndpoint(config.idp, { ...tools, proofs: createProofs(tools.clock, tools.placement) })
  return createTokenProvider(config, tools, {
    name: 'oauth_id_jag',
    grantType: JWT_BEARER,
    saysTarget: false, // scope and resource are in the ID-JAG
    async parameters(request, signal) {
      return { assertion: await askForIdJag(config, { idp, tools, request }, signal) }
    },
  })
}

interface Asking {
  readonly idp: TokenEndpoint
  readonly tools: TokenTools
  readonly request: IssueRequest
}

/** §4.3.1: the parameters of the exchange. No actor token: the draft leaves its meaning open, so lineage travels in the subject token. */
async function askForIdJag(config: IdJagConfig, { idp, tools, request }: Asking, signal: AbortSignal): Promise<string> {
  const { grant } = request
  const audience = config.idp.assertion_audience ?? config.idp.token_url
  const parameters = async () => {
    const presented = { grant, claims: subjectClaims(grant), audience }
    const subject = await tokenFrom(config.subject_token, tools, presented, signal)
    const asked = new URLSearchParams({
      requested_token_type: ID_JAG,
      subject_token: subject.reveal(),
      subject_token_type: tokenTypeUri(config.subject_token_type),
      audience: config.assertion_audience ?? config.token_url,
    })
    if (config.scope !== undefined) asked.set('scope', config.scope)
    for (const one of list(config.resource)) asked.append('resource', one)
    return asked
  }
  const answer = await idp.request({ grantType: TOKEN_EXCHANGE, parameters }, signal)
  // RFC 8693 §2.2.1: N_A, because it is no access token. Another type would be one, good at the identity provider.
  if (answer.type !== 'n_a') throw unusable(idp.server, 'its token_type is not N_A')
  if (answer.issuedType !== ID_JAG) throw unusable(idp.server, `its issued_token_type is not ${ID_JAG}`)
  checkShown(answer.token, config, idp.server)
  const excess = excessScope(config.scope, answer.scope)
  if (excess.length > 0) throw unusable(idp.server, `it has scope that was not asked for: ${scopeWords(excess)}`)
  return answer.token
}

/** It is signed for the other server, which verifies it. What it shows may only make us refuse to hand it over. */
function checkShown(
  token: string,
  { assertion_audience: audience, client_id, scope }: IdJagConfig,
  server: string,
): void {
  const shown = readShown(token)
  if (shown?.typ?.toLowerCase() !== TYPE) throw unusable(server, `it is no JWT of type ${TYPE}`)
  // One audience alone: whoever of several is shown it could show it to the others.
  const [aud, ...more] = [shown.claims.aud ?? []].flat()
  if (aud !== audience || more.length > 0)
    throw unusable(server, 'it is not for the server that assertion_audience names, and for it alone')
  if (shown.claims.client_id !== client_id) throw unusable(server, 'it is for another client than client_id names')
  const granted = typeof shown.claims.scope === 'string' ? shown.claims.scope : undefined
  if (excessScope(scope, granted).length > 0) throw unusable(server, 'it has scope that was not asked for')
}

function readShown(token: string) {
  try {
    return { typ: decodeProtectedHeader(token).typ, claims: decodeJwt(token) }
  } catch {
    return undefined
  }
}
