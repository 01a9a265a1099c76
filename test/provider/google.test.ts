import { createPublicKey, generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { decodeProtectedHeader, jwtVerify, SignJWT } from 'jose'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Authority, Grant } from '../../gateway/protocol/grant.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { Secret } from '../../gateway/protocol/secret.ts'
import type { Endpoint } from '../../gateway/protocol/service.ts'
import { accessBoundary, parseStorageRole, storageRole } from '../../gateway/provider/google/boundary.ts'
import type { Assertions, Credential, Provider } from '../../gateway/provider/provider.ts'
import { createProvider, credentialSchema } from '../../gateway/provider/registry.ts'
import { providerConformance } from '../conformance/provider.ts'
import { grant, service } from '../lease/lease.fixture.ts'
import { catalogueOf, inbound } from '../policy/policy.fixture.ts'
import { pem } from './authorization-server.fixture.ts'
import { type FakeGoogle, POOL, READER, ROBOT, startGoogle } from './google.fixture.ts'
import { issuingAs, providerTools } from './tools.fixture.ts'

const dir = mkdtempSync(join(tmpdir(), 'keyless-google-'))
const SCOPE = 'https://www.googleapis.com/auth/bigquery.readonly'
const own = generateKeyPairSync('ec', { namedCurve: 'P-256' })
let google: FakeGoogle

/** What the gateway signs with, in short. */
const assertions: Assertions = {
  issuer: 'https://keyless.test/assertions',
  async sign(claims, { audience, lifeS }) {
    const jwt = new SignJWT({ ...claims }).setProtectedHeader({ alg: 'ES256' }).setIssuer(assertions.issuer)
    return new Secret(
      await jwt.setAudience(audience).setIssuedAt().setExpirationTime(`${lifeS} s`).sign(own.privateKey),
    )
  },
}

beforeAll(async () => {
  google = await startGoogle(own.publicKey)
  const key = {
    type: 'service_account',
    client_email: ROBOT,
    private_key_id: 'k1',
    private_key: pem(google.privateKey),
  }
  writeFileSync(join(dir, 'robot.json'), JSON.stringify(key))
  const other = pem(generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey)
  writeFileSync(join(dir, 'other.json'), JSON.stringify({ ...key, private_key: other }))
  writeFileSync(join(dir, 'none.json'), '{"private_key":"canary-no-key"}')
})

afterEach(() => {
  google.asked.length = 0
  google.interrupt = undefined
  google.tamper = undefined
})

afterAll(async () => {
  await google.stop()
  rmSync(dir, { recursive: true, force: true })
})

const byKey = { key: { file: 'robot.json' } }
const byPool = { federation: { provider: POOL } }

function provider(o: Record<string, unknown> = {}): Provider {
  const urls = { token_url: `${google.url}/token`, sts_url: `${google.url}/v1/token`, iam_url: `${google.url}/v1` }
  const scope = o.storage === undefined ? { scope: SCOPE } : {}
  const written = { provider: 'google', ...scope, ...urls, addresses: ['127.0.0.1/32'], ...o }
  const tools = providerTools(dir, { fetchFor: () => globalThis.fetch, assertions })
  return createProvider(credentialSchema.parse(written), tools)
}

const ROLE = JSON.stringify(['reports', '2026/', false, 'roles/storage.objectViewer'])
const issue = (from: Provider, o: { ttlS?: number; role?: string; grant?: Grant } = {}): Promise<Credential> =>
  from.issue(
    { service: service(), grant: o.grant ?? grant(), ttlS: o.ttlS ?? 300, role: o.role },
    new AbortController().signal,
  )
const given = (credential: Credential) => google.tokens.get(credential.secret.reveal())

async function failure(from: Provider): Promise<GatewayError> {
  const error = await issue(from).catch((cause: unknown) => cause)
  expect(error).toBeInstanceOf(GatewayError)
  expect(JSON.stringify([(error as GatewayError).message, (error as GatewayError).detail])).not.toContain('canary')
  return error as GatewayError
}

