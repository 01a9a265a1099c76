/** Tokens for tokens, at a server that verifies what it is shown with the keys that the gateway publishes. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createLocalJWKSet, decodeJwt, decodeProtectedHeader, type JSONWebKeySet } from 'jose'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { systemClock } from '../../gateway/protocol/clock.ts'
import type { GatewayError } from '../../gateway/protocol/problem.ts'
import { createAssertions } from '../../gateway/provider/assertions.ts'
import type { Credential, Provider } from '../../gateway/provider/provider.ts'
import { createProvider, credentialSchema } from '../../gateway/provider/registry.ts'
import { loadKeys, makeKeys } from '../../gateway/settings/keys.ts'
import { providerConformance } from '../conformance/provider.ts'
import { grant, service } from '../lease/lease.fixture.ts'
import { type FalseServer, json, startFalseServer } from './authorization-server.fixture.ts'
import { API, type Federation, LIFE_S, SECRET, startFederation } from './federation.fixture.ts'
import { providerTools } from './tools.fixture.ts'

const ISSUER = 'https://keyless.acme.test/assertions'
const URN = 'urn:ietf:params:oauth:token-type:'
const dir = mkdtempSync(join(tmpdir(), 'keyless-exchange-'))
let federation: Federation
let far: Federation
let other: FalseServer
let assertions: ReturnType<typeof createAssertions>

beforeAll(async () => {
  writeFileSync(join(dir, 'secret'), SECRET)
  writeFileSync(join(dir, 'wrong'), 'canary-wrong-secret')
  await makeKeys(dir)
  assertions = createAssertions((await loadKeys(dir)).assertions, ISSUER, systemClock)
  const keys = createLocalJWKSet((await assertions.jwks()) as JSONWebKeySet)
  federation = await startFederation({ keys, assertedBy: ISSUER })
  const published = (await (await federation.fetchFor([])(`${federation.issuer}/jwks`)).json()) as JSONWebKeySet
  far = await startFederation({ keys: createLocalJWKSet(published), assertedBy: federation.issuer })
  other = await startFalseServer()
})
beforeEach(() => {
  federation.answer = {}
  far.answer = {}
  other.answer = (_request, response) => response.destroy()
})
afterAll(async () => {
  await Promise.all([federation.stop(), far.stop(), other.stop()])
  rmSync(dir, { recursive: true, force: true })
})

const tools = () =>
  providerTools(dir, {
    assertions,
    // Each server has a CA of its own.
    fetchFor: (...args) => {
      const [near, beyond] = [federation.fetchFor(...args), far.fetchFor(...args)]
      return (input, init) => (String(input).startsWith(far.issuer) ? beyond(input, init) : near(input, init))
    },
  })
const make = (settings: Record<string, unknown>): Provider => createProvider(credentialSchema.parse(settings), tools())

const basic = { client_auth: 'client_secret_basic', client_id: 'keyless', client_secret: { file: 'secret' } }
const exchange = (o: Record<string, unknown> = {}): Provider =>
  make({
    provider: 'oauth_token_exchange',
    ...{ token_url: federation.tokenUrl, assertion_audience: federation.issuer, addresses: ['127.0.0.1/32'] },
    ...{ scope: 'read', resource: API },
    ...basic,
    ...o,
  })
const bearer = (o: Record<string, unknown> = {}): Provider =>
  make({
    provider: 'oauth_jwt_bearer',
    ...{ token_url: federation.tokenUrl, assertion_audience: federation.issuer, addresses: ['127.0.0.1/32'] },
    ...{ scope: 'read', resource: API },
    ...basic,
    ...o,
  })
const idJag = (o: Record<string, unknown> = {}): Provider =>
  make({
    provider: 'oauth_id_jag',
    idp: { token_url: federation.tokenUrl, assertion_audience: federation.issuer, ...basic },
    subject_token_type: 'jwt',
    ...{ token_url: far.tokenUrl, assertion_audience: far.issuer, addresses: ['127.0.0.1/32'] },
    ...{ scope: 'read', resource: API },
    ...basic,
    ...o,
  })

const lineage = [
  { n: 0, type: 'human', id: 'ana' },
  { n: 1, type: 'ai_agent', id: 'spiffe://test/planner', grant: 'g0' },
  { n: 2, type: 'ai_agent', id: 'spiffe://test/agent', grant: 'g1' },
] as const
const issue = (from: Provider, on = grant({ lineage })): Promise<Credential> =>
  from.issue({ service: service(), grant: on, ttlS: 300, role: undefined }, new AbortController().signal)
const failure = (from: Provider): Promise<GatewayError> =>
  issue(from).then(
    () => Promise.reject(new Error('issued')),
    (cause) => cause,
  )
const claimsOf = async (from: Provider) => decodeJwt((await issue(from)).secret.reveal())

for (const [name, by] of [
  ['oauth_token_exchange', exchange],
  ['oauth_jwt_bearer', bearer],
  ['oauth_id_jag', idJag],
] as const) {
  providerConformance(name, () => ({
    working: () => by(),
    isEphemeral: true,
    lifeS: LIFE_S,
    wider: () => [
      ['more scope', by({ scope: 'read write' })],
      ['no scope', by({ scope: undefined })],
      ['another resource', by({ resource: 'https://other.test' })],
      ['another client', by({ client_id: 'someone' })],
      ['another secret', by({ client_secret: { file: 'wrong' } })],
      ['another server', by({ token_url: other.tokenUrl })],
      ['another issuer', by({ assertion_audience: 'https://other.test' })],
      ['bound to a key', by({ dpop: true })],
    ],
    failing: () => [
      ['a wrong secret', 'credential_rejected', by({ client_secret: { file: 'wrong' } })],
      ['an unknown client', 'credential_rejected', by({ client_id: 'nobody' })],
      ['a server that hangs up', 'credential_unavailable', by({ token_url: other.tokenUrl })],
      ['a token that is not bound', 'credential_rejected', by({ dpop: true })],
    ],
    hanging: () => {
      other.answer = () => undefined
      return by({ token_url: other.tokenUrl })
    },
    secrets: () => [SECRET, 'canary-wrong-secret'],
  }))
}

describe('an exchange', () => {
  test('gives a token about the human, with every agent through which it was asked for', async () => {
    const claims = await claimsOf(exchange())
    expect(claims).toMatchObject({ sub: 'ana', aud: API, task: 'task-1' })
    expect(claims.act).toEqual({ sub: 'spiffe://test/agent', act: { sub: 'spiffe://test/planner' } })
  })

  test('shows an assertion for each, made for this server, minutes long, never the same', async () => {
    federation.asked.length = 0
    await issue(exchange())
    await issue(exchange())
    const ids = new Set<unknown>()
    for (const asked of federation.asked) {
      expect(asked.get('subject_token_type')).toBe(`${URN}jwt`)
      for (const name of ['subject_token', 'actor_token']) {
        const token = asked.get(name) ?? ''
        const { iat = 0, exp = 0, jti, ...claims } = decodeJwt(token)
        expect(claims).toMatchObject({ iss: ISSUER, aud: federation.issuer, lineage_hash: 'lineage' })
        expect(exp - iat).toBe(120)
        expect(decodeProtectedHeader(token)).toMatchObject({ alg: 'ES256', typ: 'JWT' })
        ids.add(jti)
      }
    }
    expect(ids.size).toBe(4)
  })

  test('asks without an actor, as nobody, or with tokens that others wrote, where settings say so', async () => {
    expect((await claimsOf(exchange({ actor_token: 'none' }))).act).toBeUndefined()
    const asNobody = { client_auth: 'none', client_id: 'public', client_secret: undefined }
    const { client_secret: _, ...open } = { ...asNobody }
    const unauthenticated = make({
      provider: 'oauth_token_exchange',
      ...{ token_url: federation.tokenUrl, assertion_audience: federation.issuer, resource: API },
      ...open,
    })
    expect((await claimsOf(unauthenticated)).client_id).toBe('public')
    const projected = await assertions.sign(
      { sub: 'system:serviceaccount:a:b' },
      { audience: federation.issuer, lifeS: 60 },
    )
    writeFileSync(join(dir, 'projected'), `${projected.reveal()}\n`)
    expect((await claimsOf(exchange({ actor_token: 'none', subject_token: { file: 'projected' } }))).sub).toBe(
      'system:serviceaccount:a:b',
    )
  })

  test('lets settings say what the subject is called, so that no value runs into the next', async () => {
    const subject = { assertion: { claims: { sub: '{agent}/{human}', team: ['a', '{task}'] } } }
    const { sub } = await claimsOf(exchange({ actor_token: 'none', subject_token: subject }))
    expect(sub).toBe('spiffe%3A%2F%2Ftest%2Fagent/ana')
    const alone = { assertion: { claims: { sub: 'agent:{agent}' } } }
    expect((await claimsOf(exchange({ actor_token: 'none', subject_token: alone }))).sub).toBe(
      'agent:spiffe://test/agent',
    )
    for (const claims of [{ sub: '{password}' }, { iss: 'https://id.acme.test' }, { exp: 9 }])
      expect(() => exchange({ subject_token: { assertion: { claims } } })).toThrow()
  })

  test.each([
    ['no kind', undefined, 'issued_token_type is not'],
    ['a refresh token', `${URN}refresh_token`, 'issued_token_type is not'],
    ['an ID token', `${URN}id_token`, 'issued_token_type is not'],
  ])('refuses %s', async (_what, issued_token_type, detail) => {
    federation.answer = { issued_token_type }
    expect(await failure(exchange())).toMatchObject({
      code: 'credential_rejected',
      detail: expect.stringContaining(detail),
    })
  })

  test('takes the kind that settings ask for, and asks for it', async () => {
    federation.answer = { issued_token_type: `${URN}jwt` }
    await issue(exchange({ requested_token_type: 'jwt' }))
    expect(federation.asked.at(-1)?.get('requested_token_type')).toBe(`${URN}jwt`)
    expect((await failure(exchange({ requested_token_type: 'access_token' }))).code).toBe('credential_rejected')
  })

  test('refuses a token for another audience, and more scope than was asked for', async () => {
    const strange = await claimsOf(exchange({ resource: 'https://other.test' }))
    expect(strange.aud).toBe('https://other.test')
    expect((await failure(exchange({ token_audience: 'https://mine.test' }))).detail).toContain('another audience')
    federation.answer = { scope: 'read admin' }
    expect(await failure(exchange())).toMatchObject({ code: 'credential_too_wide' })
  })

  test('believes a token that says it ends earlier than the answer', async () => {
    federation.answer = { expires_in: 86_400 }
    const { expiresAt } = await issue(exchange())
    expect(expiresAt - Date.now() / 1000).toBeLessThanOrEqual(LIFE_S + 1)
  })
})

describe('a grant', () => {
  test('says in one assertion for whom and through whom', async () => {
    const claims = await claimsOf(bearer())
    expect(claims).toMatchObject({
      sub: 'ana',
      act: { sub: 'spiffe://test/agent', act: { sub: 'spiffe://test/planner' } },
    })
    expect([...(federation.asked.at(-1)?.keys() ?? [])].sort()).toEqual([
      'assertion',
      'grant_type',
      'resource',
      'scope',
    ])
  })

  test('is made for the server alone', async () => {
    expect(await failure(bearer({ assertion: { assertion: { audience: 'https://other.test' } } }))).toMatchObject({
      code: 'credential_rejected',
      detail: expect.stringContaining('invalid_grant'),
    })
  })
})

describe('an ID-JAG', () => {
  test('gets the human a token at another company, with nothing shared but their identity provider', async () => {
    far.asked.length = 0
    const credential = await issue(idJag())
    expect(decodeJwt(credential.secret.reveal())).toMatchObject({ iss: far.issuer, sub: 'ana', aud: API })
    const asked = federation.asked.at(-1)
    expect(Object.fromEntries(asked ?? [])).toMatchObject({
      requested_token_type: `${URN}id-jag`,
      audience: far.issuer,
      resource: API,
      scope: 'read',
    })
    expect(asked?.has('actor_token')).toBe(false)
    expect([...(far.asked[0]?.keys() ?? [])].sort()).toEqual(['assertion', 'grant_type'])
  })

  test.each([
    ['an access token of the identity provider', { token_type: 'Bearer' }, 'token_type is not N_A'],
    ['another kind', { issued_token_type: `${URN}access_token` }, 'issued_token_type'],
    ['something opaque', { access_token: 'canary' }, 'no JWT of type'],
    ['more scope', { scope: 'read admin' }, 'not asked for'],
  ])('hands over nothing when it is %s', async (_what, answer, detail) => {
    federation.answer = answer
    far.asked.length = 0
    expect(await failure(idJag())).toMatchObject({
      code: 'credential_rejected',
      detail: expect.stringContaining(detail),
    })
    expect(far.asked).toEqual([])
  })

  test.each([
    ['another server', { aud: 'https://third.test' }, 'assertion_audience'],
    ['several servers', { aud: ['FAR', 'https://third.test'] }, 'for it alone'],
    ['another client', { client_id: 'somebody' }, 'another client'],
    ['more scope', { scope: 'read admin' }, 'not asked for'],
  ])('hands over nothing that is for %s', async (_what, changes, detail) => {
    const claims = { aud: 'FAR', client_id: 'keyless', scope: 'read', ...changes }
    const text = JSON.stringify(claims).replaceAll('FAR', far.issuer)
    const header = { alg: 'ES256', typ: 'oauth-id-jag+jwt' }
    const [head, body] = [JSON.stringify(header), text].map((part) => Buffer.from(part).toString('base64url'))
    federation.answer = { access_token: `${head}.${body}.c2ln` }
    far.asked.length = 0
    expect((await failure(idJag())).detail).toContain(detail)
    expect(far.asked).toEqual([])
  })

  test('needs to know for which server', () => {
    expect(() => idJag({ assertion_audience: undefined })).toThrow(/issuer identifier/)
    expect(() => idJag({ audience: 'https://a.test' })).toThrow(/assertion_audience names/)
  })
})

test('a server that says what it pleases gets nowhere', async () => {
  const at = (status: number, body: unknown) => {
    other.answer = (_request, response) => json(response, status, body)
    return exchange({ token_url: other.tokenUrl })
  }
  const token = { access_token: 'canary', token_type: 'Bearer', issued_token_type: `${URN}access_token` }
  for (const [status, body, code] of [
    [200, { ...token, token_type: 'DPoP' }, 'credential_rejected'],
    [200, { ...token, token_type: 'N_A' }, 'credential_rejected'],
    [200, { ...token, token_type: 'mac' }, 'credential_unavailable'],
    [200, { ...token, expires_in: -1 }, 'credential_unavailable'],
    [200, [token], 'credential_unavailable'],
    [400, { error: 'canary' }, 'credential_rejected'],
    [400, { error: 'invalid_target' }, 'credential_rejected'],
    [503, {}, 'credential_unavailable'],
  ] as const) {
    const error = await failure(at(status, body))
    expect({ body, code: error.code }).toEqual({ body, code })
    expect(error.detail).not.toContain('canary')
  }
  const { expiresAt } = await issue(at(200, { ...token, id_token: 'x.y.z', refresh_token: 7 }))
  expect(expiresAt).toBeGreaterThan(Date.now() / 1000 + 298)
})
