/**
 * A real authorization server (`oidc-provider`) on loopback, cleartext or TLS, with one client for each way to authenticate;
 * and a false one that answers what a test tells it to.
 */
import { generateKeyPairSync, type KeyObject, randomBytes, webcrypto } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import '../../gateway/protocol/reflect.ts'
import * as x509 from '@peculiar/x509'
import { Provider } from 'oidc-provider'
import { Agent, fetch as undiciFetch } from 'undici'
import type { GuardedFetch } from '../../gateway/provider/provider.ts'

export const RESOURCE = 'https://api.billing.test'
export const SCOPES = 'invoices:read invoices:write'
export const TOKEN_LIFE_S = 300

export interface ClientKey {
  readonly id: string
  readonly alg: 'ES256' | 'RS256' | 'PS256' | 'Ed25519'
  readonly privateKey: KeyObject
  readonly kid: string
}

export interface AuthorizationServer {
  readonly issuer: string
  readonly tokenUrl: string
  readonly revocationUrl: string
  /** Clients `basic` and `post` share it: it holds characters that Basic has to escape (RFC 6749 appendix A.2). */
  readonly secret: string
  readonly keys: readonly ClientKey[]
  /** Reaches this server, its own certificate included. */
  readonly fetch: GuardedFetch
  /** Token requests that arrived. */
  readonly requests: () => number
  stop(): Promise<void>
}

export async function startAuthorizationServer(o: { tls?: boolean } = {}): Promise<AuthorizationServer> {
  const tls = o.tls === true ? await selfSigned() : undefined
  let listener: RequestListener = (_request, response) => response.destroy()
  let requests = 0
  const relay: RequestListener = (request, response) => {
    if (request.url?.startsWith('/token') && !request.url.includes('revocation')) requests += 1
    listener(request, response)
  }
  const server = tls === undefined ? createServer(relay) : createTlsServer(tls, relay)
  const issuer = `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${await listen(server)}`
  const keys = [clientKey('ES256'), clientKey('RS256'), clientKey('PS256'), clientKey('Ed25519')]
  const secret = `s:${randomBytes(12).toString('base64')}/+ %~`
  const provider = new Provider(issuer, configuration(keys, secret))
  listener = provider.callback()
  const agent = tls === undefined ? undefined : new Agent({ connect: { ca: tls.cert } })
  return {
    issuer,
    tokenUrl: `${issuer}/token`,
    revocationUrl: `${issuer}/token/revocation`,
    secret,
    keys,
    fetch: agent === undefined ? globalThis.fetch : fetchThrough(agent),
    requests: () => requests,
    async stop() {
      await agent?.close()
      await stop(server)
    },
  }
}

function fetchThrough(dispatcher: Agent): GuardedFetch {
  const fetch = undiciFetch as unknown as (url: unknown, init: object) => ReturnType<GuardedFetch>
  return (url, init) => fetch(url, { ...init, dispatcher })
}

function configuration(keys: readonly ClientKey[], secret: string): object {
  const signing = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
  const client = (id: string, authentication: object): object => ({
    client_id: id,
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
    scope: SCOPES,
    ...authentication,
  })
  return {
    clients: [
      client('basic', { token_endpoint_auth_method: 'client_secret_basic', client_secret: secret }),
      client('post', { token_endpoint_auth_method: 'client_secret_post', client_secret: secret }),
      ...keys.map(({ id, alg, kid, privateKey }) => {
        const { kty, crv, x, y, n, e } = privateKey.export({ format: 'jwk' })
        const jwk = JSON.parse(JSON.stringify({ kty, crv, x, y, n, e, kid, alg, use: 'sig' }))
        const authentication = { token_endpoint_auth_method: 'private_key_jwt', token_endpoint_auth_signing_alg: alg }
        return client(id, { ...authentication, jwks: { keys: [jwk] } })
      }),
    ],
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    cookies: { keys: [randomBytes(16).toString('hex')] },
    enabledJWA: { clientAuthSigningAlgValues: ['ES256', 'RS256', 'PS256', 'Ed25519'] },
    scopes: [...SCOPES.split(' '), 'admin'],
    jwks: { keys: [{ ...signing.export({ format: 'jwk' }), kid: 'server', alg: 'ES256', use: 'sig' }] },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_context: unknown, audience: string) => ({
          scope: `${SCOPES} admin`,
          audience,
          accessTokenFormat: 'jwt',
          accessTokenTTL: TOKEN_LIFE_S,
          jwt: { sign: { alg: 'ES256' } },
        }),
      },
    },
  }
}

function clientKey(alg: ClientKey['alg']): ClientKey {
  return { id: `jwt-${alg}`, alg, privateKey: privateKeyFor(alg), kid: `client-${alg}` }
}

export function privateKeyFor(alg: ClientKey['alg']): KeyObject {
  if (alg === 'ES256') return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
  if (alg === 'Ed25519') return generateKeyPairSync('ed25519').privateKey
  return generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
}

export const pem = (key: KeyObject): string => key.export({ format: 'pem', type: 'pkcs8' }).toString()

async function selfSigned(): Promise<{ key: string; cert: string }> {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
  const keys = (await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as webcrypto.CryptoKeyPair
  const cert = await x509.X509CertificateGenerator.createSelfSigned({
    name: 'CN=127.0.0.1',
    notBefore: new Date(Date.now() - 60_000),
    notAfter: new Date(Date.now() + 3_600_000),
    signingAlgorithm: algorithm,
    keys,
    extensions: [new x509.SubjectAlternativeNameExtension([{ type: 'ip', value: '127.0.0.1' }])],
  })
  const pkcs8 = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)
  return { key: x509.PemConverter.encode(pkcs8, 'PRIVATE KEY'), cert: cert.toString('pem') }
}

export interface FalseServer {
  readonly tokenUrl: string
  readonly requests: IncomingMessage[]
  /** What the next requests are answered. */
  answer: (request: IncomingMessage, response: ServerResponse, body: string) => void
  stop(): Promise<void>
}

export async function startFalseServer(): Promise<FalseServer> {
  const requests: IncomingMessage[] = []
  const server = createServer((request, response) => {
    requests.push(request)
    let body = ''
    request.setEncoding('utf8').on('data', (chunk: string) => {
      body += chunk
    })
    request.on('end', () => self.answer(request, response, body))
  })
  const self: FalseServer = {
    tokenUrl: `http://127.0.0.1:${await listen(server)}/token`,
    requests,
    answer: (_request, response) => response.destroy(),
    stop: () => stop(server),
  }
  return self
}

/** An answer of the token endpoint. */
export function json(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}

async function listen(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

async function stop(server: Server): Promise<void> {
  server.closeAllConnections()
  server.close()
  await once(server, 'close')
}
