/**
 * The authorization server of a connection, as its client speaks to it: authorization code with PKCE, device code (RFC 8628), refresh,
 * revocation. One request each, never repeated. What it answers is untrusted: bounded, parsed by `oauth4webapi`, and no part of it but
 * a known error code reaches a message.
 */
import * as oauth from 'oauth4webapi'
import { GatewayError } from '../../protocol/problem.ts'
import { Secret } from '../../protocol/secret.ts'
import type { OauthRefreshConfig } from '../oauth/refresh-schema.ts'
import { asOauth } from '../placement/slack-answer.ts'
import { type FarSide, InvalidGrant, type ServerTools, speak, tokenRequest } from './client.ts'
import { type ShownDevice, shownDevice } from './device-display.ts'
import { endpointsOf } from './endpoints.ts'
import type { TokenAnswer } from './refresh.ts'

/** One way to send a human to the server, and what comes back for it alone. */
export interface CodeRequest {
  readonly state: string
  /** PKCE, RFC 7636. */
  readonly verifier: Secret
  readonly redirectUri: string
}

export interface DeviceStart extends ShownDevice {
  readonly deviceCode: Secret
  /** Seconds. */
  readonly expiresInS: number
}

export interface ConnectionServer {
  readonly host: string
  /** Server and client in one canonical text: a refresh token is sent nowhere else than where it came from. */
  readonly issuedTo: string
  /** @param granted scope of the connection: no more than that can be asked for (RFC 6749 §6). */
  refresh(token: Secret, granted: string | undefined, signal: AbortSignal): Promise<TokenAnswer | 'invalid_grant'>
  /** RFC 7009. @returns false where the server offers none. */
  revoke(token: Secret, hint: 'access_token' | 'refresh_token', signal: AbortSignal): Promise<boolean>
  authorizationUrl(request: CodeRequest, signal: AbortSignal): Promise<string>
  /** @param parameters query of the callback: attacker-controlled. @throws {GatewayError} `instruction_invalid` for one that is not ours. */
  redeem(parameters: URLSearchParams, request: CodeRequest, signal: AbortSignal): Promise<TokenAnswer>
  startDevice(signal: AbortSignal): Promise<DeviceStart>
  pollDevice(code: Secret, signal: AbortSignal): Promise<TokenAnswer | 'pending' | 'slow_down'>
}

export function createConnectionServer(config: OauthRefreshConfig, tools: ServerTools): ConnectionServer {
  const plain = tools.fetchFor(config.addresses)
  const far: FarSide = {
    config,
    tools,
    fetch: config.answers === 'slack' ? asOauth(plain) : plain,
    endpoints: endpointsOf(config, plain),
    client: { client_id: config.client_id },
    host: new URL(config.token_url ?? config.issuer ?? '').host,
  }
  return {
    host: far.host,
    issuedTo: JSON.stringify([config.token_url ?? config.issuer, config.client_id]),
    async refresh(token, granted, signal) {
      const asked = parameters({
        ...config,
        scope: config.answers === 'slack' ? undefined : common(config.scope, granted),
      })
      try {
        return await tokenRequest(far, signal, async ({ server, auth, options }) => {
          const response = await oauth.refreshTokenGrantRequest(server, far.client, auth, token.reveal(), {
            ...options,
            additionalParameters: asked,
          })
          return oauth.processRefreshTokenResponse(server, far.client, response)
        })
      } catch (cause) {
        if (cause instanceof InvalidGrant) return 'invalid_grant'
        throw cause
      }
    },
    revoke: (token, hint, signal) => revoke(far, token, hint, signal),
    authorizationUrl: (request, signal) => authorizationUrl(far, request, signal),
    redeem: (answered, request, signal) => redeem(far, answered, request, signal),
    startDevice: (signal) => startDevice(far, signal),
    pollDevice: (code, signal) => pollDevice(far, code, signal),
  }
}

/** Say that the server has ended a code: whoever waited too long begins again. */
const DEVICE_ENDED: Readonly<Record<string, string>> = {
  access_denied: 'The human said no.',
  expired_token: 'The code has expired. Begin again.',
}

async function revoke(far: FarSide, token: Secret, hint: string, signal: AbortSignal): Promise<boolean> {
  const { revocation_endpoint: endpoint } = await far.endpoints(signal)
  if (endpoint === undefined) return false
  await speak(far, signal, async ({ server, auth, options }) => {
    const asked = { ...options, additionalParameters: { token_type_hint: hint } }
    await oauth.processRevocationResponse(
      await oauth.revocationRequest(server, far.client, auth, token.reveal(), asked),
    )
  })
  return true
}

async function authorizationUrl(far: FarSide, request: CodeRequest, signal: AbortSignal): Promise<string> {
  const { authorization_endpoint: endpoint } = await far.endpoints(signal)
  if (endpoint === undefined) throw missing('authorization_url')
  const url = new URL(endpoint)
  for (const [name, value] of Object.entries(far.config.authorization_params)) url.searchParams.set(name, value)
  url.searchParams.set('response_type', 'code')
  url.searchParams.set('client_id', far.config.client_id)
  url.searchParams.set('redirect_uri', request.redirectUri)
  url.searchParams.set('state', request.state)
  url.searchParams.set('code_challenge', await oauth.calculatePKCECodeChallenge(request.verifier.reveal()))
  url.searchParams.set('code_challenge_method', 'S256')
  for (const [name, value] of parameters(far.config)) url.searchParams.set(name, value)
  return url.href
}

