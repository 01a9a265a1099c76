/** What every kind of credential promises, over the whole table: a page, an identity that misses no setting, and no secret where none belongs. */
import { generateKeyPairSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { inspect, isDeepStrictEqual } from 'node:util'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { z } from 'zod'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { Secret } from '../../gateway/protocol/secret.ts'
import type { Endpoint } from '../../gateway/protocol/service.ts'
import type { Provider } from '../../gateway/provider/provider.ts'
import { createProvider, credentialSchema, type ProviderTools, providerKinds } from '../../gateway/provider/registry.ts'
import type { VaultConnection } from '../../gateway/provider/vault/connection.ts'
import { grant, service } from '../lease/lease.fixture.ts'
import { ROOT } from '../rig/process.ts'
import { providerTools } from './tools.fixture.ts'

type Config = Readonly<Record<string, unknown>>
type Kind = keyof typeof providerKinds

const HEADINGS = ['Settings', 'What is issued', 'Lifetime', 'Narrowing', 'Revoking', 'Errors']
const addresses = ['10.0.0.0/8']
const oauth = {
  ...{ token_url: 'https://id.acme.test/token', revocation_url: 'https://id.acme.test/revoke', addresses },
  ...{ assertion_audience: 'https://id.acme.test', scope: 'a b', resource: 'https://api.acme.test', dpop: true },
  ...{ token_audience: 'https://api.acme.test', fallback: 'other' },
}
const clients: readonly Config[] = [
  { client_id: 'keyless', client_auth: 'client_secret_basic', client_secret: { file: 'secret' } },
  { client_id: 'keyless', client_auth: 'private_key_jwt', key: { file: 'key' }, kid: 'one' },
  {
    ...{ client_id: 'keyless', client_auth: 'tls_client_auth', certificate_bound: true },
    ...{ client_certificate: { file: 'cert' }, client_key: { file: 'key' } },
  },
  { client_id: 'keyless', client_auth: 'assertion' },
]
const assertion = { assertion: { audience: 'x', algorithm: 'RS256', lifetime_s: 60, claims: { sub: '{agent}' } } }

const POOL_PROVIDER = '//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/a/providers/b'

/** Together they have every setting of their kind; a test holds that. */
const full: Readonly<Record<Kind, readonly Config[]>> = {
  aws: [
    {
      ...{ region: 'eu-central-1', regions: ['eu-central-1'], role_arn: 'arn:aws:iam::123456789012:role/a', addresses },
      ...{ source: { access_key_id: { env: 'A' }, secret_access_key: { env: 'B' }, session_token: { env: 'C' } } },
      ...{ session: 'role', duration_s: 900, session_policy: 'grant', policy_arns: ['arn:aws:iam::aws:policy/a'] },
      ...{ external_id: 'one', source_identity: true, lineage_tags: true, tags: { a: 'b' }, transitive_tags: false },
      ...{ sts_url: 'https://sts.acme.test', fallback: 'other' },
    },
    { region: 'eu-central-1', role_arn: 'arn:aws:iam::123456789012:role/a', source: { assertion: { audience: 'a' } } },
    {
      region: 'eu-central-1',
      session: 'none',
      source: { access_key_id: { env: 'A' }, secret_access_key: { env: 'B' } },
    },
    { region: 'eu-central-1', role_arn: 'arn:aws:iam::123456789012:role/a', source: { token: { file: 'token' } } },
  ],
  azure: [
    { client_secret: { file: 'secret' } },
    { certificate: { file: 'pem' } },
    { federation: { subject: 'a', audience: 'b' } },
  ].map((proof) => ({
    ...{ tenant: '11111111-2222-3333-4444-555555555555', client_id: '66666666-7777-8888-9999-000000000000' },
    ...{ scope: 'https://graph.microsoft.com/.default', cloud: 'public', authority_url: 'https://a.test', addresses },
    ...{ ...proof, fallback: 'other' },
  })),
  basic: [
    { username: 'ana', password: { file: 'password' }, fallback: 'other' },
    { username: { file: 'user' }, password: { file: 'password' } },
  ],
  elasticsearch: [{ username: 'ana', password: { file: 'password' } }, { token: { file: 'token' } }].map((own) => ({
    ...{ url: 'https://search.acme.test', own, addresses, fallback: 'other' },
    roles: { read: { indices: [{ names: ['a'], privileges: ['read'] }] } },
  })),
  exec: [{ command: ['op', 'read'], ttl_s: 60, fallback: 'other' }],
  github_app: [{ app_id: 7 }, { client_id: 'Iv1.a' }].map((id) => ({
    ...{ ...id, private_key: { file: 'pem' }, installation_id: 7, api_url: 'https://api.acme.test', per: 'call' },
    ...{ otherwise: { issues: 'read' }, addresses, fallback: 'other' },
  })),
  gitlab: [{ token: { file: 'maker' }, url: 'https://gitlab.acme.test', group: 'acme', addresses, fallback: 'other' }],
  google: [
    { key: { file: 'key' }, subject: 'ana@acme.test', scope: 'a b', token_url: 'https://t.test', fallback: 'other' },
    { key: { file: 'key' }, self_signed: true, scope: 'a', addresses },
    {
      ...{
        federation: { provider: POOL_PROVIDER, audience: 'a' },
        impersonate: 'r@acme.test',
        delegates: ['d@acme.test'],
      },
      ...{ storage: 'bucket', sts_url: 'https://s.test', iam_url: 'https://i.test' },
    },
  ],
  hmac: [
    {
      ...{ secret: { file: 'secret' }, secret_encoding: 'utf8', values: { key_id: { file: 'id' } }, fallback: 'other' },
      ...{ algorithm: 'sha256', encoding: 'hex', sign: '{target}{body_hash}', timestamp: 's', body_hash: 'sha256' },
      ...{ body_hash_encoding: 'hex', headers: { 'X-Sign': '{signature}' }, query: { ts: '{timestamp}' } },
    },
  ],
  jwt: [
    {
      ...{ key: { file: 'key' }, key_encoding: 'utf8', alg: 'HS256', kid: 'one', typ: 'JWT', header: { a: 'b' } },
      ...{ claims: { sub: '{agent}', n: 1, l: ['a'] }, lifetime_s: 60, backdate_s: 1, fallback: 'other' },
    },
  ],
  kubernetes: [
    { service_account: 'viewer', bound_to: { kind: 'Pod', name: 'a', uid: 'b' } },
    { service_account: { read: 'viewer' }, revocable: true },
  ].map((own) => ({
    ...{ ...own, server: 'https://k.acme.test', namespace: 'agents', audiences: ['a'], token: { file: 'token' } },
    ...{ addresses, fallback: 'other' },
  })),
  mtls: [
    { uri: 'spiffe://acme.test/{agent}', ttl_s: 300, fallback: 'other' },
    { certificate: { file: 'cert' }, key: { file: 'key' } },
  ],
  oauth_client_credentials: clients.map((client) => ({ ...oauth, ...client, audience: 'x' })),
  oauth_id_jag: clients.map((client) => ({
    ...{ ...oauth, ...client, subject_token: { file: 'id' }, subject_token_type: 'id_token' },
    idp: {
      token_url: 'https://idp.acme.test/token',
      assertion_audience: 'https://idp.acme.test',
      ...client,
      addresses,
    },
  })),
  oauth_jwt_bearer: [...clients, { client_auth: 'none', client_id: 'a' }].map((client) => ({
    ...{ ...oauth, ...client, audience: ['x', 'y'], assertion },
  })),
  oauth_refresh_token: [...clients.slice(0, 2), { client_id: 'keyless', client_auth: 'none' }].map((client) => ({
    ...{ ...client, issuer: 'https://id.acme.test', authorization_url: 'https://id.acme.test/authorize', addresses },
    ...{ token_url: 'https://id.acme.test/token', revocation_url: 'https://id.acme.test/revoke', scope: 'a b' },
    ...{
      device_url: 'https://id.acme.test/device',
      resource: 'https://api.acme.test',
      per: 'human',
      fallback: 'other',
    },
    ...{ authorization_params: { prompt: 'consent' }, revoke_access: true, answers: 'oauth' },
  })),
  oauth_token_exchange: [...clients, { client_auth: 'none', client_id: 'a' }].map((client) => ({
    ...{ ...oauth, ...client, audience: 'x', subject_token: assertion, subject_token_type: 'jwt' },
    ...{ actor_token: { file: 'actor' }, actor_token_type: 'jwt', requested_token_type: 'access_token' },
  })),
  static: [{ value: { file: 'value' }, values: { one: { file: 'one' } }, fallback: 'other' }],
  vault: [
    {
      ...{ path: 'database/creds/{role}', method: 'POST', parameters: { a: 'b' }, roles: { read: 'ro' }, value: 'v' },
      ...{ namespace: 'a', parts: { username: 'username' }, expires_at: 'ends', fallback: 'other' },
      connection: {
        ...{ address: 'https://vault.acme.test', login: { method: 'token', token: { file: 'token' } }, addresses },
      },
    },
    {
      ...{ path: 'secret/data/a', expires_in: 'left', value: ['a', 'b'] },
      connection: {
        ...{ address: 'https://v.test', namespace: 'a' },
        login: { method: 'approle', mount: 'm', role_id: 'a', secret_id: { file: 'secret' } },
      },
    },
    {
      path: 'secret/data/a',
      connection: {
        address: 'https://v.test',
        login: { method: 'jwt', mount: 'm', role: 'a', token: { file: 'jwt' }, audience: 'a', subject: 'b' },
      },
    },
  ],
  workload_identity: [
    {
      ...{
        token_url: 'https://id.acme.test/token',
        addresses,
        format: 'json',
        grant: 'token_exchange',
        token: assertion,
      },
      ...{
        token_type: 'jwt',
        scope: 'a b',
        parameters: { rule: '{agent}' },
        headers: { a: 'b' },
        slot: 'authorization',
      },
      ...{ answer: { token: '/a', expires_in: '/b' }, request_headers: { beta: 'one' }, fallback: 'other' },
    },
  ],
}

/** Another value of these needs other settings: a test below compares the examples above. */
const BY_OTHERS = new Set(['provider', 'client_auth', 'session'])

/** Settings that change nothing about what a credential can do, and why. */
const WITHOUT_EFFECT: Readonly<Record<string, RegExp>> = {
  // Who stands in has an identity of its own.
  '*': /^fallback$/,
  // How a human is led to the server, and how a token is ended or its answer read.
  oauth_refresh_token:
    /^(?:authorization_url|authorization_params|device_url|revocation_url|revoke_access|answers|kid)/,
}

const bases = Object.entries(full).flatMap(([kind, configs]) =>
  configs.map((config, n) => [`${kind} ${n + 1}`, kind as Kind, { provider: kind, ...config } as Config] as const),
)

describe.each(Object.keys(full) as Kind[])('%s', (kind) => {
  const text = readFileSync(join(ROOT, `docs/providers/${kind.replaceAll('_', '-')}.md`), 'utf8')

  test('has a page with every heading in its order, and an example', () => {
    const found = [...text.matchAll(/^## (.+)$/gm)]
      .map(([, title = '']) => title)
      .filter((one) => HEADINGS.includes(one))
    expect(found).toEqual(HEADINGS)
    const examples = [...text.matchAll(/```yaml\n(.*?)```/gs)].flatMap(([, yaml = '']) =>
      Object.values((parse(yaml) as { credentials?: Record<string, Config> } | null)?.credentials ?? {}),
    )
    expect(examples.some(({ provider }) => provider === kind)).toBe(true)
  })

  test('is tested here with every setting of its schema, and its page names each', () => {
    const inSchema = topLevel(z.toJSONSchema(providerKinds[kind].schema, { io: 'input' }) as Schema)
    const tested = full[kind].flatMap((config) => Object.keys(config))
    const unused = kind === 'oauth_id_jag' ? ['provider', 'audience'] : ['provider']
    expect([...inSchema].filter((name) => !unused.includes(name) && !tested.includes(name))).toEqual([])
    const shared = readFileSync(join(ROOT, 'docs/providers/oauth-clients.md'), 'utf8')
    const pages = kind.startsWith('oauth_') && kind !== 'oauth_refresh_token' ? text + shared : text
    expect([...inSchema].filter((name) => name !== 'fallback' && !pages.includes(name))).toEqual([])
  })
})

describe.each(bases)('%s', (_name, kind, config) => {
  test('has another identity for every other value of a setting', () => {
    const identity = identityOf(config)
    const base = credentialSchema.parse(config)
    const mutants = pathsIn(config)
      .flatMap((path) => mutantsAt(config, path, pool(kind)).map((mutant) => ({ path, mutant })))
      .filter(({ mutant }) => isOther(mutant, base))
    const same = mutants.filter(({ path, mutant }) => !isWithoutEffect(kind, path) && identityOf(mutant) === identity)
    expect(same.map(({ path, mutant }) => [path.join('.'), mutant[String(path[0])]])).toEqual([])
    // Every setting of it has been another one at least once, or the test says nothing.
    const tried = new Set(mutants.map(({ path }) => path[0]))
    const untried = Object.keys(config).filter((name) => !tried.has(name) && !BY_OTHERS.has(name))
    expect(untried).toEqual([])
  })

  test('takes no key that it does not know, wherever it is written', () => {
    const open = pathsIn(config)
      .filter((path) => isObject(valueAt(config, path)) || path.length === 0)
      .filter((path) => credentialSchema.safeParse(changed(config, [...path, 'surprise'], 'a')).success)
      .map((path) => path.join('.'))
    expect(open.filter((path) => !OPEN.test(path))).toEqual([])
  })

  test('takes no secret in the place of a reference, and does not repeat it', () => {
    for (const path of pathsIn(config).filter((one) => isReference(valueAt(config, one)))) {
      const { success, error } = credentialSchema.safeParse(changed(config, path, 'sk-canary-inline-0815'))
      expect([path, success]).toEqual([path, kind === 'basic' && path[0] === 'username'])
      expect(inspect(error, { depth: 9 })).not.toContain('sk-canary-inline-0815')
    }
  })

  test('shows nothing of secrets and answers, however its issuer fails', async () => {
    for (const [world, answer] of Object.entries(WORLDS))
      for (const secret of [CANARY, PEM]) {
        const provider = createProvider(credentialSchema.parse(config), toolsIn(answer, secret))
        const outcome = await issueFrom(provider).catch((cause: unknown) => cause)
        const shown = inspect(outcome, { depth: 20, showHidden: true })
        expect(shown, world).not.toContain('canary')
        expect(shown, world).not.toContain(PEM.slice(60, 100))
        if (outcome instanceof Error) expect(outcome, shown).toBeInstanceOf(GatewayError)
      }
  })
})

test.each(Object.entries(full))('%s: no two of these share a credential', (kind, configs) => {
  const identities = configs.map((config) => identityOf({ provider: kind, ...config }))
  expect(new Set(identities).size).toBe(configs.length)
})

/** What lies below is named by the user: claims, parameters, fields, parts, roles. */
const OPEN =
  /(?:^|\.)(?:claims|parameters|headers|query|roles|role|values|otherwise|authorization_params|parts|service_account|tags|header|request_headers|read|indices\.\d+)$/

const CANARY = 'canary-secret-0815'
const PEM = generateKeyPairSync('rsa', { modulusLength: 2048 })
  .privateKey.export({ type: 'pkcs8', format: 'pem' })
  .toString()

const json = (status: number, body: object, headers: Record<string, string> = {}) =>
  new Response(JSON.stringify(body), { status, headers: { 'content-type': 'application/json', ...headers } })

type World = () => Response | Promise<Response>

/** How an issuer behaves, whoever it is. */
const WORLDS: Readonly<Record<string, World>> = {
  'it says no': () => json(400, { error: 'canary-error', error_description: 'canary-text', message: 'canary-text' }),
  'it says no in words that are known': () => json(401, { error: 'invalid_client', error_description: 'canary-text' }),
  'it is broken': () => json(503, { message: 'canary-text' }, { 'retry-after': 'canary' }),
  'it answers a page': () => new Response('<p>canary-text</p>', { status: 200 }),
  'it answers another kind of token': () =>
    json(200, { access_token: 'canary-token', token_type: 'canary-type', scope: 'canary-scope' }),
  'it leads elsewhere': () => new Response(null, { status: 302, headers: { location: 'https://canary.test/' } }),
  'it cannot be reached': () => Promise.reject(new TypeError('fetch failed: canary', { cause: new Error('canary') })),
}

function toolsIn(answer: World, secret: string): ProviderTools {
  return providerTools(ROOT, {
    fetchFor: () => async () => answer(),
    readSecret: async () => new Secret(secret),
    assertions: { issuer: 'https://keyless.test/assertions', sign: async () => new Secret('canary-assertion') },
    connections: {
      refreshes: {
        run: async (connector, issuedTo, refresh, signal) => {
          const times = { connectedAt: 0, state: 'connected' } as const
          const refreshToken = new Secret('canary-refresh')
          const answer = await refresh(refreshToken, { ...connector, ...times, issuedTo, refreshToken }, signal)
          if (answer === 'invalid_grant') throw new GatewayError('reauthorize', 'Not connected.')
          return answer
        },
      },
      url: () => 'https://keyless.test/connect/a',
    },
    certifyClient: () => Promise.reject(new GatewayError('credential_unconfigured', 'No client CA.')),
  })
}

const ENDPOINT = {
  ...{ method: 'GET', path: '/repos/acme/site', params: { owner: 'acme', repo: 'site', id: '42', bucket: 'reports' } },
  operation: {
    id: 'read',
    name: 'a:read',
    access: 'read',
    permissions: { metadata: 'read', scope: 'read_api', role: 'reporter' },
  },
} as unknown as Endpoint

/** As the lease room asks: with the role of the call. */
async function issueFrom(provider: Provider): Promise<unknown> {
  const on = grant()
  const role = provider.role?.(ENDPOINT, on)
  return provider.issue({ service: service(), grant: on, ttlS: 300, role }, new AbortController().signal)
}

type Path = readonly (string | number)[]
type Schema = { readonly properties?: object; readonly anyOf?: readonly Schema[]; readonly oneOf?: readonly Schema[] }

function topLevel({ properties = {}, anyOf = [], oneOf = [] }: Schema): Set<string> {
  return new Set([...Object.keys(properties), ...[...anyOf, ...oneOf].flatMap((one) => [...topLevel(one)])])
}

/** That of the settings. */
const SHARED_VAULT = { identity: 'shared' } as unknown as VaultConnection

/** Words that settings may have where no other text is taken. */
function pool(kind: Kind): readonly string[] {
  const words = ['access_token', 'saml2']
  JSON.stringify(z.toJSONSchema(providerKinds[kind].schema, { io: 'input' }), (name, value) => {
    if (name === 'enum') words.push(...value)
    return value
  })
  return [...new Set(words)]
}

function identityOf(config: Config): string {
  return createProvider(credentialSchema.parse(config), providerTools(ROOT, { vault: SHARED_VAULT })).identity
}

/** It is taken, and is not the same in other words. */
function isOther(mutant: Config, base: unknown): boolean {
  const { success, data } = credentialSchema.safeParse(mutant)
  return success && !isDeepStrictEqual(data, base)
}

function isWithoutEffect(kind: Kind, [top]: Path): boolean {
  return [WITHOUT_EFFECT['*'], WITHOUT_EFFECT[kind]].some((names) => names?.test(String(top)))
}

function pathsIn(value: unknown, at: Path = []): Path[] {
  const below = typeof value === 'object' && value !== null ? Object.keys(value) : []
  return [at, ...below.flatMap((name) => pathsIn((value as Config)[name], [...at, name]))]
}

function valueAt(value: unknown, path: Path): unknown {
  return path.reduce<unknown>((one, name) => (one as Config)[name as string], value)
}

/** @param next undefined: the setting is left away. */
function changed(config: Config, path: Path, next: unknown): Config {
  const copy = structuredClone(config)
  const parent = valueAt(copy, path.slice(0, -1)) as Record<string, unknown> & unknown[]
  const name = path.at(-1) as string
  if (next !== undefined) parent[name] = next
  else if (Array.isArray(parent)) parent.splice(Number(name), 1)
  else delete parent[name]
  return copy
}

function mutantsAt(config: Config, path: Path, words: readonly string[]): Config[] {
  if (path.length === 0) return []
  const value = valueAt(config, path)
  return [undefined, ...othersOf(value, words)].map((next) => changed(config, path, next))
}

function othersOf(value: unknown, words: readonly string[]): unknown[] {
  if (typeof value === 'boolean') return [!value]
  if (typeof value === 'number') return [value + 1]
  if (Array.isArray(value)) return [[...value, ...value.flatMap((one) => othersOf(one, words)).slice(0, 1)]]
  if (isReference(value)) return [{ env: 'OTHER' }, { file: 'another' }, { sealed: 'other' }, { exec: ['other'] }]
  if (typeof value !== 'string') return []
  const flipped = value.replace(/[0-9](?=[^0-9]*$)/, (digit) => String((Number(digit) + 1) % 10))
  const texts = [`${value}x`, flipped, value.replace('://', '://other.'), `other ${value}`, ...words]
  return texts.filter((one) => one !== value)
}

function isObject(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isReference(value: unknown): boolean {
  return (
    isObject(value) &&
    ['file', 'env'].some((name) => typeof (value as Config)[name] === 'string') &&
    Object.keys(value as object).length === 1
  )
}
