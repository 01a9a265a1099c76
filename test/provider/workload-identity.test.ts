/** Federation in the shapes that vendors document, at servers that verify what they are shown with the published keys. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createLocalJWKSet, type JSONWebKeySet, type JWTVerifyGetKey, jwtVerify } from 'jose'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { systemClock } from '../../gateway/protocol/clock.ts'
import type { GatewayError } from '../../gateway/protocol/problem.ts'
import { createAssertions } from '../../gateway/provider/assertions.ts'
import type { Credential, Provider } from '../../gateway/provider/provider.ts'
import { createProvider, credentialSchema } from '../../gateway/provider/registry.ts'
import { loadKeys } from '../../gateway/settings/keys.ts'
import { providerConformance } from '../conformance/provider.ts'
import { field, grant, plain, service } from '../lease/lease.fixture.ts'
import { type FalseServer, json, startFalseServer } from './authorization-server.fixture.ts'
import { providerTools } from './tools.fixture.ts'

const ISSUER = 'https://keyless.acme.test/assertions'
const URN = 'urn:ietf:params:oauth:'
const CANARY = 'canary-vendor-token'
const dir = mkdtempSync(join(tmpdir(), 'keyless-wif-'))
let vendor: FalseServer
let assertions: ReturnType<typeof createAssertions>
let keys: JWTVerifyGetKey
let asked: { readonly type: string | undefined; readonly body: string; readonly headers: Record<string, unknown> }[]

beforeAll(async () => {
  assertions = createAssertions((await loadKeys(dir)).assertions, ISSUER, systemClock)
  keys = createLocalJWKSet((await assertions.jwks()) as JSONWebKeySet)
  vendor = await startFalseServer()
})
beforeEach(() => {
  asked = []
  vendor.answer = ({ headers }, response, body) => {
    asked.push({ type: headers['content-type'], body, headers })
    json(response, 200, { access_token: CANARY, token_type: 'Bearer', expires_in: 600 })
  }
})
afterAll(async () => {
  await vendor.stop()
  rmSync(dir, { recursive: true, force: true })
})

const federated = (o: Record<string, unknown> = {}): Provider =>
  createProvider(
    credentialSchema.parse({
      provider: 'workload_identity',
      ...{
        token_url: vendor.tokenUrl,
        addresses: ['127.0.0.1/32'],
        token: { assertion: { audience: 'https://vendor.test' } },
      },
      ...o,
    }),
    providerTools(dir, { assertions, fetchFor: () => fetch }),
  )
const issue = (from: Provider): Promise<Credential> =>
  from.issue({ service: service(), grant: grant(), ttlS: 300, role: undefined }, new AbortController().signal)
const failure = (from: Provider): Promise<GatewayError> =>
  issue(from).then(
    () => Promise.reject(new Error('issued')),
    (cause) => cause,
  )

providerConformance('workload_identity', () => ({
  working: () => federated(),
  isEphemeral: true,
  lifeS: 600,
  wider: () => [
    ['another vendor', federated({ token_url: `${vendor.tokenUrl}/2` })],
    ['another account', federated({ parameters: { service_account_id: 'b' } })],
    ['another subject', federated({ token: { assertion: { claims: { sub: 'root' } } } })],
    ['a scope', federated({ scope: 'inference' })],
    ['another place in the answer', federated({ answer: { token: '/other' } })],
  ],
  failing: () => [
    ['a vendor that is down', 'credential_unavailable', federated({ token_url: 'http://127.0.0.1:1/token' })],
    ['no token there', 'credential_unconfigured', federated({ token: { file: 'none' } })],
  ],
  hanging: () => {
    vendor.answer = () => undefined
    return federated()
  },
  secrets: () => [],
}))

const verify = (token: unknown, audience = 'https://vendor.test') =>
  jwtVerify(String(token), keys, { issuer: ISSUER, audience })

describe('as documented by', () => {
  test('OpenAI: a JSON exchange with provider and service account', async () => {
    await issue(
      federated({ format: 'json', parameters: { identity_provider_id: 'idp_1', service_account_id: 'sa_1' } }),
    )
    const { subject_token, ...rest } = JSON.parse(asked[0]?.body ?? '')
    expect(asked[0]?.type).toBe('application/json')
    expect(rest).toEqual({
      grant_type: `${URN}grant-type:token-exchange`,
      subject_token_type: `${URN}token-type:jwt`,
      identity_provider_id: 'idp_1',
      service_account_id: 'sa_1',
    })
    expect((await verify(subject_token)).payload).toMatchObject({
      sub: 'ana',
      agent: 'spiffe://test/agent',
      task: 'task-1',
    })
  })

  test('Anthropic: a JSON grant with rule and organisation, and the token in Authorization', async () => {
    const provider = federated({
      format: 'json',
      grant: 'jwt_bearer',
      parameters: { federation_rule_id: 'fdrl_1', organization_id: 'o', service_account_id: 'svac_1' },
      headers: { 'anthropic-beta': 'oauth-2025-04-20,oidc-federation-2026-04-01' },
      slot: 'authorization',
      request_headers: { 'anthropic-beta': 'oauth-2025-04-20' },
    })
    const credential = await issue(provider)
    const { assertion, ...rest } = JSON.parse(asked[0]?.body ?? '')
    expect(rest).toEqual({
      grant_type: `${URN}grant-type:jwt-bearer`,
      federation_rule_id: 'fdrl_1',
      organization_id: 'o',
      service_account_id: 'svac_1',
    })
    await verify(assertion)
    expect(asked[0]?.headers['anthropic-beta']).toBe('oauth-2025-04-20,oidc-federation-2026-04-01')
    const slots = [
      { in: 'header', name: 'x-api-key' },
      { in: 'header', name: 'Authorization', prefix: 'Bearer ' },
    ] as const
    const asks = plain({ service: service({ slots }) })
    const attached = await provider.attach(credential, asks)
    expect(field(attached, 'authorization')).toBe(`Bearer ${CANARY}`)
    expect(field(attached, 'x-api-key')).toBeUndefined()
    expect(field(attached, 'anthropic-beta')).toBe('oauth-2025-04-20')
    expect(attached.service).toBe(asks.service)
    expect(() => provider.attach(credential, plain({ service: service({ slots: slots.slice(0, 1) }) }))).toThrow(
      /no header slot/,
    )
  })

  test('OpenRouter: a form with the policy, signed as RS256 or ES256 alike', async () => {
    for (const algorithm of ['RS256', 'ES256'])
      await issue(
        federated({
          scope: 'inference',
          parameters: { federation_policy_id: 'p-1' },
          token: { assertion: { audience: 'https://openrouter.ai', algorithm, claims: { sub: 'agents' } } },
        }),
      )
    for (const { body, type } of asked) {
      const { subject_token, ...rest } = Object.fromEntries(new URLSearchParams(body))
      expect(type).toContain('application/x-www-form-urlencoded')
      expect(rest).toEqual({
        grant_type: `${URN}grant-type:token-exchange`,
        subject_token_type: `${URN}token-type:jwt`,
        federation_policy_id: 'p-1',
        scope: 'inference',
      })
      expect((await verify(subject_token, 'https://openrouter.ai')).payload.sub).toBe('agents')
    }
  })

  test('Databricks: a form with scope all-apis and the service principal, and a projected token', async () => {
    writeFileSync(join(dir, 'projected'), 'projected.token.here\n')
    await issue(federated({ scope: 'all-apis', parameters: { client_id: 'sp-1' }, token: { file: 'projected' } }))
    expect(Object.fromEntries(new URLSearchParams(asked[0]?.body))).toEqual({
      grant_type: `${URN}grant-type:token-exchange`,
      subject_token: 'projected.token.here',
      subject_token_type: `${URN}token-type:jwt`,
      client_id: 'sp-1',
      scope: 'all-apis',
    })
  })
})

describe('what a vendor can answer', () => {
  const answering = (status: number, body: unknown, o: Record<string, unknown> = {}) => {
    vendor.answer = (_request, response) => {
      response.setHeader('Retry-After', '7')
      json(response, status, body)
    }
    return federated(o)
  }
  const token = { access_token: CANARY, token_type: 'Bearer', expires_in: 60 }

  test('token and life where settings say that they are', async () => {
    const answer = { answer: { token: '/data/0/key', expires_in: '/data/0/ttl' } }
    const { secret, expiresAt } = await issue(answering(201, { data: [{ key: CANARY, ttl: '90' }] }, answer))
    expect(secret.reveal()).toBe(CANARY)
    expect(Math.abs(expiresAt - Date.now() / 1000 - 90)).toBeLessThan(2)
  })

  test.each([
    ['another kind of token', 200, { ...token, token_type: 'DPoP' }, 'credential_rejected'],
    ['a refresh token', 200, { ...token, issued_token_type: `${URN}token-type:refresh_token` }, 'credential_rejected'],
    ['no token', 200, { expires_in: 5 }, 'credential_rejected'],
    ['a token that is none', 200, { ...token, access_token: { a: 1 } }, 'credential_rejected'],
    ['a member of every object', 200, { ...token, access_token: undefined }, 'credential_rejected'],
    ['a life that is none', 200, { ...token, expires_in: 'soon' }, 'credential_rejected'],
    ['a list', 200, [token], 'credential_unavailable'],
    ['nothing', 200, '', 'credential_unavailable'],
    ['an OAuth error', 400, { error: 'invalid_grant', error_description: CANARY }, 'credential_rejected'],
    ['an error of its own', 400, { error: { type: CANARY } }, 'credential_rejected'],
    ['a redirect', 302, {}, 'credential_rejected'],
    ['429', 429, {}, 'credential_unavailable'],
    ['500', 500, { error: CANARY }, 'credential_unavailable'],
  ])('%s is refused with its code and none of its text', async (_what, status, body, code) => {
    const error = await failure(answering(status, body))
    expect(error.code).toBe(code)
    expect(error.detail).not.toContain(CANARY)
    if (status >= 429) expect(error.retryAfterMs).toBe(7000)
  })

  test('more scope than was asked for is too wide', async () => {
    const error = await failure(answering(200, { ...token, scope: 'inference admin' }, { scope: 'inference' }))
    expect(error).toMatchObject({ code: 'credential_too_wide', detail: expect.stringContaining('admin') })
  })

  test('more than 256 KiB is cut off', async () => {
    vendor.answer = (_request, response) => response.writeHead(200).end('x'.repeat(300_000))
    expect((await failure(federated())).detail).toContain('256 KiB')
  })
})

test.each([
  ['a secret in a header', { headers: { authorization: 'Bearer x' } }],
  ['another length', { headers: { 'content-length': '7' } }],
  ['a line break', { request_headers: { 'x-a': 'a\r\nb: c' } }],
  ['the token as a parameter', { parameters: { subject_token: 'x' } }],
  ['a place that there is not', { parameters: { a: '{secret}' } }],
  ['http to a name', { token_url: 'http://vendor.test/token' }],
  ['a pointer that is none', { answer: { token: 'access_token' } }],
])('refuses %s in settings', (_what, o) => {
  expect(() => federated(o)).toThrow()
})

test('a token with white space in it is none', async () => {
  writeFileSync(join(dir, 'odd'), 'two tokens')
  expect((await failure(federated({ token: { file: 'odd' } }))).code).toBe('credential_unconfigured')
})
