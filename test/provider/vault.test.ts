import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Clock } from '../../gateway/protocol/clock.ts'
import type { GatewayError } from '../../gateway/protocol/problem.ts'
import { Secret } from '../../gateway/protocol/secret.ts'
import type { Endpoint } from '../../gateway/protocol/service.ts'
import type { Credential, IssueRequest, Provider } from '../../gateway/provider/provider.ts'
import { createProvider, credentialSchema, type ProviderTools } from '../../gateway/provider/registry.ts'
import { createVaultConnection, type VaultConnection } from '../../gateway/provider/vault/connection.ts'
import { readingVault } from '../../gateway/provider/vault/kv.ts'
import { vaultConnectionSchema } from '../../gateway/provider/vault/schema.ts'
import { providerConformance } from '../conformance/provider.ts'
import { grant, service } from '../lease/lease.fixture.ts'
import { providerTools } from './tools.fixture.ts'
import { plain, ROLE_ID, SECRET_ID, startVaultModel, type VaultModel } from './vault.fixture.ts'

const dir = mkdtempSync(join(tmpdir(), 'keyless-vault-'))
const LOOPBACK = ['127.0.0.1/32']
let aheadMs = 0
const clock: Clock = { nowMs: () => Date.now() + aheadMs, elapsedMs: () => performance.now() + aheadMs }
let vault: VaultModel

beforeAll(async () => {
  vault = await startVaultModel(clock)
  writeFileSync(join(dir, 'secret-id'), `${SECRET_ID}\n`)
  writeFileSync(join(dir, 'wrong'), 'canary-wrong')
})

afterEach(() => {
  vault.interrupt = undefined
  vault.isSealed = false
  vault.accepts = () => false
  Object.assign(vault.lives, { token: 3600, tokenMax: 7200, lease: 300, leaseMax: 900 })
  aheadMs = 0
})

afterAll(async () => {
  await vault.stop()
  rmSync(dir, { recursive: true, force: true })
})

const toolsWith = (o: Partial<ProviderTools> = {}) =>
  providerTools(dir, { fetchFor: () => globalThis.fetch, clock, ...o })

const approle = { method: 'approle', role_id: ROLE_ID, secret_id: { file: 'secret-id' } }

function connect(o: Record<string, unknown> = {}, tools: Partial<ProviderTools> = {}): VaultConnection {
  const config = vaultConnectionSchema.parse({ address: vault.url, addresses: LOOPBACK, login: approle, ...o })
  return createVaultConnection(config, toolsWith(tools))
}

function provider(o: Record<string, unknown> = {}, connection: VaultConnection = connect()): Provider {
  const written = { provider: 'vault', path: 'database/creds/readonly', parts: { username: 'username' }, ...o }
  return createProvider(credentialSchema.parse(written), toolsWith({ vault: connection }))
}

const ask = (o: Partial<IssueRequest> = {}): IssueRequest => ({
  service: service(),
  grant: grant(),
  ttlS: 300,
  role: undefined,
  ...o,
})
const patient = () => new AbortController().signal
const issue = (from: Provider): Promise<Credential> => from.issue(ask(), patient())
const failure = (promise: Promise<unknown>): Promise<GatewayError> =>
  promise.then(
    () => expect.unreachable(),
    (cause) => cause,
  )

const another = (address: string, login: unknown = approle) => ({ connection: { address, addresses: LOOPBACK, login } })

