import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { exportJWK, generateKeyPair, jwtVerify, SignJWT } from 'jose'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { Grant } from '../../gateway/protocol/grant.ts'
import { Secret } from '../../gateway/protocol/secret.ts'
import type { Operation, Service } from '../../gateway/protocol/service.ts'
import { lineageTags, sessionName, sourceIdentity } from '../../gateway/provider/aws/lineage.ts'
import { sessionPolicy } from '../../gateway/provider/aws/policy.ts'
import type { IssueRequest, Provider } from '../../gateway/provider/provider.ts'
import { createProvider, credentialSchema, type ProviderTools } from '../../gateway/provider/registry.ts'
import { providerConformance } from '../conformance/provider.ts'
import { grant, plain, service } from '../lease/lease.fixture.ts'
import { startAws, type TestAws } from '../rig/aws.ts'
import { providerTools } from './tools.fixture.ts'

const dir = mkdtempSync(join(tmpdir(), 'keyless-aws-'))
let aws: TestAws
let tokenKeys: Awaited<ReturnType<typeof generateKeyPair>>
const ROLE = 'arn:aws:iam::123456789012:role/agents'

beforeAll(async () => {
  tokenKeys = await generateKeyPair('RS256')
  aws = await startAws({
    verifyToken: async (token) =>
      (
        await jwtVerify(token, tokenKeys.publicKey, {
          issuer: 'https://keyless.test/assertions',
          audience: 'sts.amazonaws.com',
        })
      ).payload,
  })
  writeFileSync(join(dir, 'id'), aws.source.accessKeyId)
  writeFileSync(join(dir, 'secret'), aws.source.secretAccessKey)
  writeFileSync(join(dir, 'wrong'), 'canary-wrong-secret-key-4711')
  writeFileSync(join(dir, 'token'), await assertion({ sub: 'pod' }))
})
afterEach(() => Object.assign(aws, { fail: undefined, tooLongS: 0, aheadMs: 0 }))
afterAll(async () => {
  await aws.stop()
  rmSync(dir, { recursive: true, force: true })
})

async function assertion(claims: Record<string, unknown>): Promise<string> {
  await exportJWK(tokenKeys.publicKey)
  return new SignJWT(claims)
    .setProtectedHeader({ alg: 'RS256' })
    .setIssuer('https://keyless.test/assertions')
    .setAudience('sts.amazonaws.com')
    .setExpirationTime('5m')
    .sign(tokenKeys.privateKey)
}

const KEYS = { access_key_id: { file: 'id' }, secret_access_key: { file: 'secret' } }

function provider(o: object = {}, tools: Partial<ProviderTools> = {}): Provider {
  const config = credentialSchema.parse({
    provider: 'aws',
    region: 'eu-west-1',
    source: KEYS,
    role_arn: ROLE,
    session_policy: 'none',
    sts_url: `http://127.0.0.1:${aws.port}`,
    addresses: ['127.0.0.1/32'],
    ...o,
  })
  const assertions = {
    issuer: 'https://keyless.test/assertions',
    sign: async (claims: object) => new Secret(await assertion({ ...claims })),
  }
  return createProvider(config, providerTools(dir, { fetchFor: () => fetch, assertions, ...tools }))
}

const failing = (status: number, code: string) =>
  provider(
    {},
    {
      fetchFor: () => async (url, init) => {
        aws.fail = { status, code }
        return fetch(url, init)
      },
    },
  )
const ask = (o: Partial<IssueRequest> = {}): IssueRequest => ({
  service: service(),
  grant: grant(),
  ttlS: 300,
  role: undefined,
  ...o,
})
const patient = () => new AbortController().signal

