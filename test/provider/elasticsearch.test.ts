import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import type { GatewayError } from '../../gateway/protocol/problem.ts'
import type { Endpoint } from '../../gateway/protocol/service.ts'
import type { IssueRequest, Provider } from '../../gateway/provider/provider.ts'
import { createProvider, credentialSchema } from '../../gateway/provider/registry.ts'
import { providerConformance } from '../conformance/provider.ts'
import { grant, service } from '../lease/lease.fixture.ts'
import { type Answered, type Asked, type JsonServer, startJsonServer } from './json-server.fixture.ts'
import { providerTools } from './tools.fixture.ts'

const dir = mkdtempSync(join(tmpdir(), 'keyless-elasticsearch-'))
const PASSWORD = 'canary-password'
/** Keys that are valid → what they were made with. */
const keys = new Map<string, unknown>()
let server: JsonServer

/** A cluster as the create and invalidate API key endpoints of version 8 are documented. */
function answer({ method, path, headers, body }: Asked): Answered {
  if (path !== '/_security/api_key') return { status: 400, json: { error: 'no handler' } }
  const own = Buffer.from(`gateway:${PASSWORD}`).toString('base64')
  if (headers.authorization === 'Bearer canary-derived')
    return { status: 400, json: { error: { reason: 'canary-reason' } } }
  if (headers.authorization !== `Basic ${own}`) return { status: 401, json: { error: {}, status: 401 } }
  if (method === 'POST') {
    const { name, expiration } = body as { name: string; expiration: string }
    const id = `id-${Math.random().toString(36).slice(2)}`
    keys.set(id, body)
    const api_key = `canary-${Math.random().toString(36).slice(2)}`
    const encoded = Buffer.from(`${id}:${api_key}`).toString('base64')
    return {
      status: 200,
      json: { id, name, expiration: Date.now() + Number.parseInt(expiration, 10) * 1000, api_key, encoded },
    }
  }
  const { ids, owner } = body as { ids: string[]; owner: boolean }
  if (!owner) return { status: 403, json: { error: {}, status: 403 } }
  const invalidated_api_keys = ids.filter((id) => keys.delete(id))
  return { status: 200, json: { invalidated_api_keys, previously_invalidated_api_keys: [], error_count: 0 } }
}

beforeAll(async () => {
  server = await startJsonServer(answer)
  writeFileSync(join(dir, 'password'), PASSWORD)
  writeFileSync(join(dir, 'wrong'), 'canary-wrong')
  writeFileSync(join(dir, 'derived'), 'canary-derived')
})
afterEach(() => {
  server.interrupt = undefined
})
afterAll(async () => {
  await server.stop()
  rmSync(dir, { recursive: true, force: true })
})

const reading = { indices: [{ names: ['{params.index}'], privileges: ['read'] }] }
const own = { username: 'gateway', password: { file: 'password' } }

function provider(o: Record<string, unknown> = {}): Provider {
  const config = credentialSchema.parse({
    provider: 'elasticsearch',
    url: server.url,
    addresses: ['127.0.0.1/32'],
    own,
    roles: { read: reading },
    ...o,
  })
  return createProvider(config, providerTools(dir, { fetchFor: () => globalThis.fetch }))
}

const endpoint = (params: Record<string, string>, access = 'read') =>
  ({ operation: { id: 'search', name: 'search:search', access }, params }) as unknown as Endpoint

/** As the lease room asks it: with the role of the call. */
function asked(from: Provider, index = 'logs'): Provider {
  return {
    ...from,
    issue: (request, signal) =>
      from.issue({ ...request, role: from.role?.(endpoint({ index }), request.grant) }, signal),
  }
}

const request = (o: Partial<IssueRequest> = {}): IssueRequest => ({
  service: service(),
  grant: grant(),
  ttlS: 300,
  role: undefined,
  ...o,
})
const issue = (from: Provider) => asked(from).issue(request(), new AbortController().signal)
const failure = (promise: Promise<unknown>): Promise<GatewayError> =>
  promise.then(
    () => expect.unreachable(),
    (cause) => cause,
  )

providerConformance('elasticsearch', () => ({
  working: () => asked(provider()),
  isEphemeral: true,
  lifeS: 300,
  wider: () => [
    ['another cluster', provider({ url: 'https://other.test' })],
    ['another user', provider({ own: { ...own, username: 'admin' } })],
    ['another secret', provider({ own: { ...own, password: { file: 'wrong' } } })],
    ['a bearer token', provider({ own: { token: { file: 'password' } } })],
    ['another role', provider({ roles: { read: { ...reading, cluster: ['monitor'] } } })],
  ],
  failing: () => [
    ['a wrong password', 'credential_rejected', asked(provider({ own: { ...own, password: { file: 'wrong' } } }))],
    ['a key that makes keys', 'credential_rejected', asked(provider({ own: { token: { file: 'derived' } } }))],
    ['no password', 'credential_unconfigured', asked(provider({ own: { ...own, password: { file: 'absent' } } }))],
    ['a cluster that is down', 'credential_unavailable', asked(provider({ url: 'http://127.0.0.1:1' }))],
    ['a call without a role', 'credential_unconfigured', provider()],
  ],
  hanging: () => {
    server.interrupt = () => 'hang'
    return asked(provider())
  },
  secrets: () => [PASSWORD, 'canary-derived', 'canary-wrong'],
}))

