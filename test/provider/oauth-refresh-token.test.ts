import { createSecretKey, generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { jwtVerify } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../gateway/protocol/clock.ts'
import { Secret } from '../../gateway/protocol/secret.ts'
import { connectionRows } from '../../gateway/provider/connection/connection.ts'
import { Refreshes } from '../../gateway/provider/connection/refresh.ts'
import type { Provider } from '../../gateway/provider/provider.ts'
import { createProvider, credentialSchema } from '../../gateway/provider/registry.ts'
import { createSealed } from '../../gateway/provider/sealed/sealed.ts'
import { openSqliteSealed } from '../../gateway/provider/sealed/sqlite.ts'
import { providerConformance } from '../conformance/provider.ts'
import { grant, service } from '../lease/lease.fixture.ts'
import { providerTools } from './tools.fixture.ts'

const dir = mkdtempSync(join(tmpdir(), 'keyless-oauth-refresh-'))
const clientSecret = `client-${randomUUID()}`
const refreshToken = `refresh-${randomUUID()}`
let server: Server
let base: string
/** What the token endpoint was sent, in order. */
const forms: URLSearchParams[] = []

/** First path segment → how the token endpoint answers. */
const answers: Readonly<Record<string, { status?: number; json?: object; hangs?: boolean }>> = {
  good: { json: { access_token: 'A', token_type: 'Bearer', expires_in: 300 } },
  wide: { json: { access_token: 'A', token_type: 'Bearer', expires_in: 300, scope: 'mail:read admin' } },
  invalid_grant: { status: 400, json: { error: 'invalid_grant', error_description: clientSecret } },
  invalid_client: { status: 401, json: { error: 'invalid_client' } },
  down: { status: 503 },
  empty: { status: 200 },
  bound: { json: { access_token: 'A', token_type: 'DPoP', expires_in: 300 } },
  hangs: { hangs: true },
  slack: {
    json: { ok: true, access_token: 'xoxe.xoxb-1', token_type: 'bot', expires_in: 43_200, refresh_token: 'xoxe-2' },
  },
  'slack-user': {
    json: {
      ok: true,
      authed_user: { access_token: 'xoxe.xoxp-1', token_type: 'user', expires_in: 43_200, refresh_token: 'xoxe-2' },
    },
  },
  'slack-ended': { json: { ok: false, error: 'invalid_refresh_token' } },
  'slack-busy': { json: { ok: false, error: 'ratelimited' } },
  'slack-odd': { json: { ok: false, error: clientSecret } },
}

beforeAll(async () => {
  const listener: RequestListener = async (request, response) => {
    forms.push(new URLSearchParams(await text(request)))
    const { status = 200, json, hangs } = answers[request.url?.split('/')[1] ?? ''] ?? { status: 404 }
    if (hangs) return
    const said =
      json === undefined
        ? ''
        : JSON.stringify({
            ...json,
            ...('access_token' in json && { access_token: `${json.access_token}-${randomUUID()}` }),
          })
    response.writeHead(status, { 'content-type': 'application/json' }).end(said)
  }
  server = createServer(listener)
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  process.env.KEYLESS_TEST_CLIENT = clientSecret
})
afterAll(() => {
  server.closeAllConnections()
  server.close()
  delete process.env.KEYLESS_TEST_CLIENT
  rmSync(dir, { recursive: true, force: true })
})

/** A provider whose connection was made a moment ago. */
function provider(mood: string, changes: object = {}): Provider {
  const settings = {
    provider: 'oauth_refresh_token',
    token_url: `${base}/${mood}`,
    client_id: 'keyless',
    client_auth: 'client_secret_post',
    client_secret: { env: 'KEYLESS_TEST_CLIENT' },
    scope: 'mail:read',
    addresses: ['127.0.0.1/32'],
    ...changes,
  }
  if ('key' in changes) delete (settings as { client_secret?: unknown }).client_secret
  const key = createSecretKey(randomBytes(32))
  const keys = { current: async () => ({ id: 0, key }), find: async () => key }
  const sealed = createSealed({
    rows: openSqliteSealed({ path: join(dir, `${randomUUID()}.sqlite`), clock: systemClock }),
    keys,
    tenant: 'acme',
  })
  const rows = connectionRows(sealed)
  const refreshes = new Refreshes({ rows, clock: systemClock, lost: async () => undefined })
  const { iss, sub } = grant().human
  const connected = rows.write(
    {
      credential: 'mail',
      human: { iss, sub },
      refreshToken: new Secret(refreshToken),
      issuedTo: JSON.stringify([settings.token_url, 'keyless']),
      connectedAt: 1,
      state: 'connected',
    },
    0,
  )
  const connections = {
    refreshes: {
      run: async (...given: Parameters<Refreshes['run']>) => {
        await connected
        return refreshes.run(...given)
      },
    },
    url: (credential: string) => `https://keyless.test/connect/${credential}`,
  }
  return createProvider(
    credentialSchema.parse(settings),
    providerTools(dir, { fetchFor: () => globalThis.fetch, connections }),
    'mail',
  )
}

providerConformance('oauth_refresh_token', () => ({
  working: () => provider('good'),
  isEphemeral: true,
  lifeS: 300,
  wider: () => [
    ['another server', provider('wide')],
    ['more scope', provider('good', { scope: 'mail:read mail:write' })],
    ['another client', provider('good', { client_id: 'other' })],
    ['for everybody', provider('good', { per: 'gateway' })],
    ['another resource', provider('good', { resource: 'https://mail.test' })],
  ],
  failing: () => [
    ['a connection that ended', 'reauthorize', provider('invalid_grant')],
    ['a client that is refused', 'credential_rejected', provider('invalid_client')],
    ['a server that is down', 'credential_unavailable', provider('down')],
    ['an answer of nothing', 'credential_unavailable', provider('empty')],
    ['a token of another type', 'credential_rejected', provider('bound')],
    ['more scope than was asked for', 'credential_too_wide', provider('wide')],
    ['nobody connected', 'reauthorize', provider('good', { per: 'gateway' })],
    ['a Slack connection that ended', 'reauthorize', provider('slack-ended', { answers: 'slack' })],
    ['a Slack that is busy', 'credential_unavailable', provider('slack-busy', { answers: 'slack' })],
    ['a Slack that says something else', 'credential_rejected', provider('slack-odd', { answers: 'slack' })],
  ],
  hanging: () => provider('hangs'),
  secrets: () => [clientSecret, refreshToken],
}))

describe('oauth_refresh_token', () => {
  const request = { service: service(), grant: grant(), ttlS: 300, role: undefined }
  const patient = () => new AbortController().signal

  it('says for whom what is to be connected, and where', async () => {
    const detail = await provider('invalid_grant')
      .issue(request, patient())
      .catch((cause: Error) => cause.message)
    const { iss, sub } = grant().human
    expect(detail).toContain(`keyless connect mail --for "${iss} ${sub}"`)
    expect(detail).toContain('https://keyless.test/connect/mail')
  })

  it('proves by a signature who it is, where the client has a key and no secret', async () => {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    writeFileSync(join(dir, 'client.pem'), privateKey.export({ type: 'pkcs8', format: 'pem' }))
    await provider('good', { client_auth: 'private_key_jwt', key: { file: 'client.pem' } }).issue(request, patient())
    const sent = forms.at(-1)
    expect(sent?.has('client_secret')).toBe(false)
    const { payload } = await jwtVerify(sent?.get('client_assertion') ?? '', publicKey, { subject: 'keyless' })
    expect(payload.aud).toBe(`${base}/good`)
  })

  it.each(['slack', 'slack-user'])('takes the tokens of Slack, which are of types of their own: %s', async (mood) => {
    const credential = await provider(mood, { answers: 'slack', scope: undefined }).issue(request, patient())
    expect(credential.secret.reveal()).toMatch(/^xoxe\.xox[bp]-1/)
    expect(credential.expiresAt).toBeGreaterThan(Date.now() / 1000 + 43_000)
  })

  it.each([
    ['a secret in the clear', { client_secret: 'canary' }, /never written into settings/],
    ['cleartext to a name', { token_url: 'http://id.acme.test/token' }, /not https/],
    ['neither issuer nor endpoint', { token_url: undefined }, /give token_url, or issuer/],
    ['a parameter that is ours', { authorization_params: { redirect_uri: 'https://evil.test' } }, /sets itself/],
    ['a setting that does not exist', { revoke: true }, /revoke/],
  ])('settings with %s are refused', (_what, changes, words) => {
    const settings = {
      provider: 'oauth_refresh_token',
      token_url: 'https://id.acme.test/token',
      client_id: 'keyless',
      client_auth: 'client_secret_post',
      client_secret: { env: 'A' },
      ...changes,
    }
    const { error } = credentialSchema.safeParse(JSON.parse(JSON.stringify(settings)))
    expect(error?.message).toMatch(words)
    expect(error?.message).not.toContain('canary')
  })
})
