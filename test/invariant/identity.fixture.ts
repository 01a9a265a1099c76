/**
 * Two replicas of a gateway that trusts several issuers, on one Redis; everything that an attacker could get hold of is made
 * here: good tokens of every kind, issuers that are slow or lead elsewhere, and a listener that nobody may ever reach.
 */
import { createPublicKey, generateKeyPairSync, type KeyObject, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import type { ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import { type AddressInfo, createServer as createTcp } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SignJWT } from 'jose'
import { parse, stringify } from 'yaml'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { startRedis } from '../rig/redis.ts'
import { startUpstream, type TestUpstream } from '../rig/upstream.ts'
import { makeAuthority } from '../upstream/certificate.fixture.ts'

export const ISSUER = 'http://gateway.keyless.test'
export const RESEARCH = 'spiffe://acme.test/agents/research'
export const SEARCH = 'spiffe://acme.test/agents/search'
export const BROKER = 'spiffe://acme.test/agents/broker'
export const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'
export const PEOPLE = 'https://people.acme.test'
export const WORKERS = 'https://workers.acme.test'
export const SLOW = 'https://slow.acme.test'
export const ELSEWHERE = 'https://elsewhere.acme.test'
export const HUGE = 'https://huge.acme.test'

export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: Record<string, unknown>
  readonly text: string
}

export interface Place {
  readonly replicas: readonly [TestGateway, TestGateway]
  readonly upstream: TestUpstream
  /** Connections to the listener that no token and no issuer may lead to. */
  readonly trespasses: () => number
  /** Where that listener is. */
  readonly forbidden: string
  /** Questions that the issuer which never finishes its answer has got. */
  readonly slowQuestions: () => number
  /** A form to a replica, the first one unless said. */
  post(
    path: string,
    form: Record<string, string> | string,
    o?: { at?: 0 | 1; headers?: Record<string, string> },
  ): Promise<Answer>
  idToken(changes?: Claims, header?: Claims): Promise<string>
  workerToken(changes?: Claims, header?: Claims): Promise<string>
  svid(id: string, changes?: Claims, header?: Claims): Promise<string>
  assertion(id: string, changes?: Claims, header?: Claims): Promise<string>
  /** Client credentials by `private_key_jwt`, as a form. */
  credentials(id: string, form?: Record<string, string>): Promise<Record<string, string>>
  /** A grant of an agent by itself. */
  grant(id: string, form?: Record<string, string>): Promise<Record<string, string>>
  /** Every entry of a replica's log. */
  entries(at?: 0 | 1): Promise<readonly Record<string, unknown>[]>
  /** Public key that everyone knows, as PEM: of people's issuer. */
  readonly peoplesPem: string
  stop(): Promise<void>
}

export type Claims = Readonly<Record<string, unknown>>

const newKey = () => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
const publicOf = (key: KeyObject, more: object) => ({ ...createPublicKey(key).export({ format: 'jwk' }), ...more })

async function sign(key: KeyObject, claims: Claims, header: Claims): Promise<string> {
  const now = Math.floor(Date.now() / 1000)
  const all = { iat: now, exp: now + 60, jti: randomUUID(), ...claims }
  return new SignJWT(JSON.parse(JSON.stringify(all))).setProtectedHeader({ alg: 'ES256', ...header }).sign(key)
}

