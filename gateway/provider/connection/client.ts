/**
 * One exchange with the authorization server of a connection: as which client, with which bounds, and what its failures become. No part
 * of an answer but a known error code reaches a message.
 */
import * as oauth from 'oauth4webapi'
import type { Clock } from '../../protocol/clock.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { Secret } from '../../protocol/secret.ts'
import { boundedFetch } from '../bounded-fetch.ts'
import { clientAssertion } from '../oauth/client-assertion.ts'
import type { OauthRefreshConfig } from '../oauth/refresh-schema.ts'
import { tokenFailure } from '../oauth/token-failure.ts'
import type { FetchFor, GuardedFetch } from '../provider.ts'
import type { ReadSecret } from '../reference.ts'
import type { Endpoints } from './endpoints.ts'
import type { TokenAnswer } from './refresh.ts'

/** Seconds assumed when the answer has no `expires_in` (RFC 6749 §5.1 only recommends it). */
const ASSUMED_LIFE_S = 300

export interface ServerTools {
  readonly fetchFor: FetchFor
  readonly clock: Clock
  readonly readSecret: ReadSecret
}

export interface FarSide {
  readonly config: OauthRefreshConfig
  readonly tools: ServerTools
  readonly fetch: GuardedFetch
  readonly endpoints: Endpoints
  readonly client: oauth.Client
  readonly host: string
}

export interface Speaking {
  readonly server: oauth.AuthorizationServer
  readonly auth: oauth.ClientAuth
  readonly options: { readonly signal: AbortSignal }
}

/** What the server says of a token or code that it does not take: a refusal of its own kind until it is known which. */
export class InvalidGrant extends GatewayError {}

/** One exchange with the server. @throws {GatewayError} for every failure; none repeats what was sent or answered. */
export async function speak<T>(far: FarSide, signal: AbortSignal, work: (to: Speaking) => Promise<T>): Promise<T> {
  const server = await far.endpoints(signal)
  const auth = await clientAuthentication(far, server, signal)
  const exchange = boundedFetch(far.fetch)
  // Settings accept http only for a literal address that `addresses` names (oauth/refresh-schema.ts).
  const cleartext = Object.values(server).some((url) => typeof url === 'string' && url.startsWith('http:'))
  const options = {
    signal,
    [oauth.customFetch]: (url: string, init: object) => withoutIdToken(exchange.fetch(url, init as RequestInit)),
    ...(cleartext && { [oauth.allowInsecureRequests]: true }),
  }
  try {
    return await work({ server, auth, options })
  } catch (cause) {
    if (cause instanceof GatewayError && cause.code === 'instruction_invalid') throw cause // said by the work itself
    const status = exchange.status()
    const failure = tokenFailure(cause, {
      host: far.host,
      clientId: far.config.client_id,
      status,
      retryAfterMs: exchange.retryAfterMs(),
      signal,
    })
    const isPassing = failure.code === 'credential_unavailable'
    if (cause instanceof oauth.ResponseBodyError && cause.error === 'invalid_grant' && !isPassing)
      throw new InvalidGrant('reauthorize', `The authorization server at ${far.host} does not take this grant.`)
    throw failure
  }
}

export async function tokenRequest(
  far: FarSide,
  signal: AbortSignal,
  work: (to: Speaking) => Promise<oauth.TokenEndpointResponse>,
): Promise<TokenAnswer> {
  // Counted from before the request, so that time on the wire shortens the life and never lengthens it.
  const askedAtS = Math.floor(far.tools.clock.nowMs() / 1000)
  const answer = await speak(far, signal, work)
  const lifeS = answer.expires_in ?? ASSUMED_LIFE_S
  // Said and not thrown: a refresh token that came along is kept, whatever the access token is.
  const refusal =
    answer.token_type !== 'bearer'
      ? unusable(far, 'its token_type is not Bearer')
      : !Number.isFinite(lifeS) || lifeS < 0
        ? unusable(far, 'its expires_in is not a number of seconds')
        : undefined
  return {
    refusal,
    accessToken: new Secret(answer.access_token),
    expiresAt: askedAtS + Math.floor(lifeS),
    refreshToken: answer.refresh_token ? new Secret(answer.refresh_token) : undefined,
    scope: answer.scope,
  }
}

async function clientAuthentication(
  { config, tools }: FarSide,
  server: oauth.AuthorizationServer,
  signal: AbortSignal,
): Promise<oauth.ClientAuth> {
  switch (config.client_auth) {
    case 'private_key_jwt':
      return clientAssertion({
        owner: config,
        key: await tools.readSecret(config.key, signal),
        kid: config.kid,
        audience: server.issuer,
        clock: tools.clock,
      })
    case 'client_secret_basic':
      return oauth.ClientSecretBasic((await tools.readSecret(config.client_secret, signal)).reveal())
    case 'client_secret_post':
      return oauth.ClientSecretPost((await tools.readSecret(config.client_secret, signal)).reveal())
    case 'none':
      return oauth.None()
    default:
      return config satisfies never
  }
}

/** Nobody is signed in by it here, so an ID token is not looked at, and none that is strange refuses a connection. */
async function withoutIdToken(answered: Promise<Response>): Promise<Response> {
  const response = await answered
  if (response.status !== 200) return response
  const text = await response.text()
  const { headers } = response
  try {
    const { id_token: _, ...rest } = JSON.parse(text)
    return new Response(JSON.stringify(rest), { headers })
  } catch {
    return new Response(text, { headers })
  }
}

function unusable(far: FarSide, why: string): GatewayError {
  return new GatewayError(
    'credential_rejected',
    `The token from the authorization server at ${far.host} cannot be used: ${why}.`,
  )
}
