/**
 * A token endpoint and its client: one request each, never repeated but for the nonce of a DPoP proof (RFC 9449 §8). What the server
 * answers is untrusted: bounded, parsed by `oauth4webapi`, and no part of it but a known error code reaches a message.
 */
import * as oauth from 'oauth4webapi'
import { GatewayError } from '../../protocol/problem.ts'
import type { Secret } from '../../protocol/secret.ts'
import { boundedFetch } from '../bounded-fetch.ts'
import type { FetchFor, GuardedFetch } from '../provider.ts'
import { type ClientProof, type ClientTools, proveClient } from './client-authentication.ts'
import type { EndpointConfig } from './client-schema.ts'
import { nonceIn, type Proofs } from './dpop.ts'
import type { TokenAnswer } from './token-credential.ts'
import { tokenFailure } from './token-failure.ts'

export interface TokenRequest {
  readonly grantType: string
  /** Made anew for every attempt: what a server has seen once it may refuse (RFC 7523 §3, `jti`). */
  parameters(): Promise<URLSearchParams>
  /** Key that the token is to be bound to. */
  readonly key?: Secret | undefined
}

export interface TokenEndpoint {
  /** How messages call it. */
  readonly server: string
  /** @throws {GatewayError} `credential_unavailable`, `credential_rejected`, and what reading a secret throws */
  request(asked: TokenRequest, signal: AbortSignal): Promise<TokenAnswer & Pick<ClientProof, 'parts'>>
  /** RFC 7009. Undefined where settings name no endpoint for it. */
  readonly revoke: ((token: Secret, signal: AbortSignal) => Promise<void>) | undefined
}

export type EndpointTools = ClientTools & { readonly fetchFor: FetchFor; readonly proofs: Proofs }

export function openTokenEndpoint(config: EndpointConfig, tools: EndpointTools): TokenEndpoint {
  const far = farSide(config, tools)
  return {
    server: far.name,
    async request(asked, signal) {
      try {
        return await requestOnce(far, asked, signal)
      } catch (cause) {
        if (!(cause instanceof NonceWanted)) throw cause
        // Once: a server that goes on asking would have us ask for ever.
        return await requestOnce(far, asked, signal)
      }
    },
    revoke: config.revocation_url === undefined ? undefined : (token, signal) => revoke(far, token, signal),
  }
}

/** One configured server, and how this client speaks to it. */
interface FarSide {
  readonly config: EndpointConfig
  readonly tools: EndpointTools
  readonly server: oauth.AuthorizationServer
  readonly client: oauth.Client
  /** One for all requests without a certificate: it holds connections, and lives as long as the gateway. */
  readonly fetch: GuardedFetch
  readonly host: string
  readonly name: string
  /** What the server gave last (RFC 9449 §8.2). Written only by `exchange`. */
  nonce: string | undefined
}

function farSide(config: EndpointConfig, tools: EndpointTools): FarSide {
  const { host } = new URL(config.token_url)
  return {
    config,
    tools,
    server: {
      issuer: config.assertion_audience ?? config.token_url,
      token_endpoint: config.token_url,
      ...(config.revocation_url !== undefined && { revocation_endpoint: config.revocation_url }),
    },
    // The library wants a name; of a client that has none it never travels.
    client: { client_id: config.client_id ?? 'nobody' },
    fetch: tools.fetchFor(config.addresses),
    host,
    name: `the authorization server at ${host}`,
    nonce: undefined,
  }
}

/** The proof was made without the nonce that the server wants, and it has given one. */
class NonceWanted extends GatewayError {}

async function requestOnce(far: FarSide, { grantType, parameters, key }: TokenRequest, signal: AbortSignal) {
  const proof = await proveClient(far.config, far.tools, signal)
  const asked = await parameters()
  const answer = await speak(far, { proof, key, signal }, async (options) => {
    const response = await oauth.genericTokenEndpointRequest(
      far.server,
      far.client,
      proof.authentication,
      grantType,
      asked,
      options,
    )
    // Members of the answer that are no business of ours: an ID token would be validated against a flow that there was not.
    const known = { recognizedTokenTypes: { n_a: () => undefined } }
    return oauth.processGenericTokenEndpointResponse(far.server, far.client, await withoutOthers(response), known)
  })
  return {
    token: answer.access_token,
    type: answer.token_type as string,
    expiresInS: answer.expires_in,
    scope: answer.scope,
    issuedType: typeof answer.issued_token_type === 'string' ? answer.issued_token_type : undefined,
    ...(proof.parts && { parts: proof.parts }),
  }
}

async function revoke(far: FarSide, token: Secret, signal: AbortSignal): Promise<void> {
  const proof = await proveClient(far.config, far.tools, signal)
  await speak(far, { proof, key: undefined, signal }, async (options) => {
    const hinted = { ...options, additionalParameters: { token_type_hint: 'access_token' } }
    const response = await oauth.revocationRequest(far.server, far.client, proof.authentication, token.reveal(), hinted)
    await oauth.processRevocationResponse(response)
  })
}

interface Speaking {
  readonly proof: ClientProof
  readonly key: Secret | undefined
  readonly signal: AbortSignal
}

/** One exchange with the server. @throws {GatewayError} for every failure; none repeats what was sent or answered. */
async function speak<T>(
  far: FarSide,
  { proof, key, signal }: Speaking,
  work: (options: oauth.TokenEndpointRequestOptions) => Promise<T>,
): Promise<T> {
  const { config, tools } = far
  const plain = proof.certificate === undefined ? far.fetch : tools.fetchFor(config.addresses, proof.certificate)
  const sentNonce = far.nonce
  const exchange = boundedFetch(async (url, init) => {
    const response = await plain(url, key === undefined ? init : proving(far, key, init))
    if (key !== undefined) far.nonce = nonceIn(response) ?? far.nonce
    return response
  })
  try {
    return await work({
      signal,
      [oauth.customFetch]: (url, init) => exchange.fetch(url, init as RequestInit),
      // Settings accept http only for a literal address that `addresses` names (endpoint-schema.ts).
      ...(config.token_url.startsWith('http:') && { [oauth.allowInsecureRequests]: true }),
    })
  } catch (cause) {
    const failure = tokenFailure(cause, {
      host: far.host,
      clientId: config.client_id,
      status: exchange.status(),
      retryAfterMs: exchange.retryAfterMs(),
      signal,
    })
    const isNonce = cause instanceof oauth.ResponseBodyError && cause.error === 'use_dpop_nonce'
    if (isNonce && far.nonce !== sentNonce) throw new NonceWanted(failure.code, failure.detail)
    throw failure
  }
}

function proving({ config, tools, nonce }: FarSide, key: Secret, init: RequestInit | undefined): RequestInit {
  const headers = new Headers(init?.headers)
  headers.set(
    'DPoP',
    tools.proofs.proof(key, { method: 'POST', url: config.token_url.split('?', 1)[0] as string, nonce }),
  )
  return { ...init, headers }
}

async function withoutOthers(response: Response): Promise<Response> {
  if (response.status !== 200) return response
  const text = await response.text()
  try {
    const { id_token: _id, refresh_token: _refresh, ...rest } = JSON.parse(text)
    return new Response(JSON.stringify(rest), response)
  } catch {
    return new Response(text, response)
  }
}