export async function openPlace(): Promise<Place> {
  const dir = await mkdtemp(join(tmpdir(), 'kl-identity-'))
  const [redis, upstream, authority] = await Promise.all([startRedis(), startUpstream(), makeAuthority()])
  const keys = { people: newKey(), workers: newKey(), domain: newKey(), research: newKey(), broker: newKey() }
  const file = async (name: string, value: unknown) => {
    await writeFile(join(dir, name), typeof value === 'string' ? value : JSON.stringify(value))
    return { file: join(dir, name) }
  }
  const forbidden = await trap()
  const odd = await oddIssuers(await authority.issue(['127.0.0.1']), forbidden.url)
  const settings = parse(await upstream.settings())
  settings.upstream.ca.push((await file('root.pem', authority.pem)).file)
  const addresses = ['127.0.0.1/32']
  const worker = (issuer: string, jwks: object) => ({
    kind: 'oidc',
    issuer,
    jwks,
    addresses,
    agents: [{ match: { sub: 'search-1' }, agent: SEARCH }],
  })
  const pem = createPublicKey(keys.people).export({ type: 'spki', format: 'pem' }).toString()
  const trust = {
    issuers: [
      {
        kind: 'human',
        issuer: PEOPLE,
        audience: 'keyless-cli',
        jwks: await file('people.json', { keys: [publicOf(keys.people, { kid: 'k1' })] }),
      },
      worker(WORKERS, await file('workers.json', { keys: [publicOf(keys.workers, { kid: 'k1' })] })),
      worker(SLOW, { uri: `${odd.url}/slow` }),
      worker(ELSEWHERE, { uri: `${odd.url}/elsewhere` }),
      worker(HUGE, { uri: `${odd.url}/huge` }),
      {
        kind: 'jwt-svid',
        trust_domain: 'acme.test',
        jwks: await file('domain.json', { keys: [publicOf(keys.domain, { kid: 'k1', use: 'jwt-svid' })] }),
      },
    ],
    clients: [
      { id: RESEARCH, key: await file('research.json', publicOf(keys.research, {})) },
      { id: BROKER, key: await file('broker.json', publicOf(keys.broker, {})) },
    ],
    x509: [{ trust_domain: 'acme.test', bundle: { file: join(dir, 'root.pem') } }],
  }
  const agents = [
    { id: RESEARCH, owner: 'ana@acme.test', purpose: 'research' },
    { id: SEARCH, owner: 'bo@acme.test', purpose: 'search', orchestrators: [BROKER] },
    { id: BROKER, owner: 'cy@acme.test', purpose: 'broker' },
  ]
  const keysDir = join(dir, 'keys')
  await mkdir(keysDir, { mode: 0o700 })
  const shared = { keys_dir: keysDir, public_url: ISSUER, redis: { url: redis.url } }
  const yaml = stringify({ ...settings, ...shared, agents, trust })
  const replicas = [await startGateway(yaml), await startGateway(yaml)] as const
  const holderOf: Readonly<Record<string, KeyObject>> = { [RESEARCH]: keys.research, [BROKER]: keys.broker }
  const place: Place = {
    replicas,
    upstream,
    trespasses: forbidden.count,
    forbidden: forbidden.url,
    slowQuestions: odd.slowQuestions,
    peoplesPem: pem,
    async post(path, form, { at = 0, headers = {} } = {}) {
      const { host } = new URL(replicas[at].gateway.control)
      const body = typeof form === 'string' ? form : new URLSearchParams(form).toString()
      const type = { 'content-type': 'application/x-www-form-urlencoded' }
      const answer = await fetch(`http://${host}${path}`, { method: 'POST', headers: { ...type, ...headers }, body })
      const text = await answer.text()
      return { status: answer.status, headers: answer.headers, text, body: text === '' ? {} : JSON.parse(text) }
    },
    idToken: (changes = {}, header = {}) =>
      sign(keys.people, { iss: PEOPLE, aud: 'keyless-cli', sub: 'ana', ...changes }, { kid: 'k1', ...header }),
    workerToken: (changes = {}, header = {}) =>
      sign(keys.workers, { iss: WORKERS, aud: ISSUER, sub: 'search-1', ...changes }, { kid: 'k1', ...header }),
    svid: (id, changes = {}, header = {}) =>
      sign(keys.domain, { aud: ISSUER, sub: id, ...changes }, { kid: 'k1', ...header }),
    assertion: (id, changes = {}, header = {}) =>
      sign(holderOf[id] as KeyObject, { iss: id, sub: id, aud: ISSUER, ...changes }, header),
    credentials: async (id, form = {}) => ({
      grant_type: 'client_credentials',
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
      client_assertion: await place.assertion(id),
      scope: 'demo:notes.list',
      purpose: 'look',
      ...form,
    }),
    async grant(id, form = {}) {
      const { status, body, text } = await place.post('/oauth/token', await place.credentials(id, form))
      if (status !== 200) throw new Error(text)
      return body as Record<string, string>
    },
    async entries(at = 0) {
      const log = await readFile(join(replicas[at].settings.dataDir, 'audit', 'entries.jsonl'), 'utf8')
      return log
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line) as Record<string, unknown>)
    },
    async stop() {
      for (const replica of replicas) await replica.stop()
      await Promise.all([odd.close(), forbidden.close(), upstream.stop(), redis.stop()])
      await rm(dir, { recursive: true, force: true })
    },
  }
  return place
}

/** Counts who comes, and lets nobody in. */
async function trap() {
  let count = 0
  const server = createTcp((socket) => {
    count += 1
    socket.destroy()
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    count: () => count,
    close: async () => void server.close(),
  }
}

/** Key sets as nobody should serve them. */
async function oddIssuers(tls: { cert: string; key: string }, forbidden: string) {
  let slowQuestions = 0
  const timers = new Set<NodeJS.Timeout>()
  const answers: Readonly<Record<string, (reply: ServerResponse) => void>> = {
    '/slow': (reply) => {
      slowQuestions += 1
      reply.writeHead(200, { 'content-type': 'application/json' }).write('{"keys":[')
      const timer = setInterval(() => reply.write(' '), 500) // one byte now and then: alive, and never done
      timers.add(timer)
      reply.on('close', () => clearInterval(timer))
    },
    '/elsewhere': (reply) => void reply.writeHead(302, { location: `${forbidden}/jwks` }).end(),
    '/huge': (reply) => {
      reply.writeHead(200, { 'content-type': 'application/json' })
      const more = (): void => {
        while (!reply.destroyed && reply.write('{"keys":['.padEnd(65_536)));
        if (!reply.destroyed) reply.once('drain', more)
      }
      more()
    },
  }
  const server = createServer(tls, (request, reply) => answers[request.url ?? '']?.(reply)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    slowQuestions: () => slowQuestions,
    async close() {
      for (const timer of timers) clearInterval(timer)
      server.closeAllConnections()
      await once(server.close(), 'close')
    },
  }
}
