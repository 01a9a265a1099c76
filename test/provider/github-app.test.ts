import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { decodeJwt, decodeProtectedHeader } from 'jose'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Clock } from '../../gateway/protocol/clock.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import type { Credential, Provider } from '../../gateway/provider/provider.ts'
import { createProvider, credentialSchema } from '../../gateway/provider/registry.ts'
import { providerConformance } from '../conformance/provider.ts'
import { grant, service } from '../lease/lease.fixture.ts'
import { pem } from './authorization-server.fixture.ts'
import { APP_ID, CLIENT_ID, type FakeGithub, startGithub } from './github.fixture.ts'
import { issuingAs, providerTools } from './tools.fixture.ts'

const dir = mkdtempSync(join(tmpdir(), 'keyless-github-'))
let github: FakeGithub
let enterprise: FakeGithub
let aheadMs = 0
const clock: Clock = { nowMs: () => Date.now(), elapsedMs: () => performance.now() + aheadMs }

beforeAll(async () => {
  github = await startGithub()
  enterprise = await startGithub('/api/v3')
  writeFileSync(join(dir, 'app.pem'), github.privateKey.export({ type: 'pkcs1', format: 'pem' }))
  writeFileSync(join(dir, 'enterprise.pem'), pem(enterprise.privateKey))
  writeFileSync(join(dir, 'none.pem'), 'canary-no-key')
})

afterEach(() => {
  aheadMs = 0
  github.asked.length = 0
  github.interrupt = undefined
  github.tamper = undefined
  for (const installation of github.installations) installation.suspended = false
})

afterAll(async () => {
  await github.stop()
  await enterprise.stop()
  rmSync(dir, { recursive: true, force: true })
})

function provider(o: Record<string, unknown> = {}): Provider {
  const config = credentialSchema.parse({
    provider: 'github_app',
    client_id: CLIENT_ID,
    private_key: { file: 'app.pem' },
    api_url: github.url,
    addresses: ['127.0.0.1/32'],
    ...o,
  })
  return createProvider(config, providerTools(dir, { fetchFor: () => globalThis.fetch, clock }))
}

const role = (owner: string | null, repository: string | null, ...permissions: [string, string][]) =>
  JSON.stringify([owner, repository, permissions])

const READ_SITE = role('acme', 'site', ['contents', 'read'])

const issue = (from: Provider, as = READ_SITE, signal = new AbortController().signal): Promise<Credential> =>
  from.issue({ service: service(), grant: grant(), ttlS: 300, role: as }, signal)

async function failure(from: Provider, as = READ_SITE): Promise<GatewayError> {
  const error = await issue(from, as).catch((cause: unknown) => cause)
  expect(error).toBeInstanceOf(GatewayError)
  return error as GatewayError
}

providerConformance('github_app', () => ({
  working: () => issuingAs(READ_SITE, provider()),
  isEphemeral: true,
  lifeS: 3600,
  wider: () => [
    ['another app', provider({ client_id: undefined, app_id: APP_ID })],
    ['another key', provider({ private_key: { file: 'enterprise.pem' } })],
    ['another installation', provider({ installation_id: 679 })],
    ['another GitHub', provider({ api_url: enterprise.url })],
    ['all that the grant may do', provider({ per: 'grant' })],
    ['permissions for what names none', provider({ otherwise: { contents: 'read' } })],
  ],
  failing: () => [
    ['the key of another app', 'credential_rejected', as(provider({ private_key: { file: 'enterprise.pem' } }))],
    ['another app', 'credential_rejected', as(provider({ client_id: 'Iv23liSomebodyElse' }))],
    ['a file that is no key', 'credential_unconfigured', as(provider({ private_key: { file: 'none.pem' } }))],
    ['an installation of somebody else', 'credential_rejected', as(provider({ installation_id: 999 }))],
    ['a GitHub that is down', 'credential_unavailable', as(provider({ api_url: 'http://127.0.0.1:1' }))],
  ],
  hanging: () => {
    github.interrupt = () => 'hang'
    return as(provider())
  },
  secrets: () => [pem(github.privateKey), 'canary-no-key'],
}))

function as(from: Provider): Provider {
  return issuingAs(READ_SITE, from)
}