for (const [name, proof, lifeS] of [
  ['a key', byKey, 3600],
  ['a key that signs the token itself', { ...byKey, self_signed: true }, 360],
  ['federation', byPool, 3600],
  ['a key and impersonation', { ...byKey, impersonate: READER }, 360],
  ['federation, impersonation and an access boundary', { ...byPool, impersonate: READER, storage: 'bucket' }, 360],
] as const) {
  const working = (o: object = {}): Provider => issuingAs(ROLE, provider({ ...proof, ...o }))
  const isSigned = 'self_signed' in proof
  const isKey = 'key' in proof
  providerConformance(`google with ${name}`, () => ({
    working,
    isEphemeral: true,
    lifeS,
    wider: () => [
      ...('storage' in proof ? [] : [['another scope', working({ scope: `${SCOPE} email` })] as const]),
      ...(isKey ? [['another key', working({ key: { file: 'other.json' } })] as const] : []),
      ['another Google', working({ sts_url: 'http://127.0.0.1:1' })],
    ],
    failing: () => [
      ...(isKey ? [['no key', 'credential_unconfigured', working({ key: { file: 'none.json' } })] as const] : []),
      ...(isKey && !isSigned
        ? [
            ['another key', 'credential_rejected', working({ key: { file: 'other.json' } })] as const,
            ['a Google that is down', 'credential_unavailable', working({ token_url: 'http://127.0.0.1:1/' })] as const,
          ]
        : []),
      ...(isKey
        ? []
        : [
            [
              'a pool that trusts others',
              'credential_rejected',
              working({ federation: { provider: POOL.replace('123', '9') } }),
            ] as const,
            ['a Google that is down', 'credential_unavailable', working({ sts_url: 'http://127.0.0.1:1/' })] as const,
          ]),
    ],
    hanging: () => {
      google.interrupt = () => 'hang'
      return isSigned ? provider(byKey) : working()
    },
    secrets: () => [pem(google.privateKey), pem(google.privateKey).split('\n')[1] ?? '', 'canary-no-key'],
  }))
}

describe('a token', () => {
  test('by key has the scope of the settings', async () => {
    expect(given(await issue(provider(byKey)))).toMatchObject({ subject: ROBOT, scope: SCOPE })
  })

  test('by key acts as the user that domain-wide delegation names', async () => {
    expect(given(await issue(provider({ ...byKey, subject: 'ana@acme.test' })))?.subject).toBe('ana@acme.test')
    const error = await failure(provider({ ...byKey, subject: 'eve@acme.test' }))
    expect(error.detail).toContain('domain-wide delegation')
  })

  test('by federation says who stands behind the task', async () => {
    const claims = given(await issue(provider(byPool)))?.claims
    expect(claims).toMatchObject({ sub: 'ana', agent: 'spiffe://test/agent', task: 'task-1' })
  })

  test('of an impersonated account lives as long as the grant and a minute, and what it was made of is not given away', async () => {
    const credential = await issue(provider({ ...byKey, impersonate: READER }), { ttlS: 120 })
    const token = given(credential)
    expect(token).toMatchObject({ subject: READER, scope: SCOPE })
    expect((token?.endsAtMs ?? 0) / 1000).toBeLessThanOrEqual(Date.now() / 1000 + 180)
    expect(google.asked[1]?.body).toMatchObject({ lifetime: '180s' })
  })

  test('that is signed here is the account\u2019s own JWT, and nobody is asked', async () => {
    const jwt = (await issue(provider({ ...byKey, self_signed: true }))).secret.reveal()
    const { payload } = await jwtVerify(jwt, createPublicKey(google.privateKey), { algorithms: ['RS256'] })
    expect(decodeProtectedHeader(jwt)).toMatchObject({ alg: 'RS256', kid: 'k1' })
    expect(payload).toMatchObject({ iss: ROBOT, sub: ROBOT, scope: SCOPE })
    expect(payload.aud).toBeUndefined()
    expect(google.asked).toHaveLength(0)
  })

  test('within an access boundary is the source token and the bound, and ends with it', async () => {
    for (const proof of [byKey, { ...byPool, impersonate: READER }]) {
      const credential = await issue(provider({ ...proof, storage: 'bucket' }), { role: ROLE })
      expect(given(credential)?.boundary).toEqual(accessBoundary(parseStorageRole(ROLE)))
      expect(credential.expiresAt).toBeLessThanOrEqual((given(credential)?.endsAtMs ?? 0) / 1000 + 1)
    }
  })

  test.each([
    ['with more scope', (answer: Record<string, unknown>) => ({ ...answer, scope: `${SCOPE} email` }), byKey],
    [
      'of an impersonated account that lives for hours',
      (answer: Record<string, unknown>) =>
        'accessToken' in answer ? { ...answer, expireTime: '2099-01-01T00:00:00Z' } : answer,
      { ...byKey, impersonate: READER },
    ],
  ])('%s is refused', async (_what, tamper, proof) => {
    google.tamper = tamper
    expect((await failure(provider(proof))).code).toBe('credential_too_wide')
  })

  test('is refused with advice when Google says why, and nothing of its text', async () => {
    const error = await failure(provider({ ...byKey, impersonate: 'other@acme.iam.gserviceaccount.com' }))
    expect(error).toMatchObject({ code: 'credential_rejected' })
    expect(error.detail).toContain('roles/iam.serviceAccountTokenCreator')
  })
})