async function redeem(
  far: FarSide,
  answered: URLSearchParams,
  request: CodeRequest,
  signal: AbortSignal,
): Promise<TokenAnswer> {
  const server = withIssuer(await far.endpoints(signal), answered)
  let callback: URLSearchParams
  try {
    callback = oauth.validateAuthResponse(server, far.client, answered, request.state)
  } catch (cause) {
    const isNo = cause instanceof oauth.AuthorizationResponseError && cause.error === 'access_denied'
    throw invalid(
      isNo
        ? `The authorization server at ${far.host} says that access was not granted.`
        : `What came back is not the answer of the authorization server at ${far.host} to this request, or an error of it. Begin again.`,
    )
  }
  const { verifier, redirectUri } = request
  return tokenRequest(far, signal, async ({ server: as, auth, options }) => {
    const code = [callback, redirectUri, verifier.reveal(), options] as const
    const response = await oauth.authorizationCodeGrantRequest(as, far.client, auth, ...code)
    return oauth.processAuthorizationCodeResponse(as, far.client, response)
  })
}

/**
 * RFC 9207: whoever answers says who it is. Where settings name no issuer, it must at least be of the origin that the human was sent
 * to: a code of another server is not for this one (RFC 9700 §4.4).
 */
function withIssuer(server: oauth.AuthorizationServer, answered: URLSearchParams): oauth.AuthorizationServer {
  const iss = answered.get('iss')
  const { authorization_endpoint: endpoint, token_endpoint: token } = server
  if (iss === null || endpoint === undefined || server.issuer !== token || !URL.canParse(iss)) return server
  return new URL(iss).origin === new URL(endpoint).origin ? { ...server, issuer: iss } : server
}

async function startDevice(far: FarSide, signal: AbortSignal): Promise<DeviceStart> {
  const { device_authorization_endpoint: endpoint } = await far.endpoints(signal)
  if (endpoint === undefined) throw missing('device_url')
  const answer = await speak(far, signal, async ({ server, auth, options }) => {
    const response = await oauth.deviceAuthorizationRequest(server, far.client, auth, parameters(far.config), options)
    return oauth.processDeviceAuthorizationResponse(server, far.client, response)
  })
  const { device_code, expires_in: expiresInS } = answer
  return { deviceCode: new Secret(device_code), expiresInS, ...shownDevice(answer, far.host, far.config.addresses) }
}

async function pollDevice(
  far: FarSide,
  code: Secret,
  signal: AbortSignal,
): Promise<TokenAnswer | 'pending' | 'slow_down'> {
  let told: 'pending' | 'slow_down' | undefined
  const asked = tokenRequest(far, signal, async ({ server, auth, options }) => {
    try {
      const response = await oauth.deviceCodeGrantRequest(server, far.client, auth, code.reveal(), options)
      return await oauth.processDeviceCodeResponse(server, far.client, response)
    } catch (cause) {
      if (!(cause instanceof oauth.ResponseBodyError)) throw cause
      if (cause.error === 'authorization_pending') told = 'pending'
      if (cause.error === 'slow_down') told = 'slow_down'
      const why = Object.hasOwn(DEVICE_ENDED, cause.error) ? DEVICE_ENDED[cause.error] : undefined
      if (why !== undefined) throw invalid(`Nothing was connected at ${far.host}. ${why}`)
      throw cause
    }
  })
  return asked.catch((cause: unknown) => {
    if (told !== undefined) return told
    throw cause
  })
}

function parameters({ scope, resource }: Pick<OauthRefreshConfig, 'scope' | 'resource'>): URLSearchParams {
  return new URLSearchParams({ ...(scope !== undefined && { scope }), ...(resource !== undefined && { resource }) })
}

function missing(setting: string): GatewayError {
  return new GatewayError(
    'credential_unconfigured',
    `Settings say nothing of ${setting}, and neither does the issuer. Name it.`,
  )
}

function invalid(detail: string): GatewayError {
  return new GatewayError('instruction_invalid', detail)
}

/** What of the wanted scope the human has granted; undefined: the server decides. */
function common(wanted: string | undefined, granted: string | undefined): string | undefined {
  if (wanted === undefined || granted === undefined) return wanted
  const given = new Set(granted.split(/[ ,]/))
  return (
    wanted
      .split(' ')
      .filter((scope) => given.has(scope))
      .join(' ') || undefined
  )
}

/** Scope that was granted but not asked for. Nothing asked: the client's registered scope is what settings chose. */
export function excessScope(asked: string | undefined, granted: string | undefined): readonly string[] {
  if (asked === undefined || granted === undefined) return []
  // Slack separates by commas.
  const wanted = new Set(asked.split(/[ ,]/))
  return granted.split(/[ ,]/).filter((scope) => scope !== '' && !wanted.has(scope))
}
