/** Every kind of credential through one running gateway: who sees it, when it is shared, how it ends, and what an agent reads when it cannot be had. */
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createRemoteJWKSet, type JWTVerifyGetKey, jwtVerify } from 'jose'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { parse } from 'yaml'
import { throwAwayTls } from '../../deploy/demo/certificate.ts'
import type { ServiceFile } from '../../gateway/policy/catalogue/catalogue.ts'
import { type Answer, codeOf, reverse } from '../invariant/agent.fixture.ts'
import { entriesOf, type Place, type Site, type Wanted, writeSite } from '../invariant/services.fixture.ts'
import { MAKER } from '../provider/gitlab.fixture.ts'
import type { Answered } from '../provider/json-server.fixture.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { type IssuerName, type Issuers, OWN, startIssuers } from './providers.fixture.ts'

const MINE = 'agents-own-key-0815471108154711'
const STANDING = {
  user: 'ci-reader',
  password: 'canary-password-0815',
  one: 'canary-key-one-0815',
  two: 'canary-key-two-0815',
}
const key = generateKeyPairSync('ec', { namedCurve: 'P-256' })

interface Arrived {
  readonly host: string
  readonly headers: Record<string, string | string[] | undefined>
  /** Path, fields and body as they came. */
  readonly text: string
}

interface Row {
  readonly service: string
  readonly path: string
  readonly provider: string
  /** Who is asked; absent: nobody is. */
  readonly issuer?: IssuerName
  readonly slot?: string
  readonly prefix?: string
  /** What is recorded of its end with the task. */
  readonly outcome: 'revoked' | 'expires'
}

const rows: readonly Row[] = [
  row('google-storage', '/storage/v1/b/reports/o/summary.csv', 'google', { issuer: 'google' }),
  row('microsoft-graph', '/v1.0/users', 'azure', { issuer: 'azure' }),
  row('gitlab', '/api/v4/projects/acme%2Fsite/issues/7', 'gitlab', { issuer: 'gitlab', outcome: 'revoked' }),
  row('kubernetes', '/api/v1/namespaces/agents/pods', 'kubernetes', { issuer: 'kubernetes', outcome: 'revoked' }),
  row('elasticsearch', '/logs/_search', 'elasticsearch', {
    ...{ issuer: 'elasticsearch', prefix: 'ApiKey ', outcome: 'revoked' },
  }),
  row('billing', '/v1/x', 'oauth_jwt_bearer', { issuer: 'oauth_jwt_bearer', outcome: 'revoked' }),
  row('chat', '/v1/x', 'oauth_id_jag', { issuer: 'oauth_id_jag' }),
  row('openai', '/v1/models', 'workload_identity', { issuer: 'openai' }),
  row('anthropic', '/v1/messages/batches', 'workload_identity', { issuer: 'anthropic' }),
  row('appstore', '/v1/x', 'jwt'),
  row('cluster', '/v1/x', 'exec', { slot: 'x-token', prefix: '' }),
  row('nexus', '/v1/x', 'basic', { prefix: 'Basic ' }),
  row('metrics', '/v1/x', 'static', { slot: 'x-one', prefix: '' }),
]

function row(service: string, path: string, provider: string, o: Partial<Row> = {}): Row {
  return { service, path, provider, outcome: 'expires', ...o }
}

const asked = rows.filter((one): one is Row & { issuer: IssuerName } => one.issuer !== undefined)

/** They take assertions of the gateway. */
const ASSERTED: ReadonlySet<IssuerName> = new Set(
  asked.map(({ issuer }) => issuer).filter((name) => !['gitlab', 'kubernetes', 'elasticsearch'].includes(name)),
)

/** Those of the catalogue, as it describes them, on hosts of this test. */
const CATALOGUE = ['google-storage', 'microsoft-graph', 'gitlab', 'kubernetes', 'elasticsearch', 'openai', 'anthropic']