describe('a token', () => {
  test('is for the repository and permission of the call, and for nothing else', async () => {
    const token = (await issue(provider())).secret.reveal()
    expect(github.allows(token, 'acme/site', 'contents', 'read')).toBe(true)
    expect(github.allows(token, 'acme/site', 'contents', 'write')).toBe(false)
    expect(github.allows(token, 'acme/site', 'issues', 'read')).toBe(false)
    expect(github.allows(token, 'acme/tools', 'contents', 'read')).toBe(false)
    expect(token.length).toBeGreaterThan(200)
  })

  test('says in its scope what it is for', async () => {
    expect((await issue(provider())).scope).toBe('acme/site contents:read')
  })

  test('is asked for with a JWT of at most ten minutes, and no other secret', async () => {
    await issue(provider())
    const jwt = github.asked.at(-1)?.headers.authorization?.replace('Bearer ', '') ?? ''
    expect(decodeProtectedHeader(jwt)).toMatchObject({ alg: 'RS256' })
    const { iss, iat = 0, exp = 0 } = decodeJwt(jwt)
    expect(iss).toBe(CLIENT_ID)
    expect(exp - iat).toBeLessThanOrEqual(600)
  })

  test('is asked for by the id of the app where settings name that', async () => {
    await issue(provider({ client_id: undefined, app_id: APP_ID }))
    expect(decodeJwt(github.asked.at(-1)?.headers.authorization?.slice(7) ?? '').iss).toBe(String(APP_ID))
  })

  test('comes from the installation of the owner in the path, which is looked up once in ten minutes', async () => {
    const app = provider()
    await issue(app)
    await issue(app)
    expect(lookUps()).toBe(1)
    await issue(app, role('globex', 'site', ['contents', 'read']))
    expect(lookUps()).toBe(2)
    aheadMs = 601_000
    await issue(app)
    expect(lookUps()).toBe(3)
    expect([...github.tokens.values()].slice(-4).map(({ installation }) => installation)).toEqual([678, 678, 679, 678])
  })

  test('comes from GitHub Enterprise Server below its own path', async () => {
    const app = provider({ api_url: `${enterprise.url}/`, private_key: { file: 'enterprise.pem' } })
    expect(enterprise.allows((await issue(app)).secret.reveal(), 'acme/site', 'contents', 'read')).toBe(true)
  })

  test('ends at GitHub when it is revoked, and ending it twice does no harm', async () => {
    const app = provider()
    const credential = await issue(app)
    const signal = new AbortController().signal
    await app.revoke?.(credential, signal)
    expect(github.allows(credential.secret.reveal(), 'acme/site', 'contents', 'read')).toBe(false)
    await app.revoke?.(credential, signal)
  })

  test('cannot be revoked while GitHub is down, which is said', async () => {
    const app = provider()
    const credential = await issue(app)
    github.interrupt = () => ({ status: 503 })
    await expect(app.revoke?.(credential, new AbortController().signal)).rejects.toBeInstanceOf(GatewayError)
  })

  test('per grant asks for no more than the installation has', async () => {
    const wide = role('acme', 'site', ['administration', 'write'], ['contents', 'write'], ['pull_requests', 'write'])
    const token = (await issue(provider({ per: 'grant' }), wide)).secret.reveal()
    expect(github.tokens.get(token)?.permissions).toEqual({
      contents: 'write',
      pull_requests: 'read',
      metadata: 'read',
    })
    const known = (await issue(provider({ per: 'grant', installation_id: 678 }), wide)).secret.reveal()
    expect(github.tokens.get(known)?.permissions).toEqual(github.tokens.get(token)?.permissions)
  })
})