test('makes a key for the index of the path, that says for whom it is and ends by itself', async () => {
  const credential = await issue(provider())
  const [id = '', key = ''] = Buffer.from(credential.secret.reveal(), 'base64').toString().split(':')
  expect(key).toMatch(/^canary-/)
  expect(keys.get(id)).toMatchObject({
    expiration: '300s',
    role_descriptors: { read: { indices: [{ names: ['logs'], privileges: ['read'] }] } },
    metadata: { sub: 'ana', agent: 'spiffe://test/agent', task: 'task-1', lineage_hash: 'lineage' },
  })
})

test('names the bare key too as what must not come back', async () => {
  const one = provider()
  const credential = await issue(one)
  const bare = Buffer.from(credential.secret.reveal(), 'base64').toString().split(':')[1]
  expect(one.derived?.(credential, service()).map((secret) => secret.reveal())).toContain(bare)
})

test('invalidates the key, and believes the answer, not its status', async () => {
  const one = provider()
  const credential = await issue(one)
  const before = keys.size
  await one.revoke?.(credential, new AbortController().signal)
  expect(keys.size).toBe(before - 1)
  const again = one.revoke?.(credential, new AbortController().signal) ?? Promise.resolve()
  expect(await failure(again)).toMatchObject({ code: 'credential_rejected' })
})

test('refuses a key without an end, or with a later one than was asked for, and invalidates it', async () => {
  for (const expiration of [undefined, Date.now() + 3_600_000]) {
    const ended: unknown[] = []
    server.interrupt = ({ method, body }) => {
      if (method === 'POST') return { status: 200, json: { id: 'wide', name: 'x', api_key: 'k', expiration } }
      ended.push((body as { ids: string[] }).ids)
      return { status: 200, json: { invalidated_api_keys: ['wide'], previously_invalidated_api_keys: [] } }
    }
    expect(await failure(issue(provider()))).toMatchObject({ code: 'credential_too_wide' })
    expect(ended).toEqual([['wide']])
  }
})

test('believes the earlier of its own clock and that of the cluster', async () => {
  for (const seconds of [330, 100]) {
    const expiration = Date.now() + seconds * 1000
    server.interrupt = () => ({ status: 200, json: { id: 'x', name: 'x', api_key: 'k', expiration } })
    const { expiresAt } = await issue(provider())
    expect(expiresAt - Date.now() / 1000).toBeLessThanOrEqual(Math.min(seconds, 300))
  }
})

test('is for the indices that the path names and no others, whatever the path says', () => {
  const one = provider({ roles: { read: { ...reading, metadata: { for: '{params.index}' } } } })
  const names = (index: string) => JSON.parse(one.role?.(endpoint({ index }), grant()) ?? '{}').read.indices[0].names
  expect(names('logs-2026.11')).toEqual(['logs-2026.11'])
  expect(names('b,a*')).toEqual(['a*', 'b'])
  for (const index of ['', 'a,', '-a', '/.*/', '<logs-{now/d}>', '_all', 'a b', 'A', '"', '{params.index}'])
    expect(() => names(index), index).toThrow(/No API key is meant/)
  fc.assert(
    fc.property(fc.string(), (index) => {
      let made: string[]
      try {
        made = names(index)
      } catch {
        return
      }
      expect(made.toSorted()).toEqual(index.split(',').toSorted())
    }),
  )
  expect(() => one.role?.(endpoint({}), grant())).toThrow(/params\.index/)
  expect(() => one.role?.(endpoint({ index: 'a' }, 'write'), grant())).toThrow(/search:search/)
})

test.each([
  ['500', { status: 500 }, 'credential_unavailable'],
  ['429', { status: 429, headers: { 'retry-after': '3' } }, 'credential_unavailable'],
  ['403', { status: 403 }, 'credential_rejected'],
  ['no key', { status: 200, json: { id: 'x' } }, 'credential_unavailable'],
  [
    'a key with a line break',
    { status: 200, json: { id: 'x', api_key: 'a\nb', expiration: 1 } },
    'credential_unavailable',
  ],
])('gives no credential when the answer is %s', async (_, said, code) => {
  server.interrupt = () => said
  expect(await failure(issue(provider()))).toMatchObject({ code })
})

test.each([
  [{ roles: {} }, /says nothing/],
  [{ own: { api_key: 'x' } }, /username, password/],
  [{ url: 'http://es.acme.test' }, /not https/],
])('is refused at the start when it cannot be meant: %j', (o, message) => {
  expect(() => provider(o)).toThrow(message)
})
