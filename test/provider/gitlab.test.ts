import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Catalogue } from '../../gateway/policy/catalogue/catalogue.ts'
import type { Clock } from '../../gateway/protocol/clock.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import type { Endpoint } from '../../gateway/protocol/service.ts'
import { gitlabRole } from '../../gateway/provider/gitlab/role.ts'
import type { Credential, Provider } from '../../gateway/provider/provider.ts'
import { createProvider, credentialSchema } from '../../gateway/provider/registry.ts'
import { providerConformance } from '../conformance/provider.ts'
import { grant, service } from '../lease/lease.fixture.ts'
import { catalogueOf, inbound } from '../policy/policy.fixture.ts'
import { type FakeGitlab, MAKER, startGitlab } from './gitlab.fixture.ts'
import { issuingAs, providerTools } from './tools.fixture.ts'

const dir = mkdtempSync(join(tmpdir(), 'keyless-gitlab-'))
const DAY_S = 86_400
let gitlab: FakeGitlab
let catalogue: Catalogue
let nowMs: number | undefined
const clock: Clock = { nowMs: () => nowMs ?? Date.now(), elapsedMs: () => performance.now() }

beforeAll(async () => {
  gitlab = await startGitlab(clock)
  catalogue = await catalogueOf('gitlab')
  writeFileSync(join(dir, 'maker'), MAKER)
  writeFileSync(join(dir, 'wrong'), 'canary-wrong')
})

afterEach(() => {
  nowMs = undefined
  gitlab.asked.length = 0
  gitlab.interrupt = undefined
  gitlab.tamper = undefined
})

afterAll(async () => {
  await gitlab.stop()
  rmSync(dir, { recursive: true, force: true })
})

function provider(o: Record<string, unknown> = {}): Provider {
  const written = { provider: 'gitlab', token: { file: 'maker' }, url: gitlab.url, addresses: ['127.0.0.1/32'], ...o }
  return createProvider(
    credentialSchema.parse(written),
    providerTools(dir, { fetchFor: () => globalThis.fetch, clock }),
  )
}

const READ_SITE = JSON.stringify(['projects', 'acme/site', 'read_api', 20])
const as = (role: string, from = provider()): Provider => issuingAs(role, from)
const issue = (from: Provider, ttlS = 300): Promise<Credential> =>
  from.issue({ service: service(), grant: grant(), ttlS, role: undefined }, new AbortController().signal)

async function failure(from: Provider): Promise<GatewayError> {
  const error = await issue(from).catch((cause: unknown) => cause)
  expect(error).toBeInstanceOf(GatewayError)
  return error as GatewayError
}

providerConformance('gitlab', () => ({
  working: () => as(READ_SITE),
  isEphemeral: true,
  lifeS: midnightAfter(Date.now() / 1000 + 360) - Math.floor(Date.now() / 1000),
  wider: () => [
    ['another maker', provider({ token: { file: 'wrong' } })],
    ['another instance', provider({ url: 'http://127.0.0.1:1' })],
    ['a group for what names none', provider({ group: 'acme' })],
  ],
  failing: () => [
    ['a maker that GitLab does not know', 'credential_rejected', as(READ_SITE, provider({ token: { file: 'wrong' } }))],
    ['a project it does not see', 'credential_rejected', as(JSON.stringify(['projects', 'acme/hidden', 'api', 30]))],
    ['a higher role than its own', 'credential_rejected', as(JSON.stringify(['projects', 'acme/site', 'api', 50]))],
    ['no maker', 'credential_unconfigured', as(READ_SITE, provider({ token: { file: 'absent' } }))],
    ['an instance that is down', 'credential_unavailable', as(READ_SITE, provider({ url: 'http://127.0.0.1:1' }))],
  ],
  hanging: () => {
    gitlab.interrupt = () => 'hang'
    return as(READ_SITE)
  },
  secrets: () => [MAKER, 'canary-wrong'],
}))

function midnightAfter(nowS: number): number {
  return (Math.floor(nowS / DAY_S) + 1) * DAY_S
}