describe('refuses a token', () => {
  const tampered: readonly [string, (answer: Record<string, unknown>) => Record<string, unknown>][] = [
    [
      'for more repositories',
      (answer) => ({ ...answer, repositories: [{ full_name: 'Acme/Site' }, { full_name: 'Acme/tools' }] }),
    ],
    ['for another repository', (answer) => ({ ...answer, repositories: [{ full_name: 'Acme/tools' }] })],
    ['for the repository of another owner', (answer) => ({ ...answer, repositories: [{ full_name: 'globex/Site' }] })],
    ['for a repository that was renamed', (answer) => ({ ...answer, repositories: [{ full_name: 'Acme/new-site' }] })],
    ['for all repositories', ({ repositories: _none, ...answer }) => ({ ...answer, repository_selection: 'all' })],
    ['with another permission', (answer) => ({ ...answer, permissions: { contents: 'read', issues: 'read' } })],
    ['with a higher level', (answer) => ({ ...answer, permissions: { contents: 'write' } })],
    ['with a level nobody knows', (answer) => ({ ...answer, permissions: { contents: 'owner' } })],
    [
      'with more of metadata than reading',
      (answer) => ({ ...answer, permissions: { contents: 'read', metadata: 'write' } }),
    ],
    ['that does not say what it may do', ({ permissions: _none, ...answer }) => answer],
  ]

  test.each(tampered)('%s, and revokes it at once', async (_what, tamper) => {
    github.tamper = tamper
    const error = await failure(provider())
    expect(error.code).toBe('credential_too_wide')
    expect([...github.tokens.values()].at(-1)?.isRevoked).toBe(true)
    for (const token of github.tokens.keys()) expect(`${error.message} ${error.detail}`).not.toContain(token)
    expect(error.detail).not.toMatch(/tools|globex|new-site/)
  })

  test('of the installation that settings name when the path names another owner', async () => {
    const error = await failure(provider({ installation_id: 678 }), role('globex', 'site', ['contents', 'read']))
    expect(error.code).toBe('credential_too_wide')
    expect([...github.tokens.values()].at(-1)?.isRevoked).toBe(true)
  })

  test('that is none: an empty answer, an end that is no time, a list', async () => {
    for (const answer of [{ token: '' }, { token: 'a', expires_at: 'soon' }, { token: ['a'] }]) {
      github.tamper = () => answer
      expect((await failure(provider())).code).toBe('credential_unavailable')
    }
    github.interrupt = ({ method }) => (method === 'POST' ? { status: 201, text: '[]' } : undefined)
    expect((await failure(provider())).code).toBe('credential_unavailable')
  })

  test('that ends later than an hour from now counts as one of an hour', async () => {
    github.tamper = (answer) => ({ ...answer, expires_at: '2099-01-01T00:00:00Z' })
    expect((await issue(provider())).expiresAt).toBeLessThanOrEqual(Date.now() / 1000 + 3600)
  })
})

describe('says what to change when', () => {
  test.each([
    ['the app is not installed', role('nobody', 'site', ['contents', 'read']), 'not installed'],
    ['the repository is not one of the installation', role('acme', 'secret', ['contents', 'read']), 'not installed'],
    ['the app may not', role('acme', 'site', ['administration', 'write']), 'administration:write'],
    ['nothing would be asked for, which is everything to GitHub', role('acme', 'site'), 'does not have'],
  ])('%s', async (_what, asked, words) => {
    const error = await failure(provider(), asked)
    expect(error).toMatchObject({ code: 'credential_rejected' })
    expect(error.detail).toContain(words)
  })

  test('the installation is suspended', async () => {
    for (const installation of github.installations) installation.suspended = true
    expect((await failure(provider())).detail).toContain('suspended')
    expect((await failure(provider({ installation_id: 678 }))).detail).toContain('suspended')
  })

  test('the repository has moved: nothing is followed', async () => {
    github.interrupt = () => ({ status: 301, headers: { location: `${github.url}/repositories/1/installation` } })
    expect((await failure(provider())).detail).toContain('another name')
    expect(github.asked).toHaveLength(1)
  })

  test('the call names nobody and no installation is configured', async () => {
    expect((await failure(provider(), role(null, null, ['metadata', 'read']))).detail).toContain('installation_id')
  })

  test('an installation that was remembered is gone: it is forgotten, and the next call finds the new one', async () => {
    const app = provider()
    await issue(app)
    github.interrupt = ({ method }) => (method === 'POST' ? { status: 404 } : undefined)
    expect((await failure(app)).code).toBe('credential_unavailable')
    github.interrupt = undefined
    await issue(app)
    expect(lookUps()).toBe(2)
  })
})

describe('rate limits', () => {
  const reset = () => String(Math.floor(Date.now() / 1000) + 120)
  test.each([
    ['429 with Retry-After', () => ({ status: 429, headers: { 'retry-after': '7' } }), 7],
    ['403 with Retry-After', () => ({ status: 403, headers: { 'retry-after': '60' } }), 60],
    [
      '403 with nothing remaining',
      () => ({ status: 403, headers: { 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': reset() } }),
      120,
    ],
  ])('%s: try again, and after how long', async (_what, answer, seconds) => {
    github.interrupt = () => answer()
    const error = await failure(provider())
    expect(error.code).toBe('credential_unavailable')
    expect((error.retryAfterMs ?? 0) / 1000).toBeGreaterThan(seconds - 2)
    expect((error.retryAfterMs ?? 0) / 1000).toBeLessThanOrEqual(seconds)
  })
})

function lookUps(): number {
  return github.asked.filter(({ path }) => path.endsWith('/installation')).length
}
