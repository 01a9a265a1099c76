/**
 * A real OAuth authorization server for the demo and the tests: `oidc-provider` with the client credentials grant, three
 * clients that authenticate in three ways, and resource indicators that turn tokens into short-lived `at+jwt`s.
 */
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import type { RequestListener } from 'node:http'
import { Provider } from 'oidc-provider'

export const SCOPES = ['notes:read', 'notes:write', 'files', 'tokens'] as const

export interface IssuerOptions {
  /** `https://issuer.keyless.test:PORT` */
  readonly url: string
  /** The API that tokens are for: resource indicator and audience. */
  readonly resource: string
  /** Seconds a token lives. */
  readonly tokenTtlS: number
}

/** Generated at start; only their owner may read where they are written. */
export interface ClientKeys {
  readonly basic: { readonly id: string; readonly secret: string }
  readonly post: { readonly id: string; readonly secret: string }
  /** PKCS #8 PEM, ES256. */
  readonly jwt: { readonly id: string; readonly kid: string; readonly privateKeyPem: string }
}

export interface Issuer {
  readonly listener: RequestListener
  readonly clients: ClientKeys
  /** `jti` of every token issued so far, oldest first. */
  readonly issued: readonly string[]
}

export function createIssuer(options: IssuerOptions): Issuer {
  const signing = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const client = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const clients: ClientKeys = {
    basic: { id: 'keyless', secret: randomBytes(32).toString('base64url') },
    post: { id: 'keyless-post', secret: randomBytes(32).toString('base64url') },
    jwt: {
      id: 'keyless-jwt',
      kid: 'client-1',
      privateKeyPem: client.privateKey.export({ format: 'pem', type: 'pkcs8' }),
    },
  }
  const clientJwk = { ...client.publicKey.export({ format: 'jwk' }), kid: clients.jwt.kid, alg: 'ES256', use: 'sig' }
  const provider = new Provider(options.url, {
    adapter: MemoryAdapter,
    clients: [
      registration(clients.basic.id, {
        token_endpoint_auth_method: 'client_secret_basic',
        client_secret: clients.basic.secret,
      }),
      registration(clients.post.id, {
        token_endpoint_auth_method: 'client_secret_post',
        client_secret: clients.post.secret,
      }),
      registration(clients.jwt.id, {
        token_endpoint_auth_method: 'private_key_jwt',
        token_endpoint_auth_signing_alg: 'ES256',
        jwks: { keys: [clientJwk] },
      }),
    ],
    ...configuration(options),
    jwks: { keys: [{ ...signing.privateKey.export({ format: 'jwk' }), kid: 'issuer-1', alg: 'ES256', use: 'sig' }] },
  })
  const issued: string[] = []
  provider.on('client_credentials.issued', (token) => issued.push(token.jti))
  provider.on('server_error', (_context, cause) => console.error('demo issuer:', cause))
  return { listener: provider.callback(), clients, issued }
}

function configuration({ resource, tokenTtlS }: IssuerOptions): object {
  return {
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    cookies: { keys: [randomBytes(32).toString('base64url')] },
    scopes: SCOPES,
    ttl: { ClientCredentials: tokenTtlS },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => resource,
        getResourceServerInfo: (_context: unknown, indicator: string) => ({
          scope: SCOPES.join(' '),
          audience: indicator,
          accessTokenFormat: 'jwt',
          accessTokenTTL: tokenTtlS,
          jwt: { sign: { alg: 'ES256' } },
        }),
      },
    },
  }
}

function registration(id: string, authentication: object): object {
  return {
    client_id: id,
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
    scope: SCOPES.join(' '),
    ...authentication,
  }
}

/** What `oidc-provider` stores, for as long as this process lives. Client assertions are remembered, so none works twice. */
class MemoryAdapter {
  readonly #entries = new Map<string, { readonly payload: object; readonly expiresAtMs: number }>()

  async upsert(id: string, payload: object, expiresInS?: number): Promise<void> {
    const expiresAtMs = expiresInS === undefined ? Number.POSITIVE_INFINITY : Date.now() + expiresInS * 1000
    this.#entries.set(id, { payload, expiresAtMs })
  }

  async find(id: string): Promise<object | undefined> {
    const entry = this.#entries.get(id)
    if (entry && entry.expiresAtMs > Date.now()) return entry.payload
    this.#entries.delete(id)
    return undefined
  }

  async findByUid(): Promise<undefined> {}

  async findByUserCode(): Promise<undefined> {}

  async consume(id: string): Promise<void> {
    const entry = this.#entries.get(id)
    if (entry)
      this.#entries.set(id, { ...entry, payload: { ...entry.payload, consumed: Math.floor(Date.now() / 1000) } })
  }

  async destroy(id: string): Promise<void> {
    this.#entries.delete(id)
  }

  async revokeByGrantId(): Promise<void> {}
}