describe('a token', () => {
  test('is for the project, scope and role of the call, and named after the task', async () => {
    const token = gitlab.tokens.get((await issue(as(READ_SITE))).secret.reveal())
    expect(token).toMatchObject({ place: 'projects/acme/site', scopes: ['read_api'], accessLevel: 20 })
    expect(token?.name).toBe('keyless task-1')
  })

  test('ends at the next midnight of UTC, or a day later where that is too soon', async () => {
    nowMs = Date.UTC(2026, 5, 1, 12)
    expect((await issue(as(READ_SITE))).expiresAt).toBe(Date.UTC(2026, 5, 2) / 1000)
    nowMs = Date.UTC(2026, 5, 1, 23, 53, 59)
    expect((await issue(as(READ_SITE))).expiresAt).toBe(Date.UTC(2026, 5, 2) / 1000)
    nowMs = Date.UTC(2026, 5, 1, 23, 54, 1)
    expect((await issue(as(READ_SITE))).expiresAt).toBe(Date.UTC(2026, 5, 3) / 1000)
  })

  test('is ended by its maker, even after a restart, and ending it twice does no harm', async () => {
    const credential = await issue(as(READ_SITE))
    const later = provider()
    await later.revoke?.(credential, new AbortController().signal)
    expect(gitlab.tokens.get(credential.secret.reveal())?.isRevoked).toBe(true)
    await later.revoke?.(credential, new AbortController().signal)
  })

  test('cannot be ended while GitLab is down, which is said', async () => {
    const credential = await issue(as(READ_SITE))
    gitlab.interrupt = () => ({ status: 502 })
    await expect(provider().revoke?.(credential, new AbortController().signal)).rejects.toBeInstanceOf(GatewayError)
  })

  test('ends on the day that GitLab says, where it allows less than was asked for', async () => {
    nowMs = Date.UTC(2026, 5, 1, 23, 54, 1)
    gitlab.tamper = (answer) => ({ ...answer, expires_at: '2026-06-02' })
    expect((await issue(as(READ_SITE))).expiresAt).toBe(Date.UTC(2026, 5, 2) / 1000)
  })

  test.each([
    ['with more scope', { scopes: ['read_api', 'api'] }],
    ['with a higher role', { access_level: 40 }],
    ['that ends later', { expires_at: '2099-01-01' }],
  ])('%s than was asked for is revoked at once and refused', async (_what, wider) => {
    gitlab.tamper = (answer) => ({ ...answer, ...wider })
    expect((await failure(as(READ_SITE))).code).toBe('credential_too_wide')
    expect([...gitlab.tokens.values()].at(-1)?.isRevoked).toBe(true)
  })

  test('is refused for the moment when GitLab is busy, with the time that it says', async () => {
    gitlab.interrupt = () => ({ status: 429, headers: { 'retry-after': '30' } })
    expect(await failure(as(READ_SITE))).toMatchObject({ code: 'credential_unavailable', retryAfterMs: 30_000 })
  })

  test('follows no redirect with the maker in its hand', async () => {
    gitlab.interrupt = () => ({ status: 302, headers: { location: 'http://127.0.0.1:1/' } })
    expect((await failure(as(READ_SITE))).code).toBe('credential_rejected')
    expect(gitlab.asked).toHaveLength(1)
  })
})

describe('the place of a call', () => {
  const at = (method: string, rawPath: string): Endpoint =>
    catalogue.locate(inbound({ method, host: 'gitlab.com', rawPath, hostHeader: 'gitlab.com' }))
  const roleAt = (method: string, path: string, group?: string) => JSON.parse(gitlabRole(at(method, path), group))

  test.each([
    ['GET', '/api/v4/projects/42/issues', ['projects', '42', 'read_api', 20]],
    ['GET', '/api/v4/projects/Acme%2FSub%2FSite/issues', ['projects', 'acme/sub/site', 'read_api', 20]],
    ['POST', '/api/v4/projects/acme%2fsite/merge_requests', ['projects', 'acme/site', 'api', 30]],
    ['GET', '/acme/site.git/info/refs?service=git-upload-pack', ['projects', 'acme/site', 'read_repository', 20]],
    ['POST', '/acme/sub/site.git/git-receive-pack', ['projects', 'acme/sub/site', 'write_repository', 30]],
    ['GET', '/api/v4/groups/acme', ['groups', 'acme', 'read_api', 10]],
  ])('%s %s', (method, path, expected) => {
    expect(roleAt(method, path)).toEqual(expected)
  })

  test('is the group of the settings where the path names none, and refused without one', () => {
    expect(roleAt('GET', '/api/v4/projects', 'Acme')).toEqual(['groups', 'acme', 'read_api', 20])
    expect(() => roleAt('GET', '/api/v4/projects')).toThrow(
      expect.objectContaining({ code: 'credential_unconfigured' }),
    )
  })

  test('what needs a user, and GraphQL, get nothing', () => {
    for (const [method, path] of [
      ['GET', '/api/v4/user'],
      ['POST', '/api/graphql'],
      ['POST', '/api/v4/projects/42/access_tokens'],
    ] as const)
      expect(() => roleAt(method, path, 'acme')).toThrow(expect.objectContaining({ code: 'credential_unconfigured' }))
  })

  test.each([
    '/api/v4/projects/site/issues',
    '/api/v4/projects/acme%2Fsite.git/issues',
    '/api/v4/projects/acme%2F%2Fsite/issues',
    '/api/v4/projects/-acme%2Fsite/issues',
    '/api/v4/projects/acme%20x%2Fsite/issues',
    '/api/v4/projects/042/issues',
    '/api/v4/projects/%2e%2e%2Fsite/issues',
  ])('that could be read in two ways gets nothing: %s', (path) => {
    expect(() => roleAt('GET', path)).toThrow(GatewayError)
  })
})