providerConformance('vault', () => ({
  working: () => provider(),
  isEphemeral: true,
  lifeS: 300,
  wider: () => [
    ['another path', provider({ path: 'database/creds/readwrite' })],
    ['another field', provider({ value: 'username' })],
    ['another part', provider({ parts: {} })],
    ['another namespace', provider({ namespace: 'team' })],
    ['other parameters', provider({ parameters: { ttl: '1h' } })],
    ['another server', provider(another('http://127.0.0.1:1'))],
    ['another login', provider({}, connect({ login: { ...approle, secret_id: { file: 'wrong' } } }))],
    ['roles', provider({ path: 'database/creds/{role}', roles: { read: 'readonly' } })],
  ],
  failing: () => [
    [
      'a wrong secret id',
      'credential_rejected',
      provider({}, connect({ login: { ...approle, secret_id: { file: 'wrong' } } })),
    ],
    ['no such mount', 'credential_rejected', provider({ path: 'nothing/creds/readonly' })],
    ['an unknown role', 'credential_rejected', provider({ path: 'database/creds/absent' })],
    ['a path that policy refuses', 'credential_rejected', provider({ path: 'database/creds/forbidden' })],
    ['a field that is not there', 'credential_rejected', provider({ value: 'token' })],
    ['a secret without a lease', 'credential_rejected', provider({ path: 'kv/billing', value: 'key' })],
    ['a server that is down', 'credential_unavailable', provider(another('http://127.0.0.1:1'))],
    [
      'no secret id',
      'credential_unconfigured',
      provider({}, connect({ login: { ...approle, secret_id: { file: 'absent' } } })),
    ],
  ],
  hanging: () => {
    vault.stored['kv/billing'] = { key: 'canary-kv-0815' }
    vault.interrupt = () => 'hang'
    return provider()
  },
  secrets: () => [SECRET_ID, 'canary-kv-0815', ...vault.tokens.keys()],
}))

describe('its own token', () => {
  test('logs in once for any number of credentials asked for at the same time', async () => {
    const before = vault.logins()
    const one = provider()
    const all = await Promise.all(Array.from({ length: 50 }, () => issue(one)))
    expect(new Set(all.map(({ secret }) => secret.reveal())).size).toBe(50)
    expect(vault.logins()).toBe(before + 1)
  })

  test('is prolonged once half of its life is over, and replaced when its server prolongs it no more', async () => {
    const one = provider()
    await issue(one)
    const before = vault.logins()
    const renewals = () => vault.asked.filter(({ path }) => path.endsWith('renew-self')).length
    const renewed = renewals()
    aheadMs = 1_900_000
    await issue(one)
    expect([vault.logins(), renewals()]).toEqual([before, renewed + 1])
    aheadMs = 5_450_000 // 1750 s before its maximum: a renewal gives less than half
    await issue(one)
    expect([vault.logins(), renewals()]).toEqual([before + 1, renewed + 2])
  })

  test('is replaced once when the server does not know it any more', async () => {
    const one = provider()
    await issue(one)
    const before = vault.logins()
    vault.tokens.clear()
    await issue(one)
    expect(vault.logins()).toBe(before + 1)
    const forbidden = provider({ path: 'database/creds/forbidden' })
    await failure(issue(forbidden))
    const known = vault.logins()
    await failure(issue(forbidden))
    expect(vault.logins(), 'a refusal by policy costs no login').toBe(known)
  })

  test('is replaced once for all that were refused with it, also for those that learn of it late', async () => {
    const one = provider()
    await issue(one)
    const before = vault.logins()
    vault.tokens.clear()
    let isFirst = true
    const hasLoggedIn = Promise.withResolvers<undefined>()
    vault.interrupt = ({ path }) => {
      if (path.includes('creds') && vault.tokens.size > 0) hasLoggedIn.resolve(undefined)
      const isLate = path.endsWith('lookup-self') && isFirst
      if (isLate) isFirst = false
      return isLate ? hasLoggedIn.promise : undefined
    }
    await Promise.all(Array.from({ length: 20 }, () => issue(one)))
    await issue(one)
    expect(vault.logins()).toBe(before + 1)
  })

  test('outlives nothing that was leased with it: the credential ends with the token', async () => {
    Object.assign(vault.lives, { token: 100 })
    const { expiresAt } = await issue(provider())
    expect(expiresAt - clock.nowMs() / 1000).toBeLessThanOrEqual(100)
  })

  test('a caller that gives up leaves the login to the others', async () => {
    const one = provider()
    const before = vault.logins()
    const impatient = new AbortController()
    const first = one.issue(ask(), impatient.signal)
    const second = issue(one)
    impatient.abort()
    expect(await failure(first)).toMatchObject({ code: 'credential_unavailable' })
    expect((await second).ephemeral).toBe(true)
    expect(vault.logins()).toBe(before + 1)
  })

  test('comes from a JWT that the gateway signs, from a service account, or from a reference', async () => {
    const signed: unknown[] = []
    const assertions = {
      issuer: 'https://keyless.test/assertions',
      sign: async (claims: unknown, terms: unknown) => {
        signed.push([claims, terms])
        return new Secret('signed-jwt')
      },
    }
    const accepted: unknown[] = []
    vault.accepts = (...login) => accepted.push(login) > 0
    writeFileSync(join(dir, 'pod-token'), 'pod-jwt')
    const logins = [
      { method: 'jwt', role: 'keyless' },
      { method: 'jwt', mount: 'teams/jwt', role: 'keyless', token: { file: 'pod-token' } },
      { method: 'kubernetes', role: 'keyless', token: { file: 'pod-token' } },
    ]
    for (const login of logins) await issue(provider({}, connect({ login }, { assertions })))
    expect(signed).toEqual([[{ sub: 'keyless' }, { audience: vault.url, lifeS: 60 }]])
    expect(accepted).toEqual([
      ['jwt', 'keyless', 'signed-jwt'],
      ['teams/jwt', 'keyless', 'pod-jwt'],
      ['kubernetes', 'keyless', 'pod-jwt'],
    ])
    writeFileSync(join(dir, 'token'), [...vault.tokens.keys()].at(-1) ?? '')
    expect(
      (await issue(provider({}, connect({ login: { method: 'token', token: { file: 'token' } } })))).ephemeral,
    ).toBe(true)
  })

  test('travels with the namespace, and nothing else follows a redirect', async () => {
    const one = provider({}, connect({ namespace: 'acme/agents' }))
    await issue(one)
    const own = provider({ namespace: 'acme/other' }, connect({ namespace: 'acme/agents' }))
    await issue(own)
    const seen = vault.asked.slice(-3).map(({ headers }) => headers['x-vault-namespace'])
    expect(seen).toEqual(['acme/agents', 'acme/agents', 'acme/other'])
    const asked = vault.asked.length
    vault.interrupt = () => ({ status: 307, headers: { location: `${vault.url}/v1/stolen` } })
    expect(await failure(issue(one))).toMatchObject({ code: 'credential_unavailable', detail: /load balancer/ })
    expect(vault.asked.slice(asked).map(({ path }) => path)).toEqual(['/v1/database/creds/readonly'])
  })
})

