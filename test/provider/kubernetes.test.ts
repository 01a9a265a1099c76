import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import type { GatewayError } from '../../gateway/protocol/problem.ts'
import type { Endpoint } from '../../gateway/protocol/service.ts'
import type { IssueRequest, Provider } from '../../gateway/provider/provider.ts'
import { createProvider, credentialSchema } from '../../gateway/provider/registry.ts'
import { providerConformance } from '../conformance/provider.ts'
import { grant, service } from '../lease/lease.fixture.ts'
import { type Answered, type Asked, type JsonServer, startJsonServer } from './json-server.fixture.ts'
import { providerTools } from './tools.fixture.ts'

const dir = mkdtempSync(join(tmpdir(), 'keyless-kubernetes-'))
const OWN = 'canary-own-token'
/** Names of Secrets that are there → uid. */
const secrets = new Map<string, string>()
let server: JsonServer

/** An API server as `authentication.k8s.io/v1` and `v1` Secrets are documented, for the namespace `agents`. */
function answer({ method, path, headers, body }: Asked): Answered {
  const status = (code: number, reason: string): Answered => ({
    status: code,
    json: { kind: 'Status', apiVersion: 'v1', status: 'Failure', code, reason, message: 'canary-message' },
  })
  if (headers.authorization !== `Bearer ${OWN}`) return status(401, 'Unauthorized')
  const [, rest = ''] = /^\/api\/v1\/namespaces\/agents\/(.+)$/.exec(path) ?? []
  if (method === 'POST' && rest === 'secrets') {
    const { metadata } = body as { metadata: { name: string; annotations: Record<string, string> } }
    const uid = `uid-${secrets.size}`
    secrets.set(metadata.name, uid)
    return { status: 201, json: { kind: 'Secret', metadata: { ...metadata, uid } } }
  }
  if (method === 'DELETE') {
    const name = rest.replace('secrets/', '')
    if (!secrets.has(name)) return status(404, 'NotFound')
    const { preconditions } = body as { preconditions: { uid: string } }
    if (preconditions.uid !== secrets.get(name)) return status(409, 'Conflict')
    secrets.delete(name)
    return { status: 200, json: { kind: 'Status', status: 'Success' } }
  }
  const account = /^serviceaccounts\/([a-z-]+)\/token$/.exec(rest)?.[1]
  if (account === undefined || account === 'absent') return status(404, 'NotFound')
  if (account === 'forbidden') return status(403, 'Forbidden')
  return tokenFor(body as TokenRequest, status)
}

interface TokenRequest {
  readonly spec: {
    readonly audiences: string[]
    readonly expirationSeconds: number
    readonly boundObjectRef?: { readonly kind: string; readonly name: string; readonly uid?: string }
  }
}

function tokenFor({ spec }: TokenRequest, status: (code: number, reason: string) => Answered): Answered {
  const { audiences, expirationSeconds, boundObjectRef: bound } = spec
  if (expirationSeconds < 600) return status(422, 'Invalid')
  if (bound?.uid !== undefined && secrets.get(bound.name) !== bound.uid) return status(409, 'Conflict')
  const expirationTimestamp = new Date(Date.now() + expirationSeconds * 1000).toISOString().replace(/\.\d+Z/, 'Z')
  const token = `canary-token-${Math.random()}`
  const granted = audiences.length === 0 ? ['https://kubernetes.default.svc'] : audiences
  return {
    status: 201,
    json: { kind: 'TokenRequest', spec: { ...spec, audiences: granted }, status: { token, expirationTimestamp } },
  }
}

beforeAll(async () => {
  server = await startJsonServer(answer)
  writeFileSync(join(dir, 'own'), OWN)
  writeFileSync(join(dir, 'other'), 'canary-other')
})
afterEach(() => {
  server.interrupt = undefined
})
afterAll(async () => {
  await server.stop()
  rmSync(dir, { recursive: true, force: true })
})

function provider(o: Record<string, unknown> = {}): Provider {
  const config = credentialSchema.parse({
    provider: 'kubernetes',
    server: server.url,
    addresses: ['127.0.0.1/32'],
    namespace: 'agents',
    service_account: 'triage',
    token: { file: 'own' },
    ...o,
  })
  return createProvider(config, providerTools(dir, { fetchFor: () => globalThis.fetch }))
}

const ask = (o: Partial<IssueRequest> = {}): IssueRequest => ({
  service: service(),
  grant: grant(),
  ttlS: 300,
  role: undefined,
  ...o,
})
const issue = (from: Provider, o: Partial<IssueRequest> = {}) => from.issue(ask(o), new AbortController().signal)
const failure = (promise: Promise<unknown>): Promise<GatewayError> =>
  promise.then(
    () => expect.unreachable(),
    (cause) => cause,
  )

providerConformance('kubernetes', () => ({
  working: () => provider({ revocable: true }),
  isEphemeral: true,
  lifeS: 600,
  wider: () => [
    ['another cluster', provider({ revocable: true, server: 'https://other.test' })],
    ['another namespace', provider({ revocable: true, namespace: 'kube-system' })],
    ['another account', provider({ revocable: true, service_account: 'admin' })],
    ['accounts by operation', provider({ revocable: true, service_account: { read: 'triage' } })],
    ['an audience', provider({ revocable: true, audiences: ['vault'] })],
    ['nothing that it is bound to', provider()],
    ['another object', provider({ bound_to: { kind: 'Pod', name: 'agent-0' } })],
    ['another token', provider({ revocable: true, token: { file: 'other' } })],
  ],
  failing: () => [
    ['an unknown own token', 'credential_rejected', provider({ token: { file: 'other' } })],
    ['no such account', 'credential_rejected', provider({ service_account: 'absent' })],
    ['an account that is refused', 'credential_rejected', provider({ service_account: 'forbidden' })],
    [
      'an object that is gone',
      'credential_rejected',
      provider({ bound_to: { kind: 'Secret', name: 'x', uid: 'gone' } }),
    ],
    ['a server that is down', 'credential_unavailable', provider({ server: 'http://127.0.0.1:1' })],
    ['no own token', 'credential_unconfigured', provider({ token: { file: 'absent' } })],
  ],
  hanging: () => {
    server.interrupt = () => 'hang'
    return provider()
  },
  secrets: () => [OWN, 'canary-other'],
}))

