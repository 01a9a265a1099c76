import { generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { decodeJwt, decodeProtectedHeader } from 'jose'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import type { Credential, GuardedFetch, Provider } from '../../gateway/provider/provider.ts'
import { createProvider, credentialSchema } from '../../gateway/provider/registry.ts'
import { providerConformance } from '../conformance/provider.ts'
import { grant, service } from '../lease/lease.fixture.ts'
import {
  type AuthorizationServer,
  type FalseServer,
  json,
  pem,
  RESOURCE,
  startAuthorizationServer,
  startFalseServer,
  TOKEN_LIFE_S,
} from './authorization-server.fixture.ts'
import { providerTools } from './tools.fixture.ts'

const dir = mkdtempSync(join(tmpdir(), 'keyless-oauth-'))
const LOOPBACK = ['127.0.0.1/32']
const CANARY = 'canary-token-0815'
let server: AuthorizationServer
let other: FalseServer

beforeAll(async () => {
  server = await startAuthorizationServer()
  other = await startFalseServer()
  writeFileSync(join(dir, 'secret'), `${server.secret}\n`)
  writeFileSync(join(dir, 'wrong'), 'canary-wrong-secret')
  for (const key of server.keys) writeFileSync(join(dir, `${key.alg}.pem`), pem(key.privateKey))
  writeFileSync(join(dir, 'unknown.pem'), pem(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey))
})

beforeEach(() => {
  other.answer = (_request, response) => response.destroy()
})

afterAll(async () => {
  await server.stop()
  await other.stop()
  rmSync(dir, { recursive: true, force: true })
})

function provider(settings: Record<string, unknown>, fetch: GuardedFetch = server.fetch): Provider {
  const config = credentialSchema.parse({
    provider: 'oauth_client_credentials',
    token_url: server.tokenUrl,
    addresses: LOOPBACK,
    resource: RESOURCE,
    scope: 'invoices:read',
    ...settings,
  })
  return createProvider(config, providerTools(dir, { fetchFor: () => fetch }))
}

const basic = (o: Record<string, unknown> = {}): Provider =>
  provider({ client_id: 'basic', client_auth: 'client_secret_basic', client_secret: { file: 'secret' }, ...o })
const post = (o: Record<string, unknown> = {}): Provider =>
  provider({ client_id: 'post', client_auth: 'client_secret_post', client_secret: { file: 'secret' }, ...o })
const jwt = (o: Record<string, unknown> = {}): Provider =>
  provider({ client_id: 'jwt-ES256', client_auth: 'private_key_jwt', key: { file: 'ES256.pem' }, ...o })

const issue = (from: Provider, signal = new AbortController().signal): Promise<Credential> =>
  from.issue({ service: service(), grant: grant(), ttlS: 300, role: undefined }, signal)

async function failure(from: Provider): Promise<GatewayError> {
  const error = await issue(from).catch((cause: unknown) => cause)
  expect(error).toBeInstanceOf(GatewayError)
  return error as GatewayError
}

for (const [name, make, wrong] of [
  ['client_secret_basic', basic, { client_secret: { file: 'wrong' } }],
  ['client_secret_post', post, { client_secret: { file: 'wrong' } }],
  ['private_key_jwt', jwt, { key: { file: 'unknown.pem' } }],
] as const) {
  providerConformance(`oauth_client_credentials with ${name}`, () => ({
    working: () => make(),
    isEphemeral: true,
    lifeS: TOKEN_LIFE_S,
    wider: () => [
      ['more scope', make({ scope: 'invoices:read invoices:write' })],
      ['no scope', make({ scope: undefined })],
      ['another client', make({ client_id: 'someone' })],
      ['another server', make({ token_url: other.tokenUrl })],
      ['another resource', make({ resource: 'https://other.test' })],
      ['another audience', make({ audience: 'https://other.test' })],
      ['another secret or key', make(wrong)],
    ],
    failing: () => [
      ['a wrong secret or key', 'credential_rejected', make(wrong)],
      ['an unknown client', 'credential_rejected', make({ client_id: 'nobody' })],
      ['an unregistered scope', 'credential_rejected', make({ scope: 'admin' })],
      ['a server that hangs up', 'credential_unavailable', make({ token_url: other.tokenUrl })],
      ['a server that is down', 'credential_unavailable', make({ token_url: 'http://127.0.0.1:1/token' })],
    ],
    hanging: () => {
      other.answer = () => undefined
      return make({ token_url: other.tokenUrl })
    },
    secrets: () => [server.secret, ...server.keys.map((key) => pem(key.privateKey))],
  }))
}

describe('against a real authorization server', () => {
  test('gets a JWT for the resource and scope asked for', async () => {
    const credential = await issue(basic())
    expect(decodeJwt(credential.secret.reveal())).toMatchObject({
      aud: RESOURCE,
      scope: 'invoices:read',
      client_id: 'basic',
    })
    expect(credential.scope).toBe('invoices:read')
  })

  test.each(['ES256', 'RS256', 'PS256', 'Ed25519'])(
    'authenticates with a %s key, as PEM where that says enough, else as JWK',
    async (alg) => {
      const key = server.keys.find((candidate) => candidate.alg === alg)
      if (key === undefined) throw new Error('no such key')
      writeFileSync(
        join(dir, `${alg}.jwk`),
        JSON.stringify({ ...key.privateKey.export({ format: 'jwk' }), alg, kid: key.kid }),
      )
      const files = alg === 'PS256' ? [`${alg}.jwk`] : [`${alg}.pem`, `${alg}.jwk`]
      for (const file of files) {
        const credential = await issue(jwt({ client_id: key.id, key: { file } }))
        expect(decodeJwt(credential.secret.reveal()).client_id).toBe(key.id)
      }
    },
  )

  test('works over TLS, and refuses a certificate it does not know', async () => {
    const secure = await startAuthorizationServer({ tls: true })
    writeFileSync(join(dir, 'tls-secret'), secure.secret)
    const settings = {
      token_url: secure.tokenUrl,
      client_id: 'basic',
      client_auth: 'client_secret_basic',
      client_secret: { file: 'tls-secret' },
    }
    expect((await issue(provider(settings, secure.fetch))).ephemeral).toBe(true)
    const error = await failure(provider(settings, globalThis.fetch))
    expect(error.code).toBe('credential_unavailable')
    expect(error.detail).toMatch(/DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED/)
    await secure.stop()
  })

  test('revokes at the revocation endpoint, and offers no revocation without one', async () => {
    expect(basic().revoke).toBeUndefined()
    const opaque = basic({ resource: undefined, revocation_url: server.revocationUrl })
    const credential = await issue(opaque)
    await opaque.revoke?.(credential, new AbortController().signal)
  })

  test('names what to change when the client is refused', async () => {
    const error = await failure(basic({ client_secret: { file: 'wrong' } }))
    expect(error.detail).toContain('invalid_client. Check client_id')
  })
})

describe('what is sent', () => {
  async function sent(from: Provider): Promise<{ body: URLSearchParams; authorization: string | undefined }> {
    let seen = new URLSearchParams()
    other.requests.length = 0
    other.answer = (_request, response, body) => {
      seen = new URLSearchParams(body)
      json(response, 200, { access_token: CANARY, token_type: 'Bearer', expires_in: 60 })
    }
    await issue(from)
    return { body: seen, authorization: other.requests[0]?.headers.authorization }
  }

  test('one request with scope, resources and audience', async () => {
    const { body } = await sent(
      basic({ token_url: other.tokenUrl, resource: ['https://a.test', 'https://b.test'], audience: 'api' }),
    )
    expect(body.get('grant_type')).toBe('client_credentials')
    expect(body.get('scope')).toBe('invoices:read')
    expect(body.getAll('resource')).toEqual(['https://a.test', 'https://b.test'])
    expect(body.get('audience')).toBe('api')
    expect(other.requests).toHaveLength(1)
  })

  test('Basic with both parts form-encoded (RFC 6749 §2.3.1), and no secret in the body', async () => {
    const { body, authorization } = await sent(basic({ token_url: other.tokenUrl, client_id: 'a:b' }))
    const [id = '', secret = ''] = Buffer.from(authorization?.slice(6) ?? '', 'base64')
      .toString()
      .split(':')
    const decoded = new URLSearchParams(`id=${id}&secret=${secret}`)
    expect([decoded.get('id'), decoded.get('secret')]).toEqual(['a:b', server.secret])
    expect(body.has('client_secret')).toBe(false)
  })

  test('an assertion for one audience, a minute long, with a fresh id each time', async () => {
    const ids = new Set<unknown>()
    for (const audience of [undefined, 'https://issuer.test']) {
      const { body } = await sent(jwt({ token_url: other.tokenUrl, kid: 'k1', assertion_audience: audience }))
      const assertion = body.get('client_assertion') ?? ''
      const claims = decodeJwt(assertion)
      expect(claims).toMatchObject({ aud: audience ?? other.tokenUrl, iss: 'jwt-ES256', sub: 'jwt-ES256' })
      expect((claims.exp ?? 0) - (claims.iat ?? 0)).toBe(60)
      expect(decodeProtectedHeader(assertion)).toMatchObject({ alg: 'ES256', kid: 'k1' })
      ids.add(claims.jti)
    }
    expect(ids.size).toBe(2)
  })
})

describe('what a server can answer', () => {
  const answers = (status: number, body: unknown): Provider => {
    other.answer = (_request, response) => json(response, status, body)
    return basic({ token_url: other.tokenUrl })
  }
  const token = { access_token: CANARY, token_type: 'Bearer' }

  test('no expires_in counts as five minutes', async () => {
    const beforeS = Math.floor(Date.now() / 1000)
    const { expiresAt } = await issue(answers(200, token))
    expect(expiresAt - beforeS).toBeGreaterThanOrEqual(300)
    expect(expiresAt - beforeS).toBeLessThanOrEqual(302)
  })

  test('no scope means the one asked for; less is taken; more is refused', async () => {
    expect((await issue(answers(200, token))).scope).toBe('invoices:read')
    expect((await issue(answers(200, { ...token, scope: '' }))).scope).toBe('')
    const error = await failure(answers(200, { ...token, scope: 'invoices:read admin' }))
    expect(error.code).toBe('credential_too_wide')
    expect(error.detail).toContain('admin')
  })

  test('a token that is too wide is revoked where that is possible', async () => {
    const revoked: string[] = []
    other.answer = (request, response, body) => {
      if (request.url === '/revoke') {
        revoked.push(new URLSearchParams(body).get('token') ?? '')
        response.end()
      } else json(response, 200, { ...token, scope: 'admin' })
    }
    const wide = basic({ token_url: other.tokenUrl, revocation_url: other.tokenUrl.replace('/token', '/revoke') })
    expect((await failure(wide)).code).toBe('credential_too_wide')
    expect(revoked).toEqual([CANARY])
  })

  test.each([
    ['an OAuth error', 400, { error: 'invalid_scope', error_description: CANARY }, 'credential_rejected'],
    ['an unknown error', 400, { error: CANARY }, 'credential_rejected'],
    ['an error named like a method of objects', 400, { error: 'constructor' }, 'credential_rejected'],
    ['unauthorized_client', 400, { error: 'unauthorized_client' }, 'credential_rejected'],
    ['a busy server', 400, { error: 'temporarily_unavailable' }, 'credential_unavailable'],
    ['401 with an OAuth error', 401, { error: 'invalid_client' }, 'credential_rejected'],
    ['404', 404, 'not here', 'credential_rejected'],
    ['a redirect', 302, {}, 'credential_rejected'],
    ['429', 429, { error: 'slow_down' }, 'credential_unavailable'],
    ['500', 500, { error: CANARY }, 'credential_unavailable'],
    ['503', 503, CANARY, 'credential_unavailable'],
    ['an empty object', 200, {}, 'credential_unavailable'],
    ['a list', 200, [CANARY], 'credential_unavailable'],
    ['an empty token', 200, { ...token, access_token: '' }, 'credential_unavailable'],
    ['a token that is none', 200, { ...token, access_token: 7 }, 'credential_unavailable'],
    ['a DPoP token', 200, { ...token, token_type: 'DPoP' }, 'credential_rejected'],
    ['a MAC token', 200, { ...token, token_type: 'mac' }, 'credential_unavailable'],
    ['a negative life', 200, { ...token, expires_in: -5 }, 'credential_unavailable'],
    ['a life that is no number', 200, { ...token, expires_in: 'soon' }, 'credential_unavailable'],
  ])('%s is refused with its code and without its text', async (_what, status, body, code) => {
    const error = await failure(answers(status, body))
    expect(error.code).toBe(code)
    expect(`${error.detail}${error.stack}`).not.toContain(CANARY)
    expect(error.cause).toBeUndefined()
  })

  test.each([
    ['seconds', { 'retry-after': '7' }, 7_000],
    ['a date', { 'retry-after': 'Thu, 01 Jan 2026 00:00:09 GMT', date: 'Thu, 01 Jan 2026 00:00:00 GMT' }, 9_000],
    [
      'a date that is over',
      { 'retry-after': 'Thu, 01 Jan 2026 00:00:00 GMT', date: 'Thu, 01 Jan 2026 00:00:09 GMT' },
      0,
    ],
    ['more than an hour', { 'retry-after': '999999' }, 3_600_000],
    ['nonsense', { 'retry-after': 'soon' }, undefined],
  ])('how long to wait is taken over from a busy server: %s', async (_what, headers, waitMs) => {
    other.answer = (_request, response) => {
      response.sendDate = false
      response.writeHead(503, headers).end()
    }
    expect((await failure(basic({ token_url: other.tokenUrl }))).retryAfterMs).toBe(waitMs)
  })

  test('an unbounded life is no life', async () => {
    other.answer = (_request, response) =>
      response
        .writeHead(200, { 'content-type': 'application/json' })
        .end(`{"access_token":"${CANARY}","token_type":"Bearer","expires_in":1e999}`)
    expect((await failure(basic({ token_url: other.tokenUrl }))).code).toMatch(/credential_(rejected|unavailable)/)
  })

  test('a challenge beside the error hides nothing', async () => {
    other.answer = (_request, response) => {
      response.setHeader('WWW-Authenticate', `Basic realm="${CANARY}"`)
      json(response, 401, { error: 'invalid_client' })
    }
    expect((await failure(basic({ token_url: other.tokenUrl }))).detail).toContain('invalid_client')
  })

  test('garbage, 204 and a body that breaks off are refused', async () => {
    const broken: ((response: Parameters<FalseServer['answer']>[1]) => void)[] = [
      (response) => response.writeHead(200, { 'content-type': 'text/html' }).end(`<html>${CANARY}</html>`),
      (response) => response.writeHead(204).end(),
      (response) => {
        response.writeHead(200, { 'content-type': 'application/json', 'content-length': 100 })
        response.write('{"access_token":', () => response.destroy())
      },
    ]
    for (const answer of broken) {
      other.answer = (_request, response) => answer(response)
      expect((await failure(basic({ token_url: other.tokenUrl }))).code).toMatch(/credential_(rejected|unavailable)/)
    }
  })

  test('an endless answer is cut off at 256 KiB', async () => {
    let sentBytes = 0
    other.answer = (_request, response) => {
      response.writeHead(200, { 'content-type': 'application/json' })
      const more = (): void => {
        if (response.destroyed) return
        sentBytes += 65_536
        response.write(' '.repeat(65_536), () => setImmediate(more))
      }
      more()
    }
    const error = await failure(basic({ token_url: other.tokenUrl }))
    expect(error.detail).toContain('larger than 256 KiB')
    expect(sentBytes).toBeLessThan(50_000_000)
  })

  test('a refusal of the guarded dial keeps its code when settings have to change', async () => {
    const guarded: GuardedFetch = async () => {
      throw new TypeError('fetch failed', { cause: new GatewayError('address_forbidden', '10.0.0.1 is private') })
    }
    const error = await failure(
      provider({ client_id: 'a', client_auth: 'client_secret_post', client_secret: { file: 'secret' } }, guarded),
    )
    expect(error.code).toBe('address_forbidden')
    expect(error.detail).toContain('10.0.0.1 is private')
  })

  test('every request goes through one fetch, made when the provider is', async () => {
    const asked: (readonly string[])[] = []
    const fetchFor = (addresses: readonly string[]) => {
      asked.push(addresses)
      return server.fetch
    }
    const config = credentialSchema.parse({
      provider: 'oauth_client_credentials',
      token_url: server.tokenUrl,
      addresses: LOOPBACK,
      client_id: 'basic',
      client_auth: 'client_secret_basic',
      client_secret: { file: 'secret' },
      resource: RESOURCE,
      scope: 'invoices:read',
    })
    const made = createProvider(config, providerTools(dir, { fetchFor }))
    await issue(made)
    await issue(made)
    expect(asked).toEqual([LOOPBACK]) // each further one would hold connections until the gateway stops
  })

  test('nothing is ever tried twice', async () => {
    other.requests.length = 0
    await failure(answers(503, {}))
    await failure(answers(429, {}))
    expect(other.requests).toHaveLength(2)
  })
})

describe('keys that cannot sign', () => {
  test.each([
    ['no key at all', 'canary-not-a-key'],
    ['a broken JWK', '{"kty":"EC","d":"canary"}'],
    ['another curve', pem(generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey)],
    ['a weak RSA key', pem(generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey)],
    ['a key for agreement', pem(generateKeyPairSync('x25519').privateKey)],
  ])('%s is refused without quoting it', async (_what, text) => {
    writeFileSync(join(dir, 'odd'), text)
    const error = await failure(jwt({ key: { file: 'odd' } }))
    expect(error.code).toBe('credential_unconfigured')
    expect(`${error.stack}`).not.toContain('canary')
    expect(error.cause).toBeUndefined()
  })
})
