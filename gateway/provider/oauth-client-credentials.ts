/**
 * OAuth 2.0 client credentials (RFC 6749 §4.4): one token request per issue, with client_secret_basic, client_secret_post or
 * private_key_jwt (RFC 7523). Never retries, never caches. What the authorization server answers is untrusted: it is
 * bounded, parsed by `oauth4webapi`, and no part of it but a known error code reaches a message.
 */
import * as oauth from 'oauth4webapi'
import type { Clock } from '../protocol/clock.ts'
import { GatewayError } from '../protocol/problem.ts'
import { Secret } from '../protocol/secret.ts'
import { boundedFetch } from './bounded-fetch.ts'
import { clientAssertion } from './client-assertion.ts'
import type { ClientCredentialsConfig } from './client-credentials-schema.ts'
import type { Placement } from './placement.ts'
import type { Credential, GuardedFetch, Provider } from './provider.ts'
import { type ReadSecret, referenceIdentity } from './reference.ts'
import { tokenFailure } from './token-failure.ts'

/** Seconds assumed when the answer has no `expires_in` (RFC 6749 §5.1 only recommends it). */
const ASSUMED_LIFE_S = 300

export interface ClientCredentialsTools {
  readonly fetchFor: (addresses: readonly string[]) => GuardedFetch
  readonly clock: Clock
  readonly readSecret: ReadSecret
  readonly placement: Placement
}

export function createClientCredentials(config: ClientCredentialsConfig, tools: ClientCredentialsTools): Provider {
  const far = farSide(config, tools)
  const revocation =
    config.revocation_url === undefined ? undefined : (token: Secret, signal: AbortSignal) => revoke(far, token, signal)
  return {
    name: 'oauth_client_credentials',
    narrows: 'scope',
    identity: identityOf(config),
    async issue(_request, signal) {
      const credential = await requestToken(far, signal)
      const excess = excessScope(config.scope, credential.scope)
      if (excess.length === 0) return credential
      // The token is wider than anyone asked for: nobody will use it, so it is ended where that is possible.
      await revocation?.(credential.secret, signal).catch(() => undefined)
      throw new GatewayError(
        'credential_too_wide',
        `The authorization server at ${far.host} granted scope that was not asked for: ${excess.join(' ')}. Narrow client ${config.client_id} there, or name the scope in settings.`,
      )
    },
    attach: (credential, outbound) => tools.placement.place(credential, outbound),
    derived: (credential, service) => tools.placement.derived(credential, service),
    ...(revocation && {
      revoke: (credential: Credential, signal: AbortSignal) => revocation(credential.secret, signal),
    }),
  }
}

/** One configured authorization server, and how this client speaks to it. */
interface FarSide {
  readonly config: ClientCredentialsConfig
  readonly tools: ClientCredentialsTools
  readonly server: oauth.AuthorizationServer
  readonly client: oauth.Client
  /** One for all requests: it holds connections, and lives as long as the gateway. */
  readonly fetch: GuardedFetch
  readonly host: string
  readonly isCleartext: boolean
}

function farSide(config: ClientCredentialsConfig, tools: ClientCredentialsTools): FarSide {
  const url = new URL(config.token_url)
  const server: oauth.AuthorizationServer = {
    issuer: config.assertion_audience ?? config.token_url,
    token_endpoint: config.token_url,
    ...(config.revocation_url !== undefined && { revocation_endpoint: config.revocation_url }),
  }
  return {
    config,
    tools,
    server,
    client: { client_id: config.client_id },
    fetch: tools.fetchFor(config.addresses),
    host: url.host,
    isCleartext: url.protocol === 'http:',
  }
}

