/**
 * An identity provider for people: `oidc-provider` over TLS, with a login page that asks nothing. People sign in at it as they do
 * anywhere, by authorization code and PKCE, and what comes out is a real ID token.
 */
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { Provider } from 'oidc-provider'
import * as openid from 'openid-client'
import { Agent, fetch as undiciFetch } from 'undici'
import { throwAwayTls } from '../../deploy/demo/certificate.ts'

export const IDP_HOST = 'id.acme.test'

export interface IdentityProvider {
  /** `https://id.acme.test:PORT` */
  readonly issuer: string
  readonly jwksUri: string
  /** `aud` of its ID tokens. */
  readonly clientId: string
  /** Root certificate of its TLS. */
  readonly caPem: string
  /** @returns the ID token of a person who has just signed in. */
  signIn(person: string): Promise<string>
  stop(): Promise<void>
}

const CLIENT_ID = 'keyless-cli'
const REDIRECT_URI = 'http://127.0.0.1/signed-in'

export async function startIdentityProvider(): Promise<IdentityProvider> {
  const tls = await throwAwayTls([IDP_HOST])
  const server = createServer(tls)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const issuer = `https://${IDP_HOST}:${(server.address() as AddressInfo).port}`
  const provider = new Provider(issuer, configuration())
  const callback = provider.callback()
  server.on('request', (request, response) => {
    if (request.url?.startsWith('/sign-in/')) void finish(provider, request, response)
    else void callback(request, response)
  })
  const dispatcher = new Agent({
    connect: { ca: tls.caPem, lookup: (_name, _options, done) => done(null, [{ address: '127.0.0.1', family: 4 }]) },
  })
  const fetchHere = (url: string | URL, init: object = {}) =>
    undiciFetch(url, { ...init, dispatcher }) as unknown as Promise<Response>
  return {
    issuer,
    jwksUri: `${issuer}/jwks`,
    clientId: CLIENT_ID,
    caPem: tls.caPem,
    signIn: (person) => signIn(person, issuer, fetchHere),
    async stop() {
      await dispatcher.close()
      server.closeAllConnections()
      await once(server.close(), 'close')
    },
  }
}

function configuration(): object {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return {
    clients: [
      {
        client_id: CLIENT_ID,
        application_type: 'native',
        token_endpoint_auth_method: 'none',
        redirect_uris: [REDIRECT_URI],
        grant_types: ['authorization_code'],
        response_types: ['code'],
        require_auth_time: true,
      },
    ],
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), kid: 'idp-1', alg: 'ES256', use: 'sig' }] },
    cookies: { keys: [randomBytes(32).toString('base64url')] },
    claims: { openid: ['sub', 'amr', 'auth_time'] },
    features: { devInteractions: { enabled: false } },
    interactions: { url: (_context: unknown, { uid }: { uid: string }) => `/sign-in/${uid}` },
    findAccount: (_context: unknown, sub: string) => ({ accountId: sub, claims: () => ({ sub }) }),
  }
}

/** The login page: whoever is named by `login_hint` has just typed a password and a code, and agrees to everything. */
async function finish(provider: Provider, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { params, prompt } = await provider.interactionDetails(request, response)
  const accountId = String(params.login_hint)
  if (prompt.name === 'login') {
    return provider.interactionFinished(request, response, { login: { accountId, amr: ['pwd', 'otp'] } })
  }
  const consent = new provider.Grant({ accountId, clientId: CLIENT_ID })
  consent.addOIDCScope('openid')
  return provider.interactionFinished(request, response, { consent: { grantId: await consent.save() } })
}

type Fetch = (url: string | URL, init?: object) => Promise<Response>

async function signIn(person: string, issuer: string, fetchHere: Fetch): Promise<string> {
  const config = await openid.discovery(new URL(issuer), CLIENT_ID, { require_auth_time: true }, openid.None(), {
    [openid.customFetch]: fetchHere as openid.CustomFetch,
  })
  const verifier = openid.randomPKCECodeVerifier()
  let next: URL = openid.buildAuthorizationUrl(config, {
    redirect_uri: REDIRECT_URI,
    scope: 'openid',
    login_hint: person,
    code_challenge: await openid.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
  })
  const cookies = new Map<string, string>()
  while (!next.href.startsWith(REDIRECT_URI)) {
    const headers = { cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; ') }
    const answer = await fetchHere(next, { headers, redirect: 'manual' })
    const location = answer.headers.get('location')
    if (location === null) throw new Error(`the identity provider answered ${answer.status}: ${await answer.text()}`)
    for (const cookie of answer.headers.getSetCookie()) {
      const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(cookie) ?? []
      if (value === '') cookies.delete(name)
      else cookies.set(name, value)
    }
    next = new URL(location, next)
  }
  const tokens = await openid.authorizationCodeGrant(config, next, { pkceCodeVerifier: verifier })
  if (tokens.id_token === undefined) throw new Error('the identity provider gave no ID token')
  return tokens.id_token
}