test('asks for the least that a cluster gives, never for less and never for what it makes a year of', async () => {
  const lives: unknown[] = []
  for (const ttlS of [1, 600, 3600, 3607]) {
    await issue(provider(), { ttlS })
    const asked = server.asked.at(-1)?.body as TokenRequest | undefined
    lives.push(asked?.spec.expirationSeconds)
  }
  expect(lives).toEqual([600, 600, 3600, 3606])
})

test('takes the account that the operation, or its access, is meant to have', () => {
  const { role } = provider({ service_account: { read: 'viewer', write: 'editor', 'secrets.read': 'keeper' } })
  const call = (access: string, id = 'x') =>
    ({ operation: { id, name: `kubernetes:${id}`, access } }) as unknown as Endpoint
  expect(role?.(call('read'), grant())).toBe('viewer')
  expect(role?.(call('read', 'secrets.read'), grant())).toBe('keeper')
  expect(() => role?.(call('admin'), grant())).toThrow(/No credential is meant for kubernetes:x/)
})

test('binds the token to a Secret that says for whom it is, and ends it by deleting that', async () => {
  const one = provider({ revocable: true })
  const before = secrets.size
  const credential = await issue(one)
  const [made, token] = server.asked.slice(-2).map(({ body }) => body as Record<string, Record<string, unknown>>)
  expect(made?.metadata?.annotations).toMatchObject({
    'keyless/sub': 'ana',
    'keyless/task': 'task-1',
    'keyless/lineage_hash': 'lineage',
  })
  expect(token?.spec?.boundObjectRef).toMatchObject({ apiVersion: 'v1', kind: 'Secret', name: made?.metadata?.name })
  expect(secrets.size).toBe(before + 1)
  await one.revoke?.(credential, new AbortController().signal)
  expect(secrets.size).toBe(before)
  await one.revoke?.(credential, new AbortController().signal) // again: it is gone already
  server.interrupt = () => ({ status: 503 })
  expect(await failure(one.revoke?.(credential, new AbortController().signal) ?? Promise.resolve())).toMatchObject({
    code: 'credential_unavailable',
  })
  expect(provider().revoke, 'a token that is bound to nothing').toBeUndefined()
})

test('leaves no Secret behind when there is no token', async () => {
  const before = secrets.size
  await failure(issue(provider({ revocable: true, service_account: 'forbidden' })))
  expect(secrets.size).toBe(before)
})

const later = (seconds: number) => new Date(Date.now() + seconds * 1000).toISOString()

test.each([
  ['a longer life', { spec: {}, status: { token: 't', expirationTimestamp: later(7200) } }],
  [
    'other audiences',
    { spec: { audiences: ['vault', 'db'] }, status: { token: 't', expirationTimestamp: later(600) } },
  ],
])('refuses a token with %s than was asked for', async (_, json) => {
  server.interrupt = () => ({ status: 201, json })
  expect(await failure(issue(provider({ audiences: ['vault'] })))).toMatchObject({ code: 'credential_too_wide' })
})

test('believes the earlier of its own clock and that of the cluster', async () => {
  server.interrupt = () => ({
    status: 201,
    json: { spec: {}, status: { token: 't', expirationTimestamp: later(640) } },
  })
  expect((await issue(provider())).expiresAt - Date.now() / 1000).toBeLessThanOrEqual(600)
  server.interrupt = () => ({
    status: 201,
    json: { spec: {}, status: { token: 't', expirationTimestamp: later(100) } },
  })
  expect((await issue(provider())).expiresAt - Date.now() / 1000).toBeLessThanOrEqual(100)
})

test.each([
  ['500', { status: 500 }, 'credential_unavailable'],
  ['429', { status: 429, headers: { 'retry-after': '3' } }, 'credential_unavailable'],
  ['a redirect', { status: 302, headers: { location: 'https://evil.test' } }, 'credential_rejected'],
  ['nothing', { status: 201, text: '' }, 'credential_unavailable'],
  ['no end', { status: 201, json: { spec: {}, status: { token: 't' } } }, 'credential_unavailable'],
  [
    'an end that is no time',
    { status: 201, json: { spec: {}, status: { token: 't', expirationTimestamp: 'soon' } } },
    'credential_unavailable',
  ],
])('gives no credential when the answer is %s', async (_, said, code) => {
  server.interrupt = () => said
  expect(await failure(issue(provider()))).toMatchObject({ code })
})

test.each([
  [{ namespace: '../kube-system' }, /not a name of Kubernetes/],
  [{ service_account: 'a/b' }, /Invalid input|not a name/],
  [{ bound_to: { kind: 'Pod', name: 'x' }, revocable: true }, /one too many/],
  [{ server: 'http://kube.acme.test' }, /not https/],
])('is refused at the start when it cannot be meant: %j', (o, message) => {
  expect(() => provider(o)).toThrow(message)
})