const operation = {
  id: 'objects.get',
  name: 'billing:objects.get',
  access: 'read',
  sensitivity: 'internal',
  returnsSecret: false,
  irreversible: false,
  websocket: false,
  captures: [],
  permissions: { role: 'roles/storage.objectViewer' },
} as const

/** As the XML API spells it: `/bucket/object`. */
function objectAt(object: string, bucket = 'reports'): Endpoint {
  const path = `/${bucket}/${object}`
  const params = { bucket, object }
  return {
    service: service(),
    operation,
    scheme: 'https',
    host: 'api.billing.test',
    port: 443,
    path,
    rawPath: path,
    params,
  }
}

const over = (...paths: string[]): Authority => ({ operations: ['billing:*'], paths })
const chain = (...levels: Authority[][]): Grant =>
  grant({
    authority: levels.at(-1) ?? [],
    ancestry: levels.slice(0, -1).map((authority, i) => ({ id: `g${i}`, authority })),
  })
const ruleOf = (endpoint: Endpoint, on: Grant, reach: 'bucket' | 'object' = 'bucket') => {
  const { accessBoundary: drawn } = accessBoundary(parseStorageRole(storageRole(endpoint, on, reach))) as {
    accessBoundary: {
      accessBoundaryRules: { availableResource: string; availabilityCondition?: { expression: string } }[]
    }
  }
  expect(drawn.accessBoundaryRules).toHaveLength(1)
  return drawn.accessBoundaryRules[0]
}
const expression = (...asked: Parameters<typeof ruleOf>) => ruleOf(...asked)?.availabilityCondition?.expression

