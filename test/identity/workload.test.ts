import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { readJwt } from '../../gateway/identity/jwt.ts'
import { verifyJwtSvid } from '../../gateway/identity/jwt-svid.ts'
import { refusing } from '../../gateway/identity/refuse.ts'
import { type TrustOf, trustSchema } from '../../gateway/identity/trust.ts'
import type { Workload } from '../../gateway/protocol/identity.ts'
import {
  GATEWAY,
  type Issuer,
  LOOPBACK,
  NOW_S,
  openRoom,
  publicJwk,
  type Room,
  sign,
  signingKey,
  startIssuer,
} from './issuer.fixture.ts'

const AGENT = 'spiffe://acme.test/agents/triage'
const key = signingKey('ES256', 'ec')
const rsa = signingKey('RS256', 'rsa')
const svidKey = signingKey('ES256', 'svid')
const edwards = signingKey('Ed25519', 'edwards')

let issuer: Issuer
let room: Room
beforeAll(async () => {
  issuer = await startIssuer()
  issuer.keys = [
    publicJwk(key),
    publicJwk(rsa),
    publicJwk(svidKey, { use: 'jwt-svid', alg: undefined }),
    publicJwk(edwards, { use: 'jwt-svid' }),
  ]
})
afterAll(() => issuer.stop())

function open(...rows: readonly object[]): void {
  const keys = { jwks: { uri: issuer.jwksUri }, addresses: LOOPBACK }
  room = openRoom({ issuers: rows.map((row) => ({ audience: GATEWAY, ...keys, ...row })) }, [issuer.ca])
}
const refuse = refusing('actor_invalid', 'The actor token')
const refusal = (why: string | RegExp) => ({ code: 'actor_invalid', message: expect.stringMatching(why) })

describe('a JWT-SVID', () => {
  const claims = (change: object = {}) => ({ sub: AGENT, aud: GATEWAY, iat: NOW_S, exp: NOW_S + 300, ...change })
  const verify = (token: string): Promise<Workload> => room.identities.workload({ token, type: 'jwt-svid' })
  beforeEach(() => {
    open({ kind: 'jwt-svid', trust_domain: 'acme.test', claims: { team: '/acme/team' } })
    return room.stop
  })

  it('is its own agent, as SPIRE signs it, also when fetched twice', async () => {
    const token = await sign(svidKey, claims({ acme: { team: 'support' } }))
    const expected = {
      id: AGENT,
      kind: 'jwt-svid',
      issuer: 'acme.test',
      attributes: { spiffe_id: AGENT, team: 'support' },
      expiresAt: NOW_S + 300,
    }
    expect(await verify(token)).toEqual(expected)
    expect(await verify(token)).toEqual(expected)
    expect(await room.identities.workload({ token, type: 'jwt' })).toEqual(expected)
  })

  it.each<[string, object, Record<string, unknown>, string]>([
    ['of another trust domain', { sub: 'spiffe://evil.test/agents/triage' }, {}, 'no issuer'],
    ['of a trust domain that only begins alike', { sub: 'spiffe://acme.test.evil/a' }, {}, 'no issuer'],
    ['of the trust domain itself', { sub: 'spiffe://acme.test' }, {}, 'no issuer'],
    ['with a path that leads up', { sub: 'spiffe://acme.test/a/../b' }, {}, 'no issuer'],
    ['with another scheme', { sub: 'https://acme.test/agents/triage' }, {}, 'no issuer'],
    ['with a port', { sub: 'spiffe://acme.test:443/a' }, {}, 'no issuer'],
    ['without a subject', { sub: undefined }, {}, 'no issuer'],
    ['of an issuer that settings do not name', { iss: 'https://spire.acme.test' }, {}, 'no issuer'],
    ['for two audiences', { aud: [GATEWAY, 'https://other.test'] }, {}, 'its audience is "https://other.test"'],
    ['that lives for a day', { exp: NOW_S + 86_400 }, {}, 'longer than the 900 s'],
    ['that lives for a day and does not say since when', { iat: undefined, exp: NOW_S + 86_400 }, {}, 'longer than'],
    ['without an expiry', { exp: undefined }, {}, 'never expires'],
    ['with a header that JWT-SVIDs do not have', {}, { x5t: 'x' }, 'its header has "x5t"'],
    ['of another type', {}, { typ: 'at+jwt' }, 'its type is "at\\+jwt"'],
  ])('%s is refused', async (_what, change, header, why) => {
    await expect(verify(await sign(svidKey, claims(change), header))).rejects.toMatchObject(refusal(why))
  })

  it('does without a time of issue, as the specification allows, and may call itself JOSE', async () => {
    const token = await sign(svidKey, claims({ iat: undefined }), { typ: 'JOSE' })
    expect(await verify(token)).toMatchObject({ id: AGENT })
  })

  it('is not signed with EdDSA, nor with a key of another use', async () => {
    await expect(verify(await sign(edwards, claims()))).rejects.toMatchObject(refusal('its algorithm is "Ed25519"'))
    await expect(verify(await sign(key, claims()))).rejects.toMatchObject(refusal('publishes no ES256 key "ec"'))
  })

  it('is held against the trust domain of its row also when the wrong row was picked', async () => {
    const jwt = readJwt(await sign(svidKey, claims({ sub: 'spiffe://evil.test/a' })), refuse)
    const [row] = trustSchema.parse({
      issuers: [{ kind: 'jwt-svid', trust_domain: 'acme.test', audience: GATEWAY, jwks: { uri: issuer.jwksUri } }],
    }).issuers
    const keys = { find: async () => svidKey.publicKey }
    const verified = verifyJwtSvid(jwt, row as TrustOf<'jwt-svid'>, { keys, clock: room.clock, refuse })
    await expect(verified).rejects.toMatchObject(refusal('no workload of the trust domain acme.test'))
  })

  it('may be mapped to an agent of another name, and then nobody else is one', async () => {
    open({
      kind: 'jwt-svid',
      trust_domain: 'acme.test',
      issuer: 'https://spire.acme.test',
      agents: [{ match: { sub: AGENT }, agent: 'triage' }],
    })
    const iss = 'https://spire.acme.test'
    expect(await verify(await sign(svidKey, claims({ iss })))).toMatchObject({ id: 'triage' })
    const other = await sign(svidKey, claims({ iss, sub: 'spiffe://acme.test/other' }))
    await expect(verify(other)).rejects.toMatchObject(refusal('no row under `agents`'))
    await expect(verify(await sign(svidKey, claims()))).rejects.toMatchObject(refusal('no issuer nothing'))
  })
})