describe('a lease', () => {
  test('is prolonged up to its maximum, and no further', async () => {
    Object.assign(vault.lives, { lease: 300, leaseMax: 500 })
    const one = provider()
    const first = await issue(one)
    aheadMs = 225_000
    const second = await one.renew?.(first, ask({ ttlS: 600 }), patient())
    expect((second?.expiresAt ?? 0) - first.expiresAt).toBeGreaterThanOrEqual(199)
    expect(second?.secret).toBe(first.secret)
    aheadMs = 450_000
    if (second !== undefined) expect(await one.renew?.(second, ask({ ttlS: 600 }), patient())).toBeUndefined()
  })

  test('is never shortened by being prolonged for less than it has', async () => {
    const one = provider()
    const credential = await issue(one)
    await one.renew?.(credential, ask({ ttlS: 10 }), patient())
    const held = vault.leases.get(credential.parts?.lease_id?.reveal() ?? '')
    expect((held?.endsAtMs ?? 0) / 1000).toBeGreaterThanOrEqual(credential.expiresAt)
  })

  test('that is gone is not prolonged, so that another one is issued', async () => {
    const one = provider()
    const credential = await issue(one)
    vault.leases.clear()
    expect(await one.renew?.(credential, ask(), patient())).toBeUndefined()
  })

  test('is never said to outlive the token that it was asked with, however far it is prolonged', async () => {
    Object.assign(vault.lives, { token: 400, tokenMax: 400 })
    const one = provider()
    const first = await issue(one)
    aheadMs = 100_000
    const second = await one.renew?.(first, ask({ ttlS: 900 }), patient())
    expect((second?.expiresAt ?? 0) - first.expiresAt).toBeLessThanOrEqual(100)
  })

  test('is ended at once, and its end is waited for', async () => {
    const one = provider()
    const credential = await issue(one)
    await one.revoke?.(credential, patient())
    expect(vault.leases.has(credential.parts?.lease_id?.reveal() ?? '')).toBe(false)
    expect(vault.asked.at(-1)?.body).toMatchObject({ sync: true })
    vault.interrupt = () => ({ status: 400, json: { errors: ['failed to revoke entry'] } })
    expect(await failure(one.revoke?.(credential, patient()) ?? Promise.resolve())).toMatchObject({
      code: 'credential_rejected',
    })
  })

  test('that nobody will use is ended: an answer without the fields that settings name', async () => {
    const before = vault.leases.size
    await failure(issue(provider({ value: 'absent' })))
    expect(vault.leases.size).toBe(before)
  })
})