async function requestToken(far: FarSide, signal: AbortSignal): Promise<Credential> {
  const authentication = await clientAuthentication(far, signal)
  const exchange = boundedFetch(far.fetch)
  // Counted from before the request, so that time on the wire shortens the life and never lengthens it.
  const askedAtS = Math.floor(far.tools.clock.nowMs() / 1000)
  let answer: oauth.TokenEndpointResponse
  try {
    const options = requestOptions(far, exchange.fetch, signal)
    const response = await oauth.clientCredentialsGrantRequest(
      far.server,
      far.client,
      authentication,
      parameters(far.config),
      options,
    )
    answer = await oauth.processClientCredentialsResponse(far.server, far.client, response)
  } catch (cause) {
    throw tokenFailure(cause, {
      host: far.host,
      clientId: far.config.client_id,
      status: exchange.status(),
      retryAfterMs: exchange.retryAfterMs(),
      signal,
    })
  }
  if (answer.token_type !== 'bearer') throw unusable(far, 'its token_type is not Bearer')
  const lifeS = answer.expires_in ?? ASSUMED_LIFE_S
  if (!Number.isFinite(lifeS) || lifeS < 0) throw unusable(far, 'its expires_in is not a number of seconds')
  const credential = {
    secret: new Secret(answer.access_token),
    expiresAt: askedAtS + Math.floor(lifeS),
    ephemeral: true,
  }
  // RFC 6749 §5.1: an answer without `scope` grants exactly what was asked.
  const scope = answer.scope ?? far.config.scope
  return scope === undefined ? credential : { ...credential, scope }
}

async function revoke(far: FarSide, token: Secret, signal: AbortSignal): Promise<void> {
  const authentication = await clientAuthentication(far, signal)
  const exchange = boundedFetch(far.fetch)
  try {
    const options = {
      ...requestOptions(far, exchange.fetch, signal),
      additionalParameters: { token_type_hint: 'access_token' },
    }
    const response = await oauth.revocationRequest(far.server, far.client, authentication, token.reveal(), options)
    await oauth.processRevocationResponse(response)
  } catch (cause) {
    throw tokenFailure(cause, {
      host: far.host,
      clientId: far.config.client_id,
      status: exchange.status(),
      retryAfterMs: exchange.retryAfterMs(),
      signal,
    })
  }
}

async function clientAuthentication({ config, tools }: FarSide, signal: AbortSignal): Promise<oauth.ClientAuth> {
  switch (config.client_auth) {
    case 'private_key_jwt':
      return clientAssertion({
        key: await tools.readSecret(config.key, signal),
        kid: config.kid,
        audience: config.assertion_audience ?? config.token_url,
        clock: tools.clock,
      })
    case 'client_secret_basic':
      return oauth.ClientSecretBasic((await tools.readSecret(config.client_secret, signal)).reveal())
    case 'client_secret_post':
      return oauth.ClientSecretPost((await tools.readSecret(config.client_secret, signal)).reveal())
    default:
      return config satisfies never
  }
}

function requestOptions(
  far: FarSide,
  fetch: GuardedFetch,
  signal: AbortSignal,
): oauth.ClientCredentialsGrantRequestOptions {
  // Settings accept http only for a literal address that `addresses` names (client-credentials-schema.ts).
  const cleartext = far.isCleartext ? { [oauth.allowInsecureRequests]: true } : {}
  return { signal, [oauth.customFetch]: (url, init) => fetch(url, init as RequestInit), ...cleartext }
}

function parameters(config: ClientCredentialsConfig): URLSearchParams {
  const asked = new URLSearchParams()
  if (config.scope !== undefined) asked.set('scope', config.scope)
  if (config.audience !== undefined) asked.set('audience', config.audience)
  // RFC 8707 §2: `resource` may be repeated.
  for (const resource of resources(config)) asked.append('resource', resource)
  return asked
}

function resources({ resource }: ClientCredentialsConfig): readonly string[] {
  if (resource === undefined) return []
  return typeof resource === 'string' ? [resource] : resource
}

/** Scope that was granted but not asked for. Nothing asked: the client's registered scope is what settings chose. */
function excessScope(asked: string | undefined, granted: string | undefined): readonly string[] {
  if (asked === undefined || granted === undefined) return []
  const wanted = new Set(asked.split(' '))
  return granted.split(' ').filter((scope) => scope !== '' && !wanted.has(scope))
}

function identityOf(config: ClientCredentialsConfig): string {
  return JSON.stringify([
    'oauth_client_credentials',
    config.token_url,
    config.addresses,
    config.client_id,
    config.client_auth,
    referenceIdentity(config.client_auth === 'private_key_jwt' ? config.key : config.client_secret),
    config.scope?.split(' ').sort() ?? null,
    resources(config),
    config.audience ?? null,
    config.assertion_audience ?? null,
  ])
}

function unusable(far: FarSide, why: string): GatewayError {
  return new GatewayError(
    'credential_rejected',
    `The token from the authorization server at ${far.host} cannot be used: ${why}.`,
  )
}