describe('a Kubernetes token', () => {
  const bound = {
    namespace: 'agents',
    node: { name: 'node-1', uid: '517eb86e-b863-451b-bf70-86cb61439a3a' },
    pod: { name: 'triage-7f', uid: '0d8b260e-ef0e-45fb-be8e-ff44f97722e8' },
    serviceaccount: { name: 'triage', uid: 'e6a8680e-d103-4cce-80ea-03acbbeacf7d' },
    warnafter: NOW_S + 100,
  }
  const claims = (change: object = {}) => ({
    iss: issuer.url,
    aud: [GATEWAY],
    exp: NOW_S + 600,
    iat: NOW_S,
    nbf: NOW_S,
    jti: 'e51f1fbc-4733-4b85-a59f-ba80c0523874',
    sub: 'system:serviceaccount:agents:triage',
    'kubernetes.io': bound,
    ...change,
  })
  const mint = (change: object = {}) => sign(rsa, claims(change), { typ: undefined })
  const verify = (token: string): Promise<Workload> => room.identities.workload({ token, type: 'jwt' })
  const match = { namespace: 'agents', service_account: 'triage' }
  beforeEach(() => {
    open({ kind: 'kubernetes', issuer: issuer.url, agents: [{ match, agent: AGENT }] })
    return room.stop
  })

  it('is the pod that it is bound to', async () => {
    expect(await verify(await mint())).toEqual({
      id: AGENT,
      kind: 'kubernetes',
      issuer: issuer.url,
      instance: bound.pod.uid,
      attributes: {
        namespace: 'agents',
        service_account: 'triage',
        service_account_uid: bound.serviceaccount.uid,
        pod: 'triage-7f',
        node: 'node-1',
      },
      expiresAt: NOW_S + 600,
    })
  })

  it.each<[string, object, string]>([
    ['of another account', { sub: 'system:serviceaccount:agents:other' }, 'another service account'],
    [
      'whose subject and object disagree',
      { 'kubernetes.io': { ...bound, namespace: 'kube-system' } },
      'another service account',
    ],
    ['that is bound to no pod', { 'kubernetes.io': { ...bound, pod: undefined } }, 'bound to a pod'],
    ['that is bound to a node alone', { 'kubernetes.io': { ...bound, pod: 'triage-7f' } }, 'bound to a pod'],
    ['of a pod without a uid', { 'kubernetes.io': { ...bound, pod: { name: 'triage-7f' } } }, 'its uid is not a text'],
    ['that is bound to nothing', { 'kubernetes.io': undefined }, 'bound to a pod'],
    ['for the API server', { aud: ['https://kubernetes.default.svc'] }, 'its audience is'],
    ['of a year', { exp: NOW_S + 31_536_000 }, 'longer than'],
    [
      'of the legacy kind',
      {
        aud: undefined,
        exp: undefined,
        'kubernetes.io': undefined,
        'kubernetes.io/serviceaccount/namespace': 'agents',
        'kubernetes.io/serviceaccount/service-account.name': 'triage',
      },
      'legacy token',
    ],
  ])('%s is refused', async (_what, change, why) => {
    await expect(verify(await mint(change))).rejects.toMatchObject(refusal(why))
  })

  it('is nobody’s when the account was made anew under the same name, if settings pin its uid', async () => {
    const service_account_uid = 'ffffffff-d103-4cce-80ea-03acbbeacf7d'
    open({
      kind: 'kubernetes',
      issuer: issuer.url,
      agents: [{ match: { ...match, service_account_uid }, agent: AGENT }],
    })
    await expect(verify(await mint())).rejects.toMatchObject(refusal('no row under `agents`'))
  })
})

