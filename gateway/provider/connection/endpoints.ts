/** Endpoints of the server of a connection: as settings give them, else from its metadata (RFC 8414, OpenID Connect Discovery 1.0). */
import * as oauth from 'oauth4webapi'
import { GatewayError } from '../../protocol/problem.ts'
import { boundedFetch } from '../bounded-fetch.ts'
import { isReachedSafely } from '../endpoint-schema.ts'
import type { OauthRefreshConfig } from '../oauth/refresh-schema.ts'
import { tokenFailure } from '../oauth/token-failure.ts'
import type { GuardedFetch } from '../provider.ts'

/** Where settings say nothing of an issuer, the token endpoint names the server: no answer can carry another `iss` that fits. */
export type Endpoints = (signal: AbortSignal) => Promise<oauth.AuthorizationServer>

export function endpointsOf(config: OauthRefreshConfig, fetch: GuardedFetch): Endpoints {
  const { issuer, authorization_url, token_url, revocation_url, device_url } = config
  const given = {
    ...(authorization_url !== undefined && { authorization_endpoint: authorization_url }),
    ...(token_url !== undefined && { token_endpoint: token_url }),
    ...(revocation_url !== undefined && { revocation_endpoint: revocation_url }),
    ...(device_url !== undefined && { device_authorization_endpoint: device_url }),
  }
  if (issuer === undefined) return async () => ({ issuer: token_url ?? '', ...given })
  let known: oauth.AuthorizationServer | undefined
  return async (signal) => {
    known ??= { ...onlySafe(await discover(new URL(issuer), config, fetch, signal), config), ...given }
    return known
  }
}

async function discover(
  issuer: URL,
  config: OauthRefreshConfig,
  fetch: GuardedFetch,
  signal: AbortSignal,
): Promise<oauth.AuthorizationServer> {
  const exchange = boundedFetch(fetch)
  const failed = (cause: unknown) =>
    tokenFailure(cause, { host: issuer.host, clientId: config.client_id, status: exchange.status(), signal })
  for (const algorithm of ['oauth2', 'oidc'] as const) {
    try {
      const options = {
        algorithm,
        signal,
        [oauth.customFetch]: (url: string, init: object) => exchange.fetch(url, init as RequestInit),
        ...(issuer.protocol === 'http:' && { [oauth.allowInsecureRequests]: true }),
      }
      const response = await oauth.discoveryRequest(issuer, options as oauth.DiscoveryRequestOptions)
      return await oauth.processDiscoveryResponse(issuer, response)
    } catch (cause) {
      if (algorithm === 'oidc' || exchange.status() !== 404) {
        if (exchange.status() !== 200) throw failed(cause)
        throw new GatewayError(
          'credential_rejected',
          `The metadata of ${issuer.host} cannot be used: it is for another issuer, or no metadata. Correct issuer, or give the endpoints.`,
        )
      }
    }
  }
  throw new TypeError('unreachable')
}

/** What an issuer says of its endpoints must not lead a secret into the clear. */
function onlySafe(server: oauth.AuthorizationServer, { addresses }: OauthRefreshConfig): oauth.AuthorizationServer {
  const named = [
    'authorization_endpoint',
    'token_endpoint',
    'revocation_endpoint',
    'device_authorization_endpoint',
  ] as const
  const unsafe = named.filter((name) => {
    const url = server[name]
    return url !== undefined && !(URL.canParse(url) && isReachedSafely(url, addresses))
  })
  if (unsafe.length === 0) return server
  throw new GatewayError(
    'credential_rejected',
    `The metadata of ${new URL(server.issuer).host} names ${unsafe.join(', ')} that is not https.`,
  )
}