describe('a server that cannot answer now', () => {
  test.each([412, 429, 472, 473, 474, 500, 502, 503])('makes it unavailable, not refused: %i', async (status) => {
    const one = provider()
    await issue(one)
    vault.interrupt = () => ({ status, headers: { 'retry-after': '7' }, json: { errors: ['canary-text'] } })
    const error = await failure(issue(one))
    expect(error).toMatchObject({ code: 'credential_unavailable', retryAfterMs: 7000 })
    expect(error.detail).not.toContain('canary-text')
  })

  test('sealed in the middle: no credential until it is unsealed, and then with the same token', async () => {
    const one = provider()
    await issue(one)
    const before = vault.logins()
    vault.isSealed = true
    expect(await failure(issue(one))).toMatchObject({ code: 'credential_unavailable', detail: /sealed/ })
    vault.isSealed = false
    expect((await issue(one)).ephemeral).toBe(true)
    expect(vault.logins()).toBe(before)
  })

  test.each([
    ['nothing', { status: 200, text: '' }],
    ['a page', { status: 200, text: '<html>login</html>' }],
    ['a list', { status: 200, json: [] }],
    [
      'a lease of no length',
      { status: 200, json: { lease_id: 'a/b', lease_duration: 0, data: { password: 'p', username: 'u' } } },
    ],
    [
      'a lease of a text',
      { status: 200, json: { lease_id: 'a/b', lease_duration: '300', data: { password: 'p', username: 'u' } } },
    ],
    ['no data', { status: 200, json: { lease_id: 'a/b', lease_duration: 300, data: null } }],
    ['a megabyte', { status: 200, text: 'x'.repeat(1_048_576) }],
  ])('or answers %s gives no credential', async (_, answer) => {
    const one = provider()
    await issue(one)
    vault.interrupt = ({ path }) => (path.includes('creds') ? answer : undefined)
    expect((await failure(issue(one))).code).toMatch(/^credential_(unavailable|rejected)$/)
  })
})