describe('aws', () => {
  providerConformance(
    'aws',
    () => ({
      working: () => provider(),
      isEphemeral: true,
      lifeS: 900,
      wider: () => [
        ['another role', provider({ role_arn: `${ROLE}-admin` })],
        ['another region', provider({ region: 'us-east-1' })],
        ['further regions', provider({ regions: ['eu-west-1', 'us-east-1'] })],
        ['a policy', provider({ policy_arns: ['arn:aws:iam::aws:policy/ReadOnlyAccess'] })],
        ['a narrower session', provider({ session_policy: 'operations' })],
        ['an external id', provider({ external_id: 'acme' })],
        ['tags', provider({ tags: { team: 'a' } })],
        ['transitive tags', provider({ transitive_tags: true })],
        ['another source', provider({ source: { assertion: {} } })],
        ['another key', provider({ source: { ...KEYS, secret_access_key: { file: 'wrong' } } })],
        ['a longer life', provider({ duration_s: 1_800 })],
        ['no session', provider({ session: 'none', role_arn: undefined })],
      ],
      failing: () => [
        ['a wrong key', 'credential_rejected', provider({ source: { ...KEYS, secret_access_key: { file: 'wrong' } } })],
        [
          'a key that is not there',
          'credential_unconfigured',
          provider({ source: { ...KEYS, secret_access_key: { file: 'absent' } } }),
        ],
        ['access denied', 'credential_rejected', failing(403, 'AccessDenied')],
        ['an unknown code', 'credential_rejected', failing(400, 'CanaryOfTheFuture')],
        ['a policy that is too large', 'credential_rejected', failing(400, 'PackedPolicyTooLarge')],
        ['throttling', 'credential_unavailable', failing(400, 'Throttling')],
        ['an error of its own', 'credential_unavailable', failing(500, 'InternalFailure')],
        ['a token that nobody knows', 'credential_rejected', provider({ source: { token: { file: 'wrong' } } })],
        [
          'something that is no session',
          'credential_rejected',
          provider({}, { fetchFor: () => async () => new Response('<a/>') }),
        ],
        [
          'two sessions at once',
          'credential_rejected',
          provider(
            {},
            { fetchFor: () => async () => new Response('<AccessKeyId>ASIAASIAASIAASIAASIA</AccessKeyId>'.repeat(2)) },
          ),
        ],
        [
          'a redirect',
          'credential_rejected',
          provider(
            {},
            {
              fetchFor: () => async () =>
                new Response(null, { status: 302, headers: { location: 'https://evil.test' } }),
            },
          ),
        ],
        [
          'no network',
          'credential_unavailable',
          provider({}, { fetchFor: () => async () => Promise.reject(new Error('canary')) }),
        ],
      ],
      hanging: () =>
        provider(
          {},
          {
            fetchFor: () => (_url, init) =>
              new Promise((_, fail) => {
                init?.signal?.throwIfAborted()
                init?.signal?.addEventListener('abort', () => fail(new Error('aborted')), { once: true })
              }),
          },
        ),
      secrets: () => [aws.source.secretAccessKey, 'canary-wrong-secret-key-4711'],
    }),
    [],
    service({ slots: [{ in: 'signature', scheme: 'aws4', services: ['s3'] }] }),
  )

  it('asks for a session as long as the call may last, which is never less than AWS gives', async () => {
    for (const [ttlS, duration] of [
      [60, '900'],
      [1_200, '1200'],
      [3_600, '1800'],
    ] as const) {
      await provider({ duration_s: 1_800 }).issue(ask({ ttlS }), patient())
      expect(aws.sessions.at(-1)).toMatchObject({ DurationSeconds: duration })
    }
  })

  it('shows the lineage to AWS: task, human, agent', async () => {
    const on = grant({
      task: { id: 'task_17', purpose: '' },
      agent: { ...grant().agent, id: 'spiffe://acme.test/agents/triage', owner: 'ana@acme.test' },
    })
    await provider({ tags: { team: 'ops' }, transitive_tags: true, external_id: 'acme' }).issue(
      ask({ grant: on }),
      patient(),
    )
    expect(aws.sessions.at(-1)).toMatchObject({
      Action: 'AssumeRole',
      RoleArn: ROLE,
      RoleSessionName: 'task_17',
      SourceIdentity: expect.stringMatching(/^ana=[\w-]{22}$/),
      ExternalId: 'acme',
      'Tags.member.1.Key': 'team',
      'Tags.member.2.Key': 'keyless:agent',
      'Tags.member.2.Value': 'spiffe://acme.test/agents/triage',
      'TransitiveTagKeys.member.5': 'keyless:lineage',
    })
    await provider({ source: { assertion: {} } }).issue(ask({ grant: on }), patient())
    const { Action, claims = '' } = aws.sessions.at(-1) ?? {}
    expect(Action).toBe('AssumeRoleWithWebIdentity')
    expect(JSON.parse(claims)).toMatchObject({
      'https://aws.amazon.com/tags': { principal_tags: { 'keyless:task': ['task_17'] } },
      'https://aws.amazon.com/source_identity': expect.stringMatching(/^ana=/),
    })
  })

  it('takes a token that somebody else signed', async () => {
    const credential = await provider({ source: { token: { file: 'token' } } }).issue(ask(), patient())
    expect(credential.parts?.access_key_id?.reveal()).toMatch(/^ASIA/)
  })

  it('refuses a session that lives longer than was asked for', async () => {
    aws.tooLongS = 600
    await expect(provider().issue(ask(), patient())).rejects.toMatchObject({ code: 'credential_too_wide' })
  })

  it('counts the life from before it asked, whatever the clock of AWS shows', async () => {
    aws.aheadMs = 3_600_000
    const one = provider()
    await expect(one.issue(ask(), patient())).rejects.toMatchObject({ code: 'credential_unavailable' }) // dated wrongly
    const beforeS = Math.floor(Date.now() / 1000)
    const { expiresAt } = await one.issue(ask(), patient()) // and dated right
    expect(expiresAt).toBeGreaterThanOrEqual(beforeS + 898)
    expect(expiresAt).toBeLessThanOrEqual(beforeS + 901)
  })

  it('signs again when AWS refuses a signature for its time, and issues anew when a session has ended', async () => {
    const one = provider()
    const credential = await one.issue(ask(), patient())
    const head = (status: number, ...fields: string[]) => ({ status, raw: fields.map((text) => Buffer.from(text)) })
    const early = head(403, 'Date', new Date(Date.now() + 900_000).toUTCString())
    expect(one.isRejection?.(early)).toBe(true)
    expect(one.accommodates?.(credential, early)).toBe(true)
    expect(one.accommodates?.(credential, early)).toBe(false) // it is allowed for by now
    const ended = head(
      400,
      'x-amzn-ErrorType',
      'ExpiredTokenException:http://internal',
      'Date',
      new Date(Date.now() + 900_000).toUTCString(),
    )
    expect(one.isRejection?.(ended)).toBe(true)
    expect(one.accommodates?.(credential, ended)).toBe(false)
    expect(
      one.isRejection?.(
        head(403, 'x-amzn-ErrorType', 'AccessDeniedException', 'Date', new Date(Date.now() + 900_000).toUTCString()),
      ),
    ).toBe(false)
    expect(one.isRejection?.(head(403, 'Date', 'Thu, 01 Jan 1970 00:00:00 GMT'))).toBe(false) // such a server is wrong itself
  })

  it.each([
    ['application/xml', '<Error><Code>ExpiredToken</Code><Token-0>x</Token-0></Error>', true],
    ['text/xml;charset=UTF-8', '<ErrorResponse><Error><Code>InvalidClientTokenId</Code></Error></ErrorResponse>', true],
    ['application/x-amz-json-1.0', '{"__type":"com.amazon.coral.service#ExpiredTokenException"}', true],
    ['application/json', '{"__type":"UnrecognizedClientException"}', true],
    ['application/xml', '<Error><Code>AccessDenied</Code><Message>ExpiredToken</Message></Error>', false],
    ['application/xml', '<Code>ExpiredToken</Code><Code>AccessDenied</Code>', false], // which of the two?
    ['application/json', '{"message":"#ExpiredTokenException"}', false],
    ['application/json', '{"__type":["ExpiredTokenException"]}', false],
    ['application/json', 'null', false],
    ['application/json', '', false],
    ['text/html', '<Code>ExpiredToken</Code>', false],
  ])('reads in a body of %s what APIs do not say in the head: %s', (kind, text, isEnded) => {
    const answer = { status: 400, raw: [Buffer.from('Content-Type'), Buffer.from(kind)] }
    const one = provider()
    expect(one.isRejection?.(answer)).toBe(kind === 'text/html' ? false : 'body')
    expect(one.isRejection?.({ ...answer, body: Buffer.from(text) })).toBe(isEnded)
    expect(one.isRejection?.({ ...answer, status: 404, body: Buffer.from(text) })).toBe(false)
  })

  it('uses keys as they are where there is no STS, and says that they do not end', async () => {
    const one = provider({ session: 'none', role_arn: undefined })
    const credential = await one.issue(ask(), patient())
    expect(credential).toMatchObject({ ephemeral: false, expiresAt: Number.POSITIVE_INFINITY })
    expect(one.derived?.(credential, service())).toEqual([])
  })

  it('names the session token among what must not come back', async () => {
    const credential = await provider().issue(ask(), patient())
    expect(provider().derived?.(credential, service())).toEqual([credential.parts?.session_token])
  })

  it.each<[string, object]>([
    ['role_arn', { role_arn: undefined }],
    ['role_arn', { role_arn: 'agents' }],
    ['source', { source: { assertion: {} }, session: 'none', role_arn: undefined }],
    ['source', { source: { access_key_id: 'AKIA', secret_access_key: 'inline' } }],
    ['duration_s', { duration_s: 60 }],
    ['tags', { source: { token: { file: 'token' } }, tags: { a: 'b' } }],
    ['tags', { tags: { a: '<' } }],
    ['region', { region: 'EU West' }],
    ['sts_url', { sts_url: 'http://sts.test' }],
  ])('refuses settings with a wrong %s', (path, o) => {
    expect(() => provider(o)).toThrow(path)
  })

  it('does not sign for a host that is not the service’s', async () => {
    const credential = await provider().issue(ask(), patient())
    expect(() => provider().attach(credential, plain({ host: 'evil.test' }))).toThrow(
      expect.objectContaining({ code: 'target_mismatch' }),
    )
  })
})