const arrived: Arrived[] = []
let issuers: Issuers
let site: Site
let gateway: TestGateway
let api: Server
let dir: string

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'keyless-providers-'))
  let published: JWTVerifyGetKey | undefined
  const keys: JWTVerifyGetKey = (header, token) => {
    published ??= createRemoteJWKSet(new URL(`${gateway.gateway.control}/assertions/jwks.json`))
    return published(header, token)
  }
  issuers = await startIssuers(keys)
  const place = await startApi()
  site = await writeSite({ ...place, caPem: `${place.caPem}\n${issuers.caPem}` }, await wanted(place))
  gateway = await startGateway(site.yaml)
})

afterEach(() => {
  vi.restoreAllMocks()
  for (const issuer of Object.values(issuers.at)) issuer.interrupt = undefined
})

afterAll(async () => {
  await gateway?.stop()
  await issuers?.stop()
  api?.closeAllConnections()
  api?.close()
  await Promise.all([site?.remove(), rm(dir, { recursive: true, force: true })])
})

/** All services: what arrived is kept, and repeated only for whoever asks for an echo. */
async function startApi(): Promise<Place> {
  const tls = await throwAwayTls([...rows, { service: 'mail' }].map(({ service }) => `${service}.keyless.test`))
  api = createServer(tls, (request, response) => {
    const { headers, rawHeaders, url = '' } = request
    const text = [url, ...rawHeaders].join('\n')
    arrived.push({ host: headers.host ?? '', headers, text })
    response.end(JSON.stringify(headers['x-echo'] === undefined ? {} : { headers, url }))
  }).listen(0, '127.0.0.1')
  await once(api, 'listening')
  return { port: (api.address() as AddressInfo).port, caPem: tls.caPem }
}

async function wanted({ port }: Place): Promise<Wanted> {
  let files = 0
  const secret = (text: string) => {
    files += 1
    const file = join(dir, `secret-${files}`)
    writing.push(writeFile(file, text))
    return { file }
  }
  const writing: Promise<void>[] = []
  await writeFile(join(dir, 'token.sh'), `#!/bin/sh\nexec cat ${dir}/printed\n`)
  await chmod(join(dir, 'token.sh'), 0o700)
  await writeFile(join(dir, 'printed'), JSON.stringify({ value: 'canary-printed-0815', expires_in: 600 }))
  await writeFile(join(dir, 'password'), STANDING.password)
  await writeFile(join(dir, 'one'), STANDING.one)
  await writeFile(join(dir, 'key.pem'), key.privateKey.export({ type: 'pkcs8', format: 'pem' }))
  const { openai, anthropic, ...at } = issuers.credentials(secret)
  const bearer = at.oauth_jwt_bearer
  const jwt = {
    provider: 'jwt',
    key: { file: join(dir, 'key.pem') },
    alg: 'ES256',
    claims: { sub: '{agent}', jti: '{task}' },
  }
  const credentials = {
    ...{ openai, anthropic, gitlab: at.gitlab, kubernetes: at.kubernetes, elasticsearch: at.elasticsearch },
    ...{ 'google-storage': at.google, 'microsoft-graph': at.azure, billing: bearer, chat: at.oauth_id_jag },
    appstore: jwt,
    cluster: { provider: 'exec', command: [join(dir, 'token.sh')] },
    nexus: { provider: 'basic', username: STANDING.user, password: { file: join(dir, 'password') } },
    metrics: { provider: 'static', values: { one: { file: join(dir, 'one') }, two: secret(STANDING.two) } },
    mail: { ...bearer, fallback: 'mail-standby' },
    'mail-standby': jwt,
  }
  const services = await Promise.all([...rows, { service: 'mail' }].map(({ service }) => described(service, port)))
  await Promise.all(writing)
  return { services, credentials, settings: { public_url: 'https://keyless.acme.test' } }
}

const SLOTS: Readonly<Record<string, ServiceFile['slots']>> = {
  cluster: [{ in: 'header', name: 'x-token' }],
  nexus: [{ in: 'basic', username: 'nobody' }],
  metrics: [
    { in: 'header', name: 'x-one', part: 'one' },
    { in: 'header', name: 'x-two', part: 'two' },
  ],
}