describe('a GitHub Actions token', () => {
  const claims = (change: object = {}) => ({
    iss: issuer.url,
    aud: GATEWAY,
    iat: NOW_S,
    nbf: NOW_S - 600,
    exp: NOW_S + 300,
    jti: 'example-id',
    sub: 'repo:octo/site:ref:refs/heads/main',
    repository: 'octo/site',
    repository_id: '74',
    repository_owner: 'octo',
    repository_owner_id: '65',
    ref: 'refs/heads/main',
    event_name: 'push',
    run_id: '22259804324',
    run_attempt: '2',
    actor_id: '12',
    job_workflow_ref: 'octo/site/.github/workflows/ci.yml@refs/heads/main',
    runner_environment: 'github-hosted',
    sha: 'c040cae0f0dc81641728557b80f09cfa23b83fe5',
    ...change,
  })
  const mint = (change: object = {}) => sign(rsa, claims(change), { x5t: 'eBZ' })
  const verify = (token: string): Promise<Workload> => room.identities.workload({ token, type: 'jwt' })
  const match = { repository_id: '74', repository_owner_id: '65', ref: 'refs/heads/main' }
  beforeEach(() => {
    open({ kind: 'github-actions', issuer: issuer.url, agents: [{ match, agent: AGENT }] })
    return room.stop
  })

  it('is a run and its attempt, of a repository known by its number', async () => {
    expect(await verify(await mint())).toMatchObject({
      id: AGENT,
      kind: 'github-actions',
      instance: '22259804324/2',
      attributes: { repository_id: '74', ref: 'refs/heads/main', event_name: 'push', repository: 'octo/site' },
      expiresAt: NOW_S + 300,
    })
    expect(await verify(await mint({ repository: 'renamed/site' }))).toMatchObject({ id: AGENT })
  })

  it.each<[string, object, string]>([
    ['of a repository that took over the name', { repository_id: '75' }, 'no row under `agents`'],
    ['of an owner that took over the name', { repository_owner_id: '66' }, 'no row under `agents`'],
    ['of a pull request', { ref: 'refs/pull/1/merge', event_name: 'pull_request' }, 'no row under `agents`'],
    ['of a branch that only begins alike', { ref: 'refs/heads/main-evil' }, 'no row under `agents`'],
    ['without a repository', { repository_id: undefined }, 'no row under `agents`'],
    ['without a run', { run_id: undefined }, 'its run_id'],
    ['without an attempt', { run_attempt: 2 }, 'its run_attempt'],
    ['for the default audience', { aud: 'https://github.com/octo' }, 'its audience is'],
  ])('%s is refused', async (_what, change, why) => {
    await expect(verify(await mint(change))).rejects.toMatchObject(refusal(why))
  })
})