describe('names at AWS', () => {
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 90 }),
    fc.string({ unit: fc.constantFrom(...'ab=-, @é'), maxLength: 90 }),
  )

  it('fit what AWS takes, and no two values become one', () => {
    fc.assert(
      fc.property(text, text, (a, b) => {
        const [one, other] = [a, b].map((id) => sessionName({ task: { id, purpose: '' } }))
        expect(one).toMatch(/^[\w+=,.@-]{2,64}$/)
        expect(one === other).toBe(a === b)
        const tags = [a, b].map((owner) => lineageTags(grant({ agent: { ...grant().agent, owner } }))['keyless:owner'])
        expect(tags[0]).toMatch(/^[\p{L}\p{Z}\p{N}_.:/=+\-@]{1,256}$/u)
        expect(tags[0] === tags[1]).toBe(a === b)
      }),
      { numRuns: 500 },
    )
  })

  it('cannot be chosen so that they look like another one rewritten', () => {
    const rewritten = sessionName({ task: { id: 'a task', purpose: '' } })
    expect(sessionName({ task: { id: rewritten, purpose: '' } })).not.toBe(rewritten)
  })

  it('tell humans of two issuers apart', () => {
    fc.assert(
      fc.property(text, text, text, (sub, a, b) => {
        const [one, other] = [a, b].map((iss) => sourceIdentity({ human: { iss, sub } }))
        expect(one).toMatch(/^[\w+=,.@-]{2,64}$/)
        expect(one === other).toBe(a === b)
      }),
    )
  })
})