async function described(name: string, port: number): Promise<Wanted['services'][number]> {
  const own = { hosts: [`${name}.keyless.test`], ports: [port], addresses: ['127.0.0.1/32'] }
  if (!CATALOGUE.includes(name)) {
    const operations = { read: { match: ['GET /v1/x'], access: 'read' } } as const
    return { name, ...own, operations, ...(SLOTS[name] && { slots: SLOTS[name] }) } as never
  }
  const file = new URL(`../../policies/services/${name}.yaml`, import.meta.url)
  const { instance: _, ...service }: ServiceFile & { instance?: string } = parse(await readFile(file, 'utf8'))
  return { ...service, ...own }
}

interface Call {
  readonly answer: Answer
  /** What came at the service; undefined: nothing did. */
  readonly at: Arrived | undefined
  /** The credential there, without what stands before it. */
  readonly credential: string
}

/** With a key of the agent's own in every place where one could be. */
async function call({ service, path, slot = 'authorization', prefix = 'Bearer ' }: Row, handle: string, fields = '') {
  const { proxyPort } = gateway
  const own = (SLOTS[service] ?? [{ in: 'header', name: 'authorization' }]).map((to) =>
    to.in === 'header' ? `${to.name}: Bearer ${MINE}` : `Authorization: Bearer ${MINE}`,
  )
  const proof = `Proxy-Authorization: Basic ${Buffer.from(`task:${handle}`).toString('base64')}`
  const before = arrived.length
  const answer = await reverse(proxyPort, handle, {
    path: `/${service}${path}`,
    fields: `${[proof, ...own].join('\r\n')}\r\n${fields}`,
  })
  const at = arrived.slice(before).find(({ host }) => host.startsWith(`${service}.`))
  const field = String(at?.headers[slot] ?? '')
  expect(field.startsWith(prefix) || at === undefined, field).toBe(true)
  return { answer, at, credential: field.slice(prefix.length) } satisfies Call
}

const open = async (service: string) => gateway.openTask(`${service}:*`, 'use every kind of credential')

/** Values that no agent and no log may have. */
function secrets(): string[] {
  const tokens = [...issuers.given, ...issuers.google.tokens.keys(), ...issuers.gitlab.tokens.keys()]
  return [
    ...tokens,
    OWN,
    MAKER,
    STANDING.password,
    STANDING.one,
    STANDING.two,
    'canary-printed-0815',
    'canary-text',
    'eyJhbGci',
  ]
}

function requireUnseen(text: string): void {
  expect(secrets().filter((one) => text.includes(one))).toEqual([])
}

describe.each(rows)('$provider at $service', (one) => {
  it('carries a credential of ours alone, shares it within a grant and with no other, and ends it with the task', async () => {
    const [first, other] = [await open(one.service), await open(one.service)]
    const asks = () => (one.issuer === undefined ? 0 : issuers.at[one.issuer].asked.length)
    const calls = [await call(one, first.handle)]
    const once = asks()
    calls.push(await call(one, first.handle))
    expect(asks(), 'the second call finds it').toBe(once)
    calls.push(await call(one, other.handle))
    for (const { answer, at, credential } of calls) {
      expect([answer.status, codeOf(answer)]).toEqual([200, undefined])
      expect(at?.text).not.toContain(MINE)
      expect(at?.text).not.toContain(first.handle)
      await requireGenuine(one, credential)
      requireUnseen(answer.bytes.toString('latin1'))
    }
    const [a, b, c] = calls.map(({ credential }) => credential)
    expect(b).toBe(a)
    if (!['exec', 'basic', 'static'].includes(one.provider)) expect(c).not.toBe(a)
    const echoed = await call(one, other.handle, 'X-Echo: 1\r\n')
    requireUnseen(echoed.answer.bytes.toString('latin1'))
    await Promise.all([first, other].map(({ task }) => gateway.control.completeTask(task)))
    await requireRecorded(one, first.task)
  })
})

/** Whether the service, or whoever stands behind it, knows this credential. */
async function requireGenuine({ provider, issuer }: Row, credential: string): Promise<void> {
  if (provider === 'jwt') await jwtVerify(credential, key.publicKey)
  else if (issuer !== undefined) expect(secrets()).toContain(credential)
  else if (provider === 'basic')
    expect(Buffer.from(credential, 'base64').toString()).toBe(`${STANDING.user}:${STANDING.password}`)
  else expect(credential).toBe(provider === 'exec' ? 'canary-printed-0815' : STANDING.one)
}

