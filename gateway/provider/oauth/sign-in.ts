/**
 * Signing in of people at our own pages (OpenID Connect Core §3.1): authorization code with PKCE, `state` and `nonce`, an ID token whose
 * signature is checked although TLS brought it, and an age of the sign-in. No token is kept, and none of what the provider answers but
 * a name, a time and a method goes any further.
 */
import * as oauth from 'oauth4webapi'
import type { Clock } from '../../protocol/clock.ts'
import type { Human } from '../../protocol/grant.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { boundedFetch } from '../bounded-fetch.ts'
import { isReachedSafely } from '../endpoint-schema.ts'
import type { FetchFor } from '../provider.ts'
import type { ReadSecret } from '../reference.ts'
import type { SignInConfig } from './sign-in-schema.ts'

/** Seconds after which a sign-in is too old, unless settings say. */
const MAX_AUTH_AGE_S = 900
/** Milliseconds for all that is asked of the provider at once. */
const EXCHANGE_MS = 10_000
/** Characters of a name that the log and pages carry. */
const LONGEST_SUB = 255

/** What one browser keeps between leaving and coming back: `state`, `nonce`, PKCE verifier. */
export interface Leaving {
  readonly state: string
  readonly nonce: string
  readonly verifier: string
}

/** Somebody who has just proved to be it, with when. */
export type SignedIn = Human & { readonly authTime: number }

export interface SignIn {
  readonly issuer: string
  readonly maxAuthAgeS: number
  /** @returns where the browser goes. @throws {GatewayError} `upstream_broken` while the provider cannot be reached or used. */
  leave(redirectUri: string): Promise<{ readonly url: string; readonly leaving: Leaving }>
  /**
   * @param parameters query of the callback: attacker-controlled.
   * @throws {GatewayError} `subject_invalid` for what proves nobody.
   */
  arrive(parameters: URLSearchParams, leaving: Leaving, redirectUri: string): Promise<SignedIn>
}

interface Tools {
  readonly fetchFor: FetchFor
  readonly readSecret: ReadSecret
  readonly clock: Clock
}

export function createSignIn(config: SignInConfig, tools: Tools): SignIn {
  const maxAuthAgeS = config.max_auth_age_s ?? MAX_AUTH_AGE_S
  const far = { config, tools, maxAuthAgeS, fetch: tools.fetchFor(config.addresses ?? []) }
  let known: oauth.AuthorizationServer | undefined
  const server = async () => {
    known ??= await discover(far)
    return known
  }
  return {
    issuer: config.issuer,
    maxAuthAgeS,
    async leave(redirectUri) {
      const leaving = {
        state: oauth.generateRandomState(),
        nonce: oauth.generateRandomNonce(),
        verifier: oauth.generateRandomCodeVerifier(),
      }
      const url = new URL((await server()).authorization_endpoint ?? '')
      const asked = {
        response_type: 'code',
        client_id: config.client_id,
        redirect_uri: redirectUri,
        scope: 'openid',
        state: leaving.state,
        nonce: leaving.nonce,
        code_challenge: await oauth.calculatePKCECodeChallenge(leaving.verifier),
        code_challenge_method: 'S256',
        max_age: String(maxAuthAgeS), // OIDC Core §3.1.2.1: and `auth_time` is in the token then
        ...(config.acr && { acr_values: config.acr.join(' ') }),
      }
      for (const [name, value] of Object.entries(asked)) url.searchParams.set(name, value)
      return { url: url.href, leaving }
    },
    arrive: async (parameters, leaving, redirectUri) =>
      redeem(far, await server(), { parameters, leaving, redirectUri }),
  }
}

interface FarSide {
  readonly config: SignInConfig
  readonly tools: Tools
  readonly maxAuthAgeS: number
  readonly fetch: ReturnType<FetchFor>
}

interface Return {
  readonly parameters: URLSearchParams
  readonly leaving: Leaving
  readonly redirectUri: string
}

function optionsOf({ fetch, config }: FarSide) {
  const exchange = boundedFetch(fetch)
  return {
    signal: AbortSignal.timeout(EXCHANGE_MS),
    [oauth.customFetch]: (url: string, init: object) => exchange.fetch(url, init as RequestInit),
    // Settings accept http only for a literal address that `addresses` names.
    ...(config.issuer.startsWith('http:') && { [oauth.allowInsecureRequests]: true }),
  }
}