describe('what is asked for', () => {
  const endpoint = (o: { id?: string; access?: string; params?: Record<string, string> } = {}) =>
    ({
      operation: { id: 'x', name: 'billing:x', access: 'read', ...o },
      params: o.params ?? {},
    }) as unknown as Endpoint

  test('depends on the operation, or on what it may do, where settings name roles', () => {
    const { role } = provider({
      path: 'database/creds/{role}',
      roles: { read: 'ro', write: 'rw', 'orders.purge': 'admin' },
    })
    const path = (o: Parameters<typeof endpoint>[0]) => JSON.parse(role?.(endpoint(o), grant()) ?? '{}').path
    expect(path({ access: 'read' })).toBe('database/creds/ro')
    expect(path({ access: 'write' })).toBe('database/creds/rw')
    expect(path({ access: 'write', id: 'orders.purge' })).toBe('database/creds/admin')
    expect(() => path({ access: 'admin' })).toThrow(/billing:x/)
  })

  test('is one word where the agent chooses it, whatever the agent chooses', () => {
    const { role } = provider({ path: 'database/creds/{params.db}', parameters: { cn: '{params.db}.acme.test' } })
    expect(() => role?.(endpoint(), grant())).toThrow(/params\.db/)
    fc.assert(
      fc.property(
        fc.oneof(fc.string(), fc.webPath(), fc.constantFrom('..', '../sys', 'a/b', 'a%2fb', 'a?b', 'a,b')),
        (db) => {
          let made: string | undefined
          try {
            made = role?.(endpoint({ params: { db } }), grant())
          } catch {
            return
          }
          expect(JSON.parse(made ?? '').path).toMatch(/^database\/creds\/[A-Za-z0-9_][A-Za-z0-9_.-]*$/)
        },
      ),
    )
  })

  test('is one word in a parameter too, where the agent chooses it', () => {
    const { role } = provider({ parameters: { common_name: '{params.db}.acme.test', who: '{human}' } })
    const parameters = (db: string, on = grant()) =>
      JSON.parse(role?.(endpoint({ params: { db } }), on) ?? '{}').parameters
    expect(parameters('orders')).toEqual({ common_name: 'orders.acme.test', who: 'ana' })
    for (const db of ['*', 'a/b', 'a@b', 'a b', 'a,b', '']) expect(() => parameters(db), db).toThrow(/params\.db/)
    const on = grant({ human: { iss: 'https://id.test', sub: 'ana@acme.test' } })
    expect(parameters('orders', on).who).toBe('ana@acme.test')
    expect(() => parameters('orders', grant({ human: { iss: 'x', sub: 'ana, bob' } }))).toThrow(/human/)
  })

  test('is sent as the query of a GET or as the body of a POST', async () => {
    vault.interrupt = ({ path }) =>
      path.includes('issue') || path.includes('creds')
        ? plain({ certificate: 'C', ca_chain: ['A', 'B'], private_key: 'K', expiration: clock.nowMs() / 1000 + 600 })
        : undefined
    const fields = {
      value: 'private_key',
      parts: { certificate: ['certificate', 'ca_chain'] },
      expires_at: 'expiration',
    }
    const credential = await issue(
      provider({ path: 'pki/issue/agents', parameters: { common_name: 'a.test', ttl: '10m' }, ...fields }),
    )
    expect(vault.asked.at(-1)).toMatchObject({ method: 'POST', body: { common_name: 'a.test', ttl: '10m' } })
    expect(credential.secret.reveal()).toBe('K')
    expect(credential.parts?.certificate?.reveal()).toBe('C\nA\nB')
    expect(Math.round(credential.expiresAt - clock.nowMs() / 1000)).toBeGreaterThan(595)
    await issue(provider({ path: 'aws/creds/x', method: 'GET', parameters: { ttl: '15m' }, ...fields }))
    expect(vault.asked.at(-1)).toMatchObject({ method: 'GET', path: '/v1/aws/creds/x?ttl=15m' })
  })

  test('without a lease, is not said to be revoked', () => {
    const one = provider({ path: 'gcp/token/x', value: 'token', expires_at: 'expires_at_seconds' })
    expect([one.revoke, one.renew]).toEqual([undefined, undefined])
  })

  test.each([
    [{ path: '/database/creds/x' }, /is not a path/],
    [{ path: 'database/../sys/raw' }, /is not a path/],
    [{ path: 'database/creds/{user}' }, /stands for nothing/],
    [{ path: 'database/creds/{role}' }, /roles/],
    [{ roles: { read: 'x' } }, /has no effect/],
    [{ expires_at: 'a', expires_in: 'b' }, /one too many/],
    [{ parts: { lease_id: 'x' } }, /taken/],
    [another('http://vault.acme.test:8200'), /not https/],
    [another('https://vault.acme.test', { ...approle, secret_id: { vault: 'kv/data/x' } }), /cannot lie in it/],
  ])('is refused at the start when it cannot be meant: %j', (o, message) => {
    expect(() => provider(o)).toThrow(message)
  })
})

describe('a reference { vault: PATH }', () => {
  const read = (reference: { vault: string; field?: string }) =>
    readingVault(() => expect.unreachable(), connect())(reference, patient())

  test('reads both versions of the key-value engine', async () => {
    vault.stored['kv/billing'] = { key: 'one', value: 'default' }
    vault.stored['secret/data/billing'] = { data: { key: 'two' }, metadata: { version: 3 } }
    vault.stored['kv/nested'] = { data: 'three', metadata: 'four' }
    expect((await read({ vault: 'kv/billing', field: 'key' })).reveal()).toBe('one')
    expect((await read({ vault: 'kv/billing' })).reveal()).toBe('default')
    expect((await read({ vault: 'secret/data/billing', field: 'key' })).reveal()).toBe('two')
    expect((await read({ vault: 'kv/nested', field: 'data' })).reveal()).toBe('three')
  })

  test('says what to change when there is nothing', async () => {
    vault.stored['secret/data/gone'] = { data: null, metadata: { version: 3 } }
    vault.stored['kv/number'] = { value: 7 }
    for (const path of ['kv/absent', 'secret/data/gone', 'kv/number'])
      expect(await failure(read({ vault: path }))).toMatchObject({ code: 'credential_unconfigured' })
    vault.isSealed = true
    expect(await failure(read({ vault: 'kv/billing' }))).toMatchObject({ code: 'credential_unavailable' })
  })
})