async function requireRecorded({ service, provider, issuer, outcome }: Row, task: string): Promise<void> {
  const ofTask = async () => (await entriesOf(gateway.settings.dataDir)).filter((entry) => entry.task?.id === task)
  await expect.poll(async () => (await ofTask()).some(({ kind }) => kind === 'lease.revoked')).toBe(true)
  const entries = await ofTask()
  const leases = entries.filter(({ kind }) => kind.startsWith('lease.'))
  const names = { provider, credential: service, service }
  expect(leases.map(({ kind }) => kind)).toEqual(['lease.issued', 'lease.revoked'])
  const [issued, revoked] = leases
  expect(issued?.facts).toMatchObject({ ...names, cause: 'needed' })
  expect(revoked?.facts).toMatchObject({ ...names, reason: 'grant_ended', outcome, cred_id: issued?.facts?.cred_id })
  const decision = entries.find(({ kind }) => kind === 'call.decision')
  for (const { lineage_hash, human } of leases) {
    expect(lineage_hash).toBe(decision?.lineage_hash)
    expect(human).toEqual(decision?.human)
  }
  const atGoogle = [...issuers.google.tokens.values()].map(({ claims = {} }) => claims)
  const told = [...issuers.told, ...atGoogle].filter((claims) => claims.task === task)
  if (issuer !== undefined && ASSERTED.has(issuer))
    expect(new Set(told.map(({ lineage_hash }) => lineage_hash))).toEqual(new Set([decision?.lineage_hash]))
}

/** What an agent reads. */
interface Told {
  readonly status: number
  readonly code: string | undefined
  readonly retryAfter: string | undefined
  readonly shouldRetry: string | undefined
  readonly text: string
}

async function toldBy(one: Row): Promise<Told> {
  const { answer, at } = await call(one, (await open(one.service)).handle)
  expect(at, 'no bare call').toBeUndefined()
  const text = answer.bytes.toString('latin1')
  requireUnseen(text)
  const field = (name: string) => new RegExp(`^${name}: *(.*?)\\r?$`, 'im').exec(text)?.[1]
  return {
    ...{ status: answer.status, code: codeOf(answer), text },
    ...{ retryAfter: field('retry-after'), shouldRetry: field('x-should-retry') },
  }
}

/** Every issuer at once does the same: each row by its name, so that a failure says whose it is. */
async function allTold(answered: (one: Row & { issuer: IssuerName }) => Answered): Promise<Map<string, Told>> {
  for (const one of asked) issuers.at[one.issuer].interrupt = () => answered(one)
  return new Map(await Promise.all(asked.map(async (one) => [one.service, await toldBy(one)] as const)))
}