describe('a token of any other issuer', () => {
  const claims = (change: object = {}) => ({ iss: issuer.url, aud: GATEWAY, iat: NOW_S, exp: NOW_S + 300, ...change })
  const verify = (token: string): Promise<Workload> => room.identities.workload({ token, type: 'id_token' })
  beforeEach(() => {
    open({
      kind: 'oidc',
      issuer: issuer.url,
      typ: 'at+jwt',
      agents: [
        { match: { tid: 'tenant-1', oid: '7' }, agent: AGENT },
        { match: { '/google/compute_engine/instance_id': '42', sub: 'vm' }, agent: 'vm' },
      ],
      instance: '/google/compute_engine/instance_id',
      claims: { type: 'agent_type', spot: '/google/spot' },
    })
    return room.stop
  })
  const google = { compute_engine: { instance_id: 42 }, spot: false }
  const mint = (change: object) => sign(key, claims(change), { typ: 'at+jwt' })

  it('is mapped by its claims, also nested ones, numbers and booleans', async () => {
    expect(await verify(await mint({ sub: 'vm', agent_type: 'autonomous', google }))).toEqual({
      id: 'vm',
      kind: 'oidc',
      issuer: issuer.url,
      instance: '42',
      attributes: { sub: 'vm', type: 'autonomous', spot: 'false' },
      expiresAt: NOW_S + 300,
    })
    expect(await verify(await mint({ sub: 'x', tid: 'tenant-1', oid: 7, google }))).toMatchObject({ id: AGENT })
  })

  it.each<[string, object, string]>([
    ['only half of a row', { sub: 'x', tid: 'tenant-1', google }, 'no row under `agents`'],
    ['an attribute that is no value', { sub: 'vm', agent_type: { a: 1 }, google }, 'its type is not a text'],
    ['an attribute that is endless', { sub: 'vm', agent_type: 'x'.repeat(256), google }, 'its type is not a text'],
    ['an attribute with a line break', { sub: 'vm', agent_type: 'a\nb', google }, 'its type is not a text'],
    ['no subject', { tid: 'tenant-1', oid: '7', google }, 'its sub is not a text'],
    ['no instance', { sub: 'x', tid: 'tenant-1', oid: '7' }, 'its instance is not a text'],
  ])('with %s is refused', async (_what, change, why) => {
    await expect(verify(await mint(change))).rejects.toMatchObject(refusal(why))
  })

  it('is of the type that settings name', async () => {
    const token = await sign(key, claims({ sub: 'vm', google }))
    await expect(verify(token)).rejects.toMatchObject(refusal('its type is "JWT", not at\\+jwt'))
  })
})

describe('the row of settings', () => {
  it('is chosen by exact issuer, and a token presented as a JWT-SVID is nothing else', async () => {
    const agents = [{ match: { sub: 'worker' }, agent: AGENT }]
    open({ kind: 'oidc', issuer: issuer.url, agents }, { kind: 'oidc', issuer: `${issuer.url}/`, agents })
    const claims = { iss: issuer.url, sub: 'worker', aud: GATEWAY, iat: NOW_S, exp: NOW_S + 60 }
    const token = await sign(key, claims)
    expect(await room.identities.workload({ token, type: 'jwt' })).toMatchObject({ issuer: issuer.url })
    await expect(room.identities.workload({ token, type: 'jwt-svid' })).rejects.toMatchObject(refusal('no issuer'))
    await expect(room.identities.workload({ token, type: 'access_token' })).rejects.toMatchObject(refusal('not by'))
    const people = await sign(key, { ...claims, iss: `${issuer.url}/people` })
    await expect(room.identities.workload({ token: people, type: 'jwt' })).rejects.toMatchObject(refusal('no issuer'))
    await room.stop()
  })

  it('is missing for everybody when nothing is configured', async () => {
    room = openRoom({})
    const token = await sign(key, { iss: issuer.url, sub: AGENT, aud: GATEWAY, exp: NOW_S + 60 })
    for (const type of ['jwt', 'jwt-svid', 'id_token'] as const)
      await expect(room.identities.workload({ token, type })).rejects.toMatchObject(refusal('no issuer'))
    await expect(room.identities.human({ token, type: 'id_token' })).rejects.toMatchObject({ code: 'subject_invalid' })
    const assertion = { type: 'jwt-bearer', token } as const
    await expect(room.identities.client({ assertion })).rejects.toMatchObject({ code: 'client_invalid' })
    expect(await room.identities.client({ clientId: AGENT })).toBeUndefined()
    await room.stop()
  })
})