describe('session policies', () => {
  const operation = (id: string, iam: readonly string[], match: readonly string[]): Operation => ({
    id,
    name: `aws-s3:${id}`,
    access: 'read',
    sensitivity: 'internal',
    returnsSecret: false,
    irreversible: false,
    websocket: false,
    captures: [],
    iam,
    match,
  })
  const s3: Service = service({
    name: 'aws-s3',
    operations: [
      operation(
        'object.get',
        ['s3:GetObject arn:{partition}:s3:::{bucket}/{key}'],
        ['GET {bucket+}.s3.{region}.amazonaws.com/{key**+}', 'GET */{bucket}/{key**+}'],
      ),
      operation('bucket.list', ['s3:ListBucket arn:{partition}:s3:::{bucket}'], ['GET */{bucket}']),
      operation('item.get', ['dynamodb:GetItem arn:{partition}:dynamodb:*:*:table/{body./TableName}'], ['POST /']),
      operation('buckets.list', ['s3:ListAllMyBuckets'], ['GET */']),
      { ...operation('strange', [], []), iam: [] },
    ],
  })
  const policy = (...authority: Grant['authority']) =>
    JSON.parse(sessionPolicy(s3, { authority }, { session_policy: 'grant', role_arn: ROLE })).Statement as {
      Action: string[]
      Resource: string[]
    }[]

  it('allow what the grant allows, where it allows it', () => {
    expect(
      policy({
        operations: ['aws-s3:object.get'],
        locations: ['https://s3.eu-west-1.amazonaws.com'],
        paths: ['/reports/2026/**'],
      }),
    ).toEqual([{ Effect: 'Allow', Action: ['s3:GetObject'], Resource: ['arn:aws:s3:::reports/2026/*'] }])
    expect(
      policy({
        operations: ['aws-s3:object.get'],
        locations: ['https://reports.s3.eu-west-1.amazonaws.com'],
        paths: ['/2026/*/x'],
      }),
    ).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ Resource: expect.arrayContaining(['arn:aws:s3:::reports/2026/*/x']) }),
      ]),
    )
    expect(policy({ operations: ['aws-s3:*'] })).toEqual([
      { Effect: 'Allow', Action: ['s3:ListAllMyBuckets'], Resource: ['*'] },
      { Effect: 'Allow', Action: ['dynamodb:GetItem'], Resource: ['arn:aws:dynamodb:*:*:table/*'] },
      { Effect: 'Allow', Action: ['s3:ListBucket'], Resource: ['arn:aws:s3:::*'] },
      { Effect: 'Allow', Action: ['s3:GetObject'], Resource: ['arn:aws:s3:::*/*'] },
    ])
  })

  it('hold names that a grant limits in bodies', () => {
    const table = (rule: object) =>
      policy({ operations: ['aws-s3:item.get'], constraints: { params: { 'body./TableName': rule } } })[0]?.Resource
    expect(table({ equals: 'orders' })).toEqual(['arn:aws:dynamodb:*:*:table/orders'])
    expect(table({ one_of: ['a', 'b'] })).toEqual(['arn:aws:dynamodb:*:*:table/a', 'arn:aws:dynamodb:*:*:table/b'])
    expect(table({ prefix: 'dev-' })).toEqual(['arn:aws:dynamodb:*:*:table/dev-*'])
    expect(table({ equals: 'arn:aws:dynamodb:eu-west-1:123456789012:table/x' })).toEqual([
      'arn:aws:dynamodb:eu-west-1:123456789012:table/x',
    ])
  })

  it('take nothing in a grant for a wildcard or a variable of IAM', () => {
    const [statement] = policy({
      operations: ['aws-s3:object.get'],
      locations: ['https://s3.test'],
      paths: ['/b/$' + '{aws:username}/a?b'],
    })
    expect(statement?.Resource).toEqual([`arn:aws:s3:::b/${'$'}{$}{aws:username}/a${'$'}{?}b`])
  })

  it('are refused where nothing can be said, and where too much would have to be', () => {
    expect(() => policy({ operations: ['aws-s3:strange'] })).toThrow(
      expect.objectContaining({ code: 'credential_unconfigured' }),
    )
    const paths = Array.from({ length: 80 }, (_, i) => `/bucket/some-long-folder-${i}/**`)
    expect(() => policy({ operations: ['aws-s3:object.get'], paths })).toThrow(/2048/)
  })
})