describe('an access boundary', () => {
  const NAME = 'projects/_/buckets/reports/objects/'

  test('without path patterns is the bucket of the call and the role of the operation', () => {
    expect(ruleOf(objectAt('2026/q1.csv'), chain([{ operations: ['billing:*'] }]))).toEqual({
      availableResource: '//storage.googleapis.com/projects/_/buckets/reports',
      availablePermissions: ['inRole:roles/storage.objectViewer'],
    })
  })

  test.each([
    ['the prefix that the grant allows', [[over('/reports/2026/**')]], `resource.name.startsWith('${NAME}2026/')`],
    [
      'the narrowest of the chain',
      [[over('/reports/**')], [over('/reports/2026/**')]],
      `resource.name.startsWith('${NAME}2026/')`,
    ],
    [
      'the narrowest, wherever in the chain',
      [[over('/reports/2026/**')], [over('/reports/**')]],
      `resource.name.startsWith('${NAME}2026/')`,
    ],
    [
      'the widest of a level',
      [[over('/reports/2026/**', '/reports/2026/q1.csv')]],
      `resource.name.startsWith('${NAME}2026/')`,
    ],
    [
      'the object, where a level names it',
      [[over('/reports/**')], [over('/reports/2026/q1.csv')]],
      `resource.name == '${NAME}2026/q1.csv'`,
    ],
    ['the object, where no prefix says the same', [[over('/reports/*/**')]], `resource.name == '${NAME}2026/q1.csv'`],
    ['the bucket, where a level names that', [[over('/reports/**')]], undefined],
    [
      'the object, where the other bucket is what a level allows',
      [[over('/other/**')]],
      `resource.name == '${NAME}2026/q1.csv'`,
    ],
  ])('is %s', (_what, levels, expected) => {
    expect(expression(objectAt('2026/q1.csv'), chain(...levels))).toBe(expected)
  })

  test('for one object is that object, whatever the grant allows', () => {
    expect(expression(objectAt('a/b'), chain([over('/reports/**')]), 'object')).toBe(`resource.name == '${NAME}a/b'`)
  })

  test('reads an encoded slash in the object as the slash of its name', () => {
    const role = parseStorageRole(storageRole(objectAt('2026%2Fq1.csv'), chain([over('/reports/**')]), 'object'))
    expect(role.object).toBe('2026/q1.csv')
  })

  test('keeps what an object is called inside its string, whatever it is called', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', minLength: 1 }), (name) => {
        fc.pre(!/[\p{Cc}\\/%]/u.test(name))
        const text = expression(objectAt(name), chain([over('/reports/**')]), 'object') ?? ''
        const literal = /^resource\.name == '((?:[^'\\]|\\.)*)'$/su.exec(text)?.[1] ?? ''
        expect(literal.replaceAll(/\\(.)/gs, '$1')).toBe(`${NAME}${name}`)
      }),
    )
  })

  test('is never wider than what every level allows: its prefix lies within one of their patterns', () => {
    const segment = fc.constantFrom('2026', 'q1', '*')
    const pattern = fc
      .tuple(fc.array(segment, { maxLength: 2 }), fc.boolean())
      .map(([parts, isTail]) => `/${['reports', ...parts, ...(isTail ? ['**'] : [])].join('/')}`)
    const level = fc.array(pattern, { minLength: 1, maxLength: 3 }).map((paths) => [over(...paths)])
    fc.assert(
      fc.property(fc.array(level, { minLength: 1, maxLength: 3 }), (levels) => {
        const { object = '', isExact } = parseStorageRole(storageRole(objectAt('2026/q1'), chain(...levels), 'bucket'))
        if (isExact) return
        for (const [entry] of levels)
          expect(
            entry?.paths?.some(
              (path) =>
                path.endsWith('/**') && !path.includes('/*/') && `/reports/${object}`.startsWith(path.slice(0, -2)),
            ),
          ).toBe(true)
      }),
    )
  })

  test('is drawn for the calls of the shipped service, whose object is one encoded segment', async () => {
    const { locate } = await catalogueOf('google-storage')
    const host = 'storage.googleapis.com'
    const at = (rawPath: string) => locate(inbound({ host, hostHeader: host, rawPath }))
    const on = grant({ authority: [{ operations: ['google-storage:*'], paths: ['/storage/v1/b/reports/**'] }] })
    const read = parseStorageRole(storageRole(at('/storage/v1/b/reports/o/2026%2Fq1.csv?alt=media'), on, 'object'))
    expect(read).toEqual({
      bucket: 'reports',
      object: '2026/q1.csv',
      isExact: true,
      role: 'roles/storage.objectViewer',
    })
    const list = parseStorageRole(storageRole(at('/storage/v1/b/reports/o'), on, 'bucket'))
    expect(list).toEqual({ bucket: 'reports', isExact: false, role: 'roles/storage.legacyBucketReader' })
    expect(() => storageRole(at('/storage/v1/b'), on, 'bucket')).toThrow(GatewayError)
  })

  test('is drawn for no operation that names no role or bucket, and for no name that is none', () => {
    const at = objectAt('a')
    const on = chain([over('/**')])
    const { permissions: _none, ...silent } = operation
    for (const endpoint of [
      { ...at, operation: silent },
      { ...at, params: {} },
    ])
      expect(() => storageRole(endpoint, on, 'bucket')).toThrow(
        expect.objectContaining({ code: 'credential_unconfigured' }),
      )
    for (const bucket of ['a%2Fb', 'A', '..', "a'b", 'a*'])
      expect(() => storageRole(objectAt('a', bucket), on, 'bucket')).toThrow(
        expect.objectContaining({ code: 'path_ambiguous' }),
      )
  })
})

test.each([
  ['both proofs', { ...byKey, ...byPool }, 'key'],
  ['none', {}, 'key'],
  ['a user without a key', { ...byPool, subject: 'a@b.test' }, 'subject'],
  ['delegates for nobody', { ...byKey, delegates: [READER] }, 'delegates'],
  ['signing here what a boundary would hold', { ...byKey, self_signed: true, storage: 'bucket' }, 'self_signed'],
  ['scope beside a boundary', { ...byKey, scope: SCOPE, storage: 'bucket' }, 'scope'],
  ['a pool that is none', { federation: { provider: 'projects/1' } }, 'federation.provider'],
])('settings with %s are refused at the start', (_what, written, path) => {
  const scope = 'storage' in written ? {} : { scope: SCOPE }
  const parsed = credentialSchema.safeParse({ provider: 'google', ...scope, ...written })
  expect(parsed.error?.issues.map((issue) => issue.path.join('.'))).toContain(path)
})