async function discover(far: FarSide): Promise<oauth.AuthorizationServer> {
  const issuer = new URL(far.config.issuer)
  let found: oauth.AuthorizationServer
  try {
    const response = await oauth.discoveryRequest(issuer, { algorithm: 'oidc', ...optionsOf(far) })
    found = await oauth.processDiscoveryResponse(issuer, response)
  } catch (cause) {
    throw unreachable(issuer.host, cause)
  }
  const ranges = far.config.addresses ?? []
  for (const name of ['authorization_endpoint', 'token_endpoint', 'jwks_uri'] as const) {
    const url = found[name]
    if (url !== undefined && URL.canParse(url) && isReachedSafely(url, ranges)) continue
    throw new GatewayError('upstream_broken', `The metadata of ${issuer.host} names no ${name} that is https.`)
  }
  return found
}

async function redeem(far: FarSide, server: oauth.AuthorizationServer, back: Return): Promise<SignedIn> {
  const { config, maxAuthAgeS, tools } = far
  const { leaving } = back
  // Time is the house's: the library reads the machine's own.
  const skewS = Math.round((tools.clock.nowMs() - Date.now()) / 1000)
  const client = { client_id: config.client_id, [oauth.clockSkew]: skewS, [oauth.clockTolerance]: 30 }
  const callback = answerOf(server, client, back)
  const options = optionsOf(far)
  let claims: oauth.IDToken | undefined
  try {
    const auth = await clientAuthentication(far)
    const code = [callback, back.redirectUri, leaving.verifier, options] as const
    const response = await oauth.authorizationCodeGrantRequest(server, client, auth, ...code)
    const answer = await oauth.processAuthorizationCodeResponse(server, client, response, {
      expectedNonce: leaving.nonce,
      maxAge: maxAuthAgeS,
      requireIdToken: true,
    })
    await oauth.validateApplicationLevelSignature(server, response, options)
    claims = oauth.getValidatedIdTokenClaims(answer)
  } catch (cause) {
    if (cause instanceof GatewayError) throw cause
    throw invalid(`What ${new URL(config.issuer).host} says of who signed in cannot be used. Sign in again.`, cause)
  }
  return humanOf(claims, config)
}

function answerOf(server: oauth.AuthorizationServer, client: oauth.Client, { parameters, leaving }: Return) {
  try {
    return oauth.validateAuthResponse(server, client, parameters, leaving.state)
  } catch (cause) {
    throw invalid(
      'What came back is not the answer to this sign-in, or says that nobody signed in. Begin again.',
      cause,
    )
  }
}

async function clientAuthentication({ config, tools }: FarSide): Promise<oauth.ClientAuth> {
  const { client_secret: reference, client_auth: way = 'client_secret_basic' } = config
  if (reference === undefined) return oauth.None()
  const secret = (await tools.readSecret(reference, AbortSignal.timeout(EXCHANGE_MS))).reveal()
  return way === 'client_secret_post' ? oauth.ClientSecretPost(secret) : oauth.ClientSecretBasic(secret)
}

function humanOf(claims: oauth.IDToken | undefined, { issuer, acr: wanted }: SignInConfig): SignedIn {
  if (claims === undefined) throw invalid('No ID token says who signed in. Sign in again.')
  const { sub, auth_time: authTime, amr, acr } = claims
  if (authTime === undefined) throw invalid(`${new URL(issuer).host} does not say when somebody signed in (auth_time).`)
  if (sub.length > LONGEST_SUB) throw invalid(`A name (sub) has at most ${LONGEST_SUB} characters here.`)
  if (wanted !== undefined && !(typeof acr === 'string' && wanted.includes(acr)))
    throw invalid('You signed in in a way that does not count for approvals here. Sign in with a stronger one.')
  return {
    iss: issuer,
    sub,
    authTime,
    ...(typeof acr === 'string' && acr.length <= LONGEST_SUB && { acr }),
    ...(isMethods(amr) && { amr }),
  }
}

function isMethods(amr: unknown): amr is string[] {
  return Array.isArray(amr) && amr.length <= 16 && amr.every((one) => typeof one === 'string' && one.length <= 64)
}

function unreachable(host: string, cause: unknown): GatewayError {
  const why = [cause, cause instanceof Error ? cause.cause : undefined].find((one) => one instanceof GatewayError)
  const told = why === undefined ? '' : ` (${why.code}: ${why.detail.replace(/\.$/, '')})`
  return new GatewayError('upstream_broken', `Nobody can sign in: the metadata of ${host} cannot be had${told}.`, {
    cause,
  })
}

function invalid(detail: string, cause?: unknown): GatewayError {
  return new GatewayError('subject_invalid', detail, { cause })
}
