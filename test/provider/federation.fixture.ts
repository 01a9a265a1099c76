/**
 * A real authorization server (`oidc-provider`) over TLS that asks for certificates, binds tokens to DPoP keys, wants nonces, and takes the
 * gateway's assertions: for an exchange, as a grant, and for an ID-JAG, which a second one takes.
 */
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { exportJWK, generateKeyPair, type JWTPayload, type JWTVerifyGetKey, jwtVerify, SignJWT } from 'jose'
import { errors, Provider } from 'oidc-provider'
import { Agent, fetch as undiciFetch } from 'undici'
import type { FetchFor } from '../../gateway/provider/provider.ts'
import { type Authority, makeAuthority } from '../upstream/certificate.fixture.ts'

export const API = 'https://api.billing.test'
export const SECRET = 'canary-client-secret-of-the-federation'
export const LIFE_S = 300
const URN = 'urn:ietf:params:oauth:'

export interface Federation {
  readonly issuer: string
  readonly tokenUrl: string
  readonly fetchFor: FetchFor
  readonly authority: Authority
  /** A certificate that client `certified` is known by, and one that is known only by itself. */
  readonly certified: { readonly cert: string; readonly key: string }
  readonly selfSigned: { readonly cert: string; readonly key: string }
  /** Bodies of the token requests, newest last. */
  readonly asked: URLSearchParams[]
  /** Changes what an exchange or a grant is answered. */
  answer: Record<string, unknown>
  stop(): Promise<void>
}

interface FederationOptions {
  /** Keys of the assertions that are taken, and their issuer. */
  readonly keys: JWTVerifyGetKey
  readonly assertedBy: string
  /** Every proof needs a nonce. */
  readonly wantsNonce?: boolean
}

export async function startFederation(o: FederationOptions): Promise<Federation> {
  const authority = await makeAuthority()
  const [door, certified, selfSigned] = await Promise.all([
    authority.issue(['127.0.0.1']),
    authority.issue(['keyless']),
    authority.issue(['alone']),
  ])
  const asked: URLSearchParams[] = []
  let listener = (_request: IncomingMessage, response: ServerResponse): unknown => response.destroy()
  const server = createServer(
    { ...door, ca: authority.pem, requestCert: true, rejectUnauthorized: false },
    (request, response) => {
      if (request.url === '/token') gather(request, asked)
      listener(request, response)
    },
  )
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const issuer = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
  const signing = await generateKeyPair('ES256', { extractable: true })
  const provider = new Provider(
    issuer,
    await configuration(o, { signing: signing.privateKey, selfSigned: selfSigned.cert }),
  )
  const self: Federation = {
    ...{ issuer, authority, certified, selfSigned, asked },
    tokenUrl: `${issuer}/token`,
    fetchFor: fetchTrusting(authority.pem),
    answer: {},
    async stop() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
  addGrants(provider, { ...o, issuer, key: signing.privateKey, answer: () => self.answer })
  listener = provider.callback()
  return self
}

function gather(request: IncomingMessage, asked: URLSearchParams[]): void {
  let body = ''
  request.on('data', (chunk: Buffer) => {
    body += chunk.toString()
  })
  request.on('end', () => asked.push(new URLSearchParams(body)))
}

function fetchTrusting(ca: string): FetchFor {
  return (_addresses, certificate) => {
    const connect = certificate === undefined ? { ca } : { secureContext: certificate.secureContext({ ca }) }
    const dispatcher = new Agent({ connect })
    return ((url: string, init: object) => undiciFetch(url, { ...init, dispatcher })) as unknown as typeof fetch
  }
}

async function configuration(
  { wantsNonce }: FederationOptions,
  { signing, selfSigned }: { readonly signing: CryptoKey; readonly selfSigned: string },
): Promise<object> {
  const grants = ['client_credentials', `${URN}grant-type:token-exchange`, `${URN}grant-type:jwt-bearer`]
  const client = (id: string, authentication: object): object => ({
    client_id: id,
    ...{ grant_types: grants, redirect_uris: [], response_types: [], scope: 'read write' },
    ...authentication,
  })
  const { publicKey, raw } = new X509Certificate(selfSigned)
  const known = { ...publicKey.export({ format: 'jwk' }), x5c: [raw.toString('base64')], use: 'sig' }
  return {
    clients: [
      client('keyless', { token_endpoint_auth_method: 'client_secret_basic', client_secret: SECRET }),
      client('public', { token_endpoint_auth_method: 'none', grant_types: grants.slice(1) }),
      client('certified', {
        token_endpoint_auth_method: 'tls_client_auth',
        tls_client_auth_san_dns: 'keyless',
        tls_client_certificate_bound_access_tokens: true,
      }),
      client('alone', { token_endpoint_auth_method: 'self_signed_tls_client_auth', jwks: { keys: [known] } }),
    ],
    clientAuthMethods: ['client_secret_basic', 'none', 'tls_client_auth', 'self_signed_tls_client_auth'],
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    cookies: { keys: ['test'] },
    scopes: ['read', 'write', 'admin'],
    jwks: { keys: [{ ...(await exportJWK(signing)), kid: 'server', alg: 'ES256', use: 'sig' }] },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      dPoP: { enabled: true, nonceSecret: Buffer.alloc(32, 7), requireNonce: () => wantsNonce === true },
      mTLS: {
        ...{ enabled: true, certificateBoundAccessTokens: true, tlsClientAuth: true, selfSignedTlsClientAuth: true },
        getCertificate: (ctx: Ctx) => peer(ctx)?.toString(),
        certificateAuthorized: (ctx: Ctx) => (ctx.req.socket as TLSSocket).authorized,
        certificateSubjectMatches: (ctx: Ctx, _property: string, expected: string) =>
          peer(ctx)?.subjectAltName === `DNS:${expected}`,
      },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_context: unknown, audience: string) => ({
          ...{ scope: 'read write', audience, accessTokenFormat: 'jwt', accessTokenTTL: LIFE_S },
          jwt: { sign: { alg: 'ES256' } },
        }),
      },
    },
  }
}