describe('an issuer', () => {
  it('that is broken, silent or talks nonsense lets the call be tried again, and says when', async () => {
    const timeout = AbortSignal.timeout.bind(AbortSignal)
    const answers: readonly (readonly [string, Answered])[] = [
      ['answered 500', { status: 500, json: { error: 'canary-text' } }],
      ['did not answer', 'hang'],
      ['not', { status: 200, text: '<p>canary-text</p>' }],
    ]
    for (const [words, answered] of answers) {
      // Ten seconds, as settings of a gateway in production have it.
      if (answered === 'hang') vi.spyOn(AbortSignal, 'timeout').mockImplementation((ms) => timeout(Math.min(ms, 200)))
      for (const [service, told] of await allTold(() => answered)) {
        const what = `${service}: ${told.text}`
        expect([told.status, told.code], what).toEqual([502, 'credential_unavailable'])
        expect(Number(told.retryAfter), what).toBeGreaterThan(0)
        expect(told.shouldRetry, what).toBeUndefined()
        expect(told.text, what).toContain(words)
      }
      vi.restoreAllMocks()
    }
  })

  it('that says no says so to the operator, and no agent tries it again', async () => {
    const answers: readonly Answered[] = [400, 403].map((status) => ({
      status,
      json: { error: 'invalid_grant', error_description: 'canary-text' },
    }))
    for (const answered of answers)
      for (const [service, told] of await allTold(() => answered)) {
        const what = `${service}: ${told.text}`
        expect([told.status, told.code], what).toEqual([502, 'credential_rejected'])
        expect([told.retryAfter, told.shouldRetry], what).toEqual([undefined, 'false'])
        // Of the clients of Elasticsearch none reads another type, and they show a text as it is.
        if (service === 'elasticsearch')
          expect(told.text).toMatch(/^content-type: application\/json\r$[\s\S]*"error":"The issuer refused/im)
      }
  })

  it('that is busy is left alone for as long as it asks', async () => {
    const busy = { status: 429, json: {}, headers: { 'Retry-After': '7' } }
    for (const [service, told] of await allTold(() => busy)) {
      expect([told.status, told.code, told.retryAfter], `${service}: ${told.text}`).toEqual([
        502,
        'credential_unavailable',
        '7',
      ])
    }
    const before = asked.map(({ issuer }) => issuers.at[issuer].asked.length)
    for (const told of (await allTold(() => busy)).values()) expect(Number(told.retryAfter)).toBeGreaterThan(0)
    expect(asked.map(({ issuer }) => issuers.at[issuer].asked.length)).toEqual(before)
  })

  it.each([
    ['cluster', 'printed', 'not { json', 200, undefined],
    ['cluster', 'printed', '{"value": 1}', 502, 'credential_rejected'],
    ['cluster', 'printed', undefined, 502, 'credential_unavailable'],
    ['cluster', 'printed', '', 502, 'credential_unconfigured'],
    ['nexus', 'password', undefined, 502, 'credential_unconfigured'],
    ['nexus', 'password', 'two\nlines', 502, 'credential_rejected'],
    ['metrics', 'one', '', 502, 'credential_unconfigured'],
    ['metrics', 'one', 'two\nlines', 502, 'credential_rejected'],
    ['appstore', 'key.pem', 'no key', 502, 'credential_unconfigured'],
  ] as const)('of this machine: %s with %s as %j', async (service, file, text, status, code) => {
    const kept = await readFile(join(dir, file), 'utf8')
    if (text === undefined) await rm(join(dir, file))
    else await writeFile(join(dir, file), text)
    try {
      const one = rows.find((other) => other.service === service) as Row
      const { answer, at } = await call(one, (await open(service)).handle)
      expect([answer.status, codeOf(answer)]).toEqual([status, code])
      expect(at === undefined).toBe(code !== undefined)
      expect(answer.bytes.toString()).not.toContain(text || 'canary')
    } finally {
      await writeFile(join(dir, file), kept)
    }
  })
})

it('lets another credential stand in for an issuer that is away, under its own name, and never for one that says no', async () => {
  const mail = row('mail', '/v1/x', 'jwt', { issuer: 'oauth_jwt_bearer' })
  const issuer = issuers.at.oauth_jwt_bearer
  issuer.interrupt = () => ({ status: 503 })
  const task = await open('mail')
  const { answer, credential } = await call(mail, task.handle)
  expect(answer.status).toBe(200)
  await jwtVerify(credential, key.publicKey)
  const entries = (await entriesOf(gateway.settings.dataDir)).filter((entry) => entry.task?.id === task.task)
  expect(
    entries
      .filter(({ kind }) => kind.startsWith('lease.'))
      .map(({ kind, facts }) => [kind, facts?.credential, facts?.provider]),
  ).toEqual([
    ['lease.failed', 'mail', 'oauth_jwt_bearer'],
    ['lease.issued', 'mail-standby', 'jwt'],
  ])
  expect(entries.find(({ kind }) => kind === 'call.outcome')?.cred).toMatchObject({
    credential: 'mail-standby',
    provider: 'jwt',
  })
  issuer.interrupt = () => ({ status: 400, json: { error: 'invalid_grant' } })
  const after = await call(mail, (await open('mail')).handle)
  expect([codeOf(after.answer), after.at]).toEqual(['credential_rejected', undefined])
})

it('writes no credential and nothing of an issuer into the log, which verifies', async () => {
  await gateway.checkLog()
  requireUnseen(JSON.stringify(await entriesOf(gateway.settings.dataDir)))
})
