/**
 * A service that people have accounts at: a real authorization server (`oidc-provider`), which rotates refresh tokens and ends the whole
 * family when an old one is shown again, offers device codes and revocation, and can be told to fail.
 */
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Provider } from 'oidc-provider'
import type { Browser, Page } from './browser.ts'

export const SCOPES = 'mail:read mail:write'

export interface Accounts {
  readonly issuer: string
  readonly clientSecret: string
  /** Whoever signs in next. */
  person: string
  /** Whether refresh tokens are replaced at each use. Default true. */
  rotates: boolean
  /** What the person agrees to. Default everything asked for. */
  consents: string | undefined
  /** Whether revoking an access token ends the refresh token too (RFC 7009 §2.1 lets servers choose). Default no. */
  endsTogether: boolean
  /** Does something to the next token requests instead of, or after, answering them: `lose`: work is done, the answer never comes. */
  mood: 'well' | 'error' | 'error_after' | 'lose' | 'empty'
  /** `grant_type` of every token request, and the token or code that came with it. */
  readonly asked: { readonly grantType: string; readonly token: string }[]
  /** Tokens that were revoked, with their hint. */
  readonly revoked: { readonly token: string; readonly hint: string }[]
  /** Whether an access token lives, whose it is, and for what (RFC 7662). */
  introspect(token: string): Promise<Introspected>
  /** Type a device code, and agree. */
  typeCode(person: string, at: Browser, url: string): Promise<Page>
  stop(): Promise<void>
}

interface Introspected {
  readonly active: boolean
  readonly sub?: string
  readonly scope?: string
}

/** @param callback registered redirect URI. */
export async function startAccounts(callback: string): Promise<Accounts> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const clientSecret = randomBytes(24).toString('base64url')
  const accounts = {
    person: 'ana',
    rotates: true,
    endsTogether: false,
    consents: undefined as string | undefined,
    mood: 'well' as Accounts['mood'],
  }
  const asked: { grantType: string; token: string }[] = []
  const revoked: { token: string; hint: string }[] = []
  const provider = new Provider(issuer, configuration(callback, clientSecret, accounts))
  const answer = provider.callback()
  const ended = new Set<string>()
  /** @returns whether nothing is left to say. */
  const revoke = (form: URLSearchParams, response: ServerResponse): boolean => {
    const [token, hint] = [form.get('token') ?? '', form.get('token_type_hint') ?? '']
    revoked.push({ token, hint })
    if (hint !== 'access_token' || accounts.endsTogether) return false // oidc-provider ends them together
    ended.add(token)
    response.writeHead(200).end()
    return true
  }
  /** The same. */
  const issue = (form: URLSearchParams, response: ServerResponse): boolean => {
    const token = form.get('refresh_token') ?? form.get('code') ?? form.get('device_code') ?? ''
    asked.push({ grantType: form.get('grant_type') ?? '', token })
    if (accounts.mood === 'error') response.writeHead(503).end('down')
    else if (accounts.mood !== 'well') spoil(response, accounts.mood)
    return accounts.mood === 'error'
  }
  server.on('request', async (request: IncomingMessage, response: ServerResponse) => {
    const { pathname } = new URL(request.url ?? '/', issuer)
    if (pathname.startsWith('/sign-in/')) return finish(provider, request, response, accounts)
    const own = { '/token': issue, '/token/revocation': revoke }[pathname]
    if (own === undefined) return answer(request, response)
    const form = new URLSearchParams(await readBody(request))
    if (own(form, response)) return
    Object.assign(request, { body: Object.fromEntries(form) })
    return answer(request, response)
  })
  const introspect = async (token: string): Promise<Introspected> => {
    if (ended.has(token)) return { active: false }
    const authorization = `Basic ${Buffer.from(`keyless:${clientSecret}`).toString('base64')}`
    const body = new URLSearchParams({ token })
    const answered = await fetch(`${issuer}/token/introspection`, { method: 'POST', headers: { authorization }, body })
    return (await answered.json()) as Introspected
  }
  return Object.assign(accounts, {
    issuer,
    clientSecret,
    asked,
    revoked,
    introspect,
    async typeCode(person: string, at: Browser, url: string) {
      accounts.person = person
      let page = await at.open(url)
      for (let steps = 0; page.text.includes('<form') && steps < 4; steps++)
        page = await at.submit(page, page.text.includes('Confirm Device') ? { confirm: 'yes' } : {})
      return page
    },
    async stop() {
      server.closeAllConnections()
      await once(server.close(), 'close')
    },
  })
}

/** The server does its work; what it says is lost, or is an error, or is nothing. */
function spoil(response: ServerResponse, mood: 'error_after' | 'lose' | 'empty'): void {
  response.end = ((..._said: unknown[]) => {
    if (mood === 'lose') response.socket?.destroy()
    else {
      response.writeHead = ServerResponsePrototype.writeHead
      response.end = ServerResponsePrototype.end
      for (const name of response.getHeaderNames()) response.removeHeader(name)
      response
        .writeHead(mood === 'empty' ? 200 : 500, { 'content-type': 'application/json', 'content-length': 0 })
        .end()
    }
    return response
  }) as never
  response.writeHead = (() => response) as never
}

const {
  ServerResponse: { prototype: ServerResponsePrototype },
} = await import('node:http')

function configuration(callback: string, secret: string, accounts: Pick<Accounts, 'rotates'>): object {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const client = {
    client_secret: secret,
    redirect_uris: [callback],
    response_types: ['code'],
    grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
    scope: `openid offline_access ${SCOPES}`,
  }
  return {
    clients: [
      { ...client, client_id: 'keyless' },
      { ...client, client_id: 'other' },
      { ...client, client_secret: undefined, client_id: 'public', token_endpoint_auth_method: 'none' },
    ],
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), kid: 'accounts', alg: 'ES256', use: 'sig' }] },
    cookies: { keys: [randomBytes(16).toString('hex')] },
    scopes: ['openid', 'offline_access', ...SCOPES.split(' ')],
    features: {
      devInteractions: { enabled: false },
      deviceFlow: { enabled: true },
      introspection: { enabled: true, allowedPolicy: async () => true },
      revocation: { enabled: true, allowedPolicy: async () => true },
    },
    ttl: { AccessToken: 600, RefreshToken: 86_400, DeviceCode: 600, Grant: 86_400 },
    pkce: { required: () => true },
    issueRefreshToken: async () => true,
    rotateRefreshToken: () => accounts.rotates,
    interactions: { url: (_context: unknown, { uid }: { uid: string }) => `/sign-in/${uid}` },
    findAccount: (_context: unknown, sub: string) => ({ accountId: sub, claims: () => ({ sub }) }),
  }
}

/** The login page: the person has just typed their password, and agrees. */
async function finish(
  provider: Provider,
  request: IncomingMessage,
  response: ServerResponse,
  { person, consents }: Pick<Accounts, 'person' | 'consents'>,
): Promise<void> {
  const { params, prompt } = await provider.interactionDetails(request, response)
  if (person === 'nobody')
    return provider.interactionFinished(request, response, { error: 'access_denied', error_description: '<b>no</b>' })
  if (prompt.name === 'login') return provider.interactionFinished(request, response, { login: { accountId: person } })
  const consent = new provider.Grant({ accountId: person, clientId: String(params.client_id) })
  consent.addOIDCScope(consents ?? String(params.scope))
  return provider.interactionFinished(request, response, { consent: { grantId: await consent.save() } })
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}