interface Ctx {
  readonly req: IncomingMessage
  readonly oidc: { readonly params: Record<string, string>; readonly client: { readonly clientId: string } }
  body: unknown
}

function peer(ctx: Ctx): X509Certificate | undefined {
  return (ctx.req.socket as TLSSocket).getPeerX509Certificate()
}

interface GrantParts extends FederationOptions {
  readonly issuer: string
  readonly key: CryptoKey
  answer(): Record<string, unknown>
}

function addGrants(provider: Provider, parts: GrantParts): void {
  const names =
    'audience resource scope requested_token_type subject_token subject_token_type actor_token actor_token_type'
  const exchange = (ctx: unknown) => exchanged(ctx as Ctx, parts)
  const bearer = (ctx: unknown) => takeGrant(ctx as Ctx, parts)
  const many = ['audience', 'resource']
  provider.registerGrantType(`${URN}grant-type:token-exchange`, exchange, names.split(' '), many)
  provider.registerGrantType(
    `${URN}grant-type:jwt-bearer`,
    bearer,
    ['assertion', 'scope', 'resource', 'audience'],
    many,
  )
}

/** RFC 8693 as a strict server does it: both tokens are verified, and the human's names the agent that may act for it (§4.4). */
async function exchanged(ctx: Ctx, parts: GrantParts): Promise<void> {
  const { params } = ctx.oidc
  const subject = await verified(params.subject_token, parts)
  if (params.requested_token_type?.endsWith(':id-jag')) {
    ctx.body = { ...(await idJag(ctx, subject, parts)), ...parts.answer() }
    return
  }
  const actor = params.actor_token === undefined ? undefined : await verified(params.actor_token, parts)
  const mayAct = (subject.may_act as { sub?: string } | undefined)?.sub
  if (actor !== undefined && actor.sub !== mayAct) throw new errors.InvalidRequest('the actor may not act')
  const acting = actor && { act: { sub: actor.sub, act: actor.act } }
  const claims = { sub: String(subject.sub), ...acting, task: subject.task }
  ctx.body = {
    access_token: await token(claims, ctx, parts),
    issued_token_type: `${URN}token-type:access_token`,
    ...{ token_type: 'Bearer', expires_in: LIFE_S, scope: params.scope },
    ...parts.answer(),
  }
}

/** RFC 7523 §3, and of an ID-JAG what its draft adds. */
async function takeGrant(ctx: Ctx, parts: GrantParts): Promise<void> {
  const grant = await verified(ctx.oidc.params.assertion, parts)
  if (grant.client_id !== undefined && grant.client_id !== ctx.oidc.client.clientId)
    throw new errors.InvalidGrant('for another client')
  const scope = grant.scope ?? ctx.oidc.params.scope
  const access = await token({ sub: String(grant.sub), act: grant.act, aud: String(grant.resource ?? API) }, ctx, parts)
  ctx.body = { access_token: access, token_type: 'Bearer', expires_in: LIFE_S, scope, ...parts.answer() }
}

async function idJag({ oidc: { params } }: Ctx, subject: JWTPayload, { issuer, key }: GrantParts): Promise<object> {
  const jwt = new SignJWT({ client_id: 'keyless', scope: params.scope, resource: params.resource, act: subject.act })
    .setProtectedHeader({ alg: 'ES256', kid: 'server', typ: 'oauth-id-jag+jwt' })
    .setIssuer(issuer)
    .setSubject(String(subject.sub))
    .setAudience(params.audience as string)
    .setIssuedAt()
    .setExpirationTime('5m')
    .setJti('one')
  return {
    access_token: await jwt.sign(key),
    issued_token_type: `${URN}token-type:id-jag`,
    ...{ token_type: 'N_A', expires_in: 300, scope: params.scope },
  }
}

async function verified(text: string | undefined, { keys, issuer, assertedBy }: GrantParts): Promise<JWTPayload> {
  try {
    return (await jwtVerify(text ?? '', keys, { audience: issuer, issuer: assertedBy })).payload
  } catch {
    throw new errors.InvalidGrant('not acceptable')
  }
}

function token(claims: JWTPayload, { oidc }: Ctx, { issuer, key }: GrantParts): Promise<string> {
  return new SignJWT({
    aud: oidc.params.resource ?? oidc.params.audience ?? API,
    ...claims,
    client_id: oidc.client.clientId,
  })
    .setProtectedHeader({ alg: 'ES256', kid: 'server', typ: 'at+jwt' })
    .setIssuer(issuer)
    .setIssuedAt()
    .setExpirationTime(`${LIFE_S}s`)
    .sign(key)
}
