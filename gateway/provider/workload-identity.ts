/**
 * Workload identity federation in the shape that each vendor gave it: one request with a token that the gateway signs, or that its own
 * platform gave it, for a short-lived one of the vendor. Nothing secret is kept for it anywhere.
 */
import { pointerTokens } from '../protocol/exact-json.ts'
import type { Outbound } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { Service } from '../protocol/service.ts'
import { fillText } from './claims-template.ts'
import { exchange, type IssuerAnswer, isPassing, type JsonObject, unavailable } from './oauth/issuer-exchange.ts'
import { JWT_BEARER } from './oauth/jwt-bearer.ts'
import { subjectClaims } from './oauth/subject-claims.ts'
import { excessScope, scopeWords, tokenCredential, unusable } from './oauth/token-credential.ts'
import { TOKEN_EXCHANGE } from './oauth/token-exchange.ts'
import { adviceOn } from './oauth/token-failure.ts'
import type { TokenTools } from './oauth/token-provider.ts'
import { tokenTypeUri } from './oauth/token-schema.ts'
import { tokenFrom } from './oauth/token-source.ts'
import { slotChooser } from './placement/slot-choice.ts'
import type { Credential, IssueRequest, Provider } from './provider.ts'
import { settingsIdentity } from './settings-identity.ts'
import type { WorkloadIdentityConfig } from './workload-identity-schema.ts'

const ISSUED_TYPES = ['access_token', 'jwt'].map(tokenTypeUri)

export function createWorkloadIdentity(config: WorkloadIdentityConfig, tools: TokenTools): Provider {
  const { placement, clock } = tools
  const fetch = tools.fetchFor(config.addresses)
  const server = `the token endpoint at ${new URL(config.token_url).host}`
  const chosen = slotChooser(config.slot)
  const along = Object.entries(config.request_headers).flat()
  return {
    name: 'workload_identity',
    narrows: config.scope === undefined ? 'none' : 'scope',
    identity: settingsIdentity(config),
    async issue(request, signal) {
      const body = await bodyOf(config, tools, request, signal)
      const askedAtS = Math.floor(clock.nowMs() / 1000)
      const answer = await exchange(fetch, server, {
        url: config.token_url,
        method: 'POST',
        headers: { accept: 'application/json', ...config.headers },
        body: config.format === 'json' ? body : new URLSearchParams(body),
        signal,
      })
      return credentialOf(granted(answer, server), { config, server, askedAtS })
    },
    attach(credential, outbound) {
      const { service } = outbound
      if (along.length === 0 && chosen(service) === service) return placement.place(credential, outbound)
      const extended = { ...outbound, headers: [...outbound.headers, ...along], service: chosen(service) }
      return back(placement.place(credential, extended), service)
    },
    derived: (credential, service) => placement.derived(credential, chosen(service)),
  }
}

/** What was placed for the chosen slot, as a request of the service that it is for. */
async function settled(placed: Promise<Outbound>, service: Service): Promise<Outbound> {
  return { ...(await placed), service }
}

function back(placed: Outbound | Promise<Outbound>, service: Service): Outbound | Promise<Outbound> {
  return placed instanceof Promise ? settled(placed, service) : { ...placed, service }
}

async function bodyOf(
  config: WorkloadIdentityConfig,
  tools: TokenTools,
  { grant }: IssueRequest,
  signal: AbortSignal,
): Promise<Record<string, string>> {
  const presented = { grant, claims: subjectClaims(grant), audience: config.token_url }
  const token = (await tokenFrom(config.token, tools, presented, signal)).reveal()
  const own = Object.entries(config.parameters).map(([name, text]) => [name, fillText(text, grant)])
  const asked = config.scope === undefined ? {} : { scope: config.scope }
  const shown =
    config.grant === 'jwt_bearer'
      ? { grant_type: JWT_BEARER, assertion: token }
      : { grant_type: TOKEN_EXCHANGE, subject_token: token, subject_token_type: tokenTypeUri(config.token_type) }
  return { ...Object.fromEntries(own), ...asked, ...shown }
}

/** @throws {GatewayError} for every answer but a success with a JSON object */
function granted({ status, json, retryAfterMs }: IssuerAnswer, server: string): JsonObject {
  const name = `${server.charAt(0).toUpperCase()}${server.slice(1)}`
  if (isPassing(status)) throw unavailable(name, `answered ${status}`, retryAfterMs)
  if (status === 200 || status === 201) {
    if (json !== undefined) return json
    throw unavailable(name, 'answered something that is not a JSON object')
  }
  // OAuth puts the code there; others an object, of which nothing is repeated.
  const advice = adviceOn(json?.error)
  throw new GatewayError(
    'credential_rejected',
    advice === undefined
      ? `${name} refused with status ${status}. Check token_url, parameters and headers, and whether it trusts the issuer of the token.`
      : `${name} refused: ${json?.error}. Check the parameters, and whether it trusts issuer, audience and claims of the token. ${advice}`,
  )
}

interface Circumstances {
  readonly config: WorkloadIdentityConfig
  readonly server: string
  readonly askedAtS: number
}

function credentialOf(json: JsonObject, { config, server, askedAtS }: Circumstances): Credential {
  const token = valueAt(json, config.answer.token)
  if (typeof token !== 'string' || token === '')
    throw unusable(server, `its answer has no text at ${config.answer.token}`)
  const { token_type: type, issued_token_type: issuedType, scope } = json
  const given = valueAt(json, config.answer.expires_in)
  const credential = tokenCredential(
    {
      token,
      type: typeof type === 'string' ? type.toLowerCase() : undefined,
      expiresInS: typeof given === 'string' && /^\d{1,9}$/.test(given) ? Number(given) : given,
      scope: typeof scope === 'string' ? scope : undefined,
      issuedType: typeof issuedType === 'string' ? issuedType : undefined,
    },
    {
      ...{ server, askedAtS, scope: config.scope, audience: [] },
      // Vendors leave it out; one that names another kind gave something else.
      issuedTypes: typeof issuedType === 'string' ? ISSUED_TYPES : undefined,
    },
  )
  const excess = excessScope(config.scope, credential.scope)
  if (excess.length === 0) return credential
  throw new GatewayError(
    'credential_too_wide',
    `The token from ${server} has scope that was not asked for: ${scopeWords(excess)}. Narrow what it grants, or name the scope in settings.`,
  )
}

/** Value at a JSON pointer (RFC 6901), own members alone. */
function valueAt(json: JsonObject, pointer: string): unknown {
  return pointerTokens(pointer).reduce<unknown>(
    (value, token) =>
      typeof value === 'object' && value !== null && Object.hasOwn(value, token)
        ? (value as Readonly<Record<string, unknown>>)[token]
        : undefined,
    json,
  )
}
