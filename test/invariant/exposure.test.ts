/** SECURITY.md 5: no byte that reaches the agent, the log, Redis or standard output holds an upstream credential, plain or encoded. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type ControlClient, controlClient } from '../../gateway/cli/control-client.ts'
import type { OpenedTask } from '../../gateway/protocol/control.ts'
import { findCanary, findCanaryInTree, newCanary } from '../rig/canary.ts'
import { ROOT, type Running, run, start } from '../rig/process.ts'
import { startRedis, type TestRedis } from '../rig/redis.ts'
import { startUpstream, type TestUpstream } from '../rig/upstream.ts'
import { type Answer, basic, forward, openTunnel, reverse } from './agent.fixture.ts'
import { CARRIERS, credentialOf, type LeakyUpstream, SPELLINGS, startLeaky } from './leaky.fixture.ts'
import { BEARER, entriesOf, type Operations, type Site, writeSite } from './services.fixture.ts'

const operations: Operations = {
  'leak.read': { match: ['GET /leak/{carrier}/{spelling}'], access: 'read' },
  'leak.write': { match: ['POST /leak/{carrier}/{spelling}'], access: 'write' },
}
const PLACES = ['bearer', 'basic', 'query', 'cookie', 'oauth'] as const
type PlaceName = (typeof PLACES)[number]
/** Issuers that repeat what they were sent, and a key that no header can carry. */
const BAD = ['repeats', 'repeats-text', 'repeats-late', 'repeats-post', 'unplaceable'] as const

/** A cookie has no double quote (RFC 6265 §4.1.1). */
const keys: Record<Exclude<PlaceName, 'oauth'>, string> = {
  bearer: newCanary(),
  basic: newCanary(),
  query: newCanary(),
  cookie: newCanary().replaceAll('"', ''),
}
const clientSecret = newCanary()
const brokenKey = newCanary()

let upstream: TestUpstream
let leaky: LeakyUpstream
let redis: TestRedis
let site: Site
let dir: string
let gateway: Running
let port: number
let control: ControlClient
let ca: string
let task: OpenedTask
const got: Buffer[] = []

beforeAll(async () => {
  ;[upstream, redis] = await Promise.all([startUpstream(), startRedis()])
  leaky = await startLeaky([...PLACES, ...BAD, 'issuer'].map((name) => `${name}.keyless.test`))
  dir = await mkdtemp(join(tmpdir(), 'keyless-exposure-'))
  site = await writeSite({ port: leaky.port, caPem: `${leaky.caPem}\n${upstream.caPem}` }, await wanted())
  await startProcess(`redis: { url: "${redis.url}" }\n`)
})

afterAll(async () => {
  await gateway?.stop()
  await Promise.all([upstream.stop(), leaky.stop(), redis.stop(), site.remove()])
  await rm(dir, { recursive: true, force: true })
})

async function wanted() {
  const service = (name: string, slot: object) => ({ name, operations, slots: [slot as typeof BEARER] })
  const issuer = (query: string, client_auth = 'client_secret_basic') => ({
    provider: 'oauth_client_credentials',
    token_url: `https://issuer.keyless.test:${leaky.port}/token${query}`,
    client_id: 'keyless',
    client_auth,
    client_secret: { file: join(dir, 'client-secret') },
    addresses: ['127.0.0.1/32'],
  })
  await writeFile(join(dir, 'client-secret'), clientSecret)
  const { facts } = upstream
  return {
    services: [
      service('bearer', BEARER),
      service('basic', { in: 'basic', username: 'x-access-token' }),
      service('query', { in: 'query', name: 'key' }),
      service('cookie', { in: 'cookie', name: 'session' }),
      service('oauth', BEARER),
      ...BAD.map((name) => service(name, BEARER)),
    ],
    credentials: {
      ...keys,
      unplaceable: `${brokenKey}\nX-Injected: 1`,
      oauth: {
        provider: 'oauth_client_credentials',
        token_url: facts.token_url,
        client_id: facts.client_id,
        client_auth: 'client_secret_basic',
        client_secret: { file: facts.client_secret_file },
        addresses: ['127.0.0.1/32'],
      },
      repeats: issuer(''),
      'repeats-text': issuer('?as=text&status=401'),
      'repeats-late': issuer('?status=500'),
      'repeats-post': issuer('', 'client_secret_post'),
    },
    settings: {
      upstream: { hosts: { 'issuer.keyless.test': '127.0.0.1' } },
    },
  }
}

async function startProcess(more: string): Promise<void> {
  const file = join(dir, 'keyless.yaml')
  const listen = 'listen: { proxy: "127.0.0.1:0", control: "127.0.0.1:0" }'
  await writeFile(file, `data_dir: ${dir}/data\n${listen}\n${site.yaml}${more}`)
  gateway = start(process.execPath, [join(ROOT, 'gateway', 'keyless.ts'), 'start', '--config', file])
  const [, proxy = ''] = await gateway.says(/proxy +(http:\/\/[\d.:]+)/)
  await gateway.says(/Ctrl-C/)
  port = Number(new URL(proxy).port)
  control = controlClient(join(dir, 'data', 'control.sock'))
  ca = (await control.status()).ca_pem
  task = await control.openTask({ scope: [...PLACES, ...BAD].map((name) => `${name}:*`).join(' '), purpose: 'leak' })
}

const keep = (answer: Answer): Answer => {
  got.push(answer.bytes)
  return answer
}

const viaReverse = async (place: string, path: string, handle = task.handle) =>
  keep(await reverse(port, handle, { path: `/${place}${path}` }))
const viaForward = async (place: string, path: string) =>
  keep(await forward(port, task.handle, { url: `https://${place}.keyless.test:${leaky.port}${path}` }))
const viaTunnel = async (place: string, path: string) => {
  const authority = `${place}.keyless.test:${leaky.port}`
  const tunnel = await openTunnel(port, { handle: task.handle, authority, ca })
  return keep(await tunnel.sayLast(`GET ${path} HTTP/1.1\r\nHost: ${authority}\r\nConnection: close\r\n\r\n`))
}

/** The last credential that arrived for a place, as the upstream understood it. */
const arrivedAt = (place: PlaceName): string => {
  const head = leaky.heads.findLast((one) => one.includes(`${place}.keyless.test`)) ?? ''
  return credentialOf(head, new URL(head.split(' ')[1] ?? '/', 'https://leaky'))
}

const secrets = (): string[] => [...Object.values(keys), clientSecret, brokenKey, arrivedAt('oauth')]

/** Every token of the issuer that was ever sent: one that came back is replaced for the next call. */
const everySecret = (): string[] => {
  const heads = leaky.heads.filter((one) => one.includes('oauth.keyless.test'))
  return [...new Set([...secrets(), ...heads.map((head) => credentialOf(head, new URL('https://leaky')))])]
}

/** Spelling and place of every sighting. */
const sightings = (bytes: Buffer | string, of = secrets()): string[] =>
  of.flatMap((secret, n) => findCanary(bytes, secret).map(({ spelling }) => `secret ${n} as ${spelling}`))

it('puts the credential of each service where that service takes it', async () => {
  for (const place of PLACES) {
    expect((await viaReverse(place, '/leak/body/json')).status).toBe(200)
    if (place === 'oauth') expect(arrivedAt(place)).toMatch(/^.{20,}$/)
    else expect(arrivedAt(place)).toBe(keys[place])
  }
})

describe.each(PLACES)('an upstream that repeats its %s credential', (place) => {
  // The search knows values, not places: every spelling is tried where the value travels as it is, and where it travels coded.
  const spellings = place === 'bearer' || place === 'basic' ? Object.keys(SPELLINGS) : ['json', 'base64-1']

  it.each(Object.keys(CARRIERS))('in %s', async (carrier) => {
    const before = leaky.heads.length
    // A token that came back is revoked, and a grant gets only so many within a minute.
    const { handle } = place === 'oauth' ? await control.openTask({ scope: 'oauth:*', purpose: carrier }) : task
    for (const spelling of spellings) {
      const { bytes } = await viaReverse(place, `/leak/${carrier}/${spelling}`, handle)
      expect(bytes.length, `${carrier} ${spelling} got no answer`).toBeGreaterThan(0)
      expect(sightings(bytes), `${carrier} ${spelling}\n${bytes.toString('latin1')}`).toEqual([])
    }
    expect(leaky.heads.length - before).toBeGreaterThanOrEqual(spellings.length)
  })
})

describe.each([
  ['intercepted', viaTunnel],
  ['absolute-form', viaForward],
] as const)('the %s door', (_, via) => {
  it.each(Object.keys(CARRIERS))('with the credential in %s', async (carrier) => {
    for (const place of ['bearer', 'basic', 'query'] as const) {
      const { bytes } = await via(place, `/leak/${carrier}/json`)
      expect(sightings(bytes), bytes.toString('latin1')).toEqual([])
    }
  })
})

describe('a credential cut in two', () => {
  it('at every position of an answer', async () => {
    const length = JSON.stringify(keys.bearer).length + keys.bearer.length + 60
    const cut = async (at: number) => {
      const { bytes } = await viaReverse('bearer', `/leak/halves/json?at=${at}`)
      expect(sightings(bytes), `cut at ${at}`).toEqual([])
      expect(sightings(withoutFraming(bytes)), `cut at ${at}, joined`).toEqual([])
    }
    for (let at = 1; at < length; at += 8) await Promise.all(Array.from({ length: 8 }, (_, n) => cut(at + n)))
  })

  it('byte by byte, joined again', async () => {
    for (const spelling of Object.keys(SPELLINGS)) {
      const { bytes } = await viaReverse('bearer', `/leak/by-byte/${spelling}`)
      expect(sightings(withoutFraming(bytes)), spelling).toEqual([])
    }
  })
})

/** What a client makes of a chunked answer. */
function withoutFraming(bytes: Buffer): string {
  const text = bytes.toString('latin1')
  return text.slice(text.indexOf('\r\n\r\n') + 4).replaceAll(/(?:^|\r\n)[0-9a-f]+\r\n/g, '')
}

describe('a request that asks for a way around the search', () => {
  it.each([
    ['a part of the answer', 'Range: bytes=10-20\r\nIf-Range: "x"\r\n', /^(?:if-)?range:/im],
    ['a coding', 'Accept-Encoding: dcb, compress\r\n', /^accept-encoding: (?!identity)/im],
    ['a coding by TE', 'TE: gzip, trailers\r\nConnection: te\r\n', /^te:.*gzip/im],
    ['the request back', 'Max-Forwards: 0\r\nX-HTTP-Method-Override: TRACE\r\n', /^x-http-method-override/im],
  ])('%s', async (_, fields, forbidden) => {
    const all = `Proxy-Authorization: ${basic(task.handle)}\r\n${fields}`
    const answer = keep(await reverse(port, task.handle, { path: '/bearer/leak/body/raw', fields: all }))
    expect(answer.status).toBe(200)
    expect(leaky.heads.at(-1)).not.toMatch(forbidden)
    expect(sightings(answer.bytes)).toEqual([])
  })

  it('TRACE, which repeats it by definition, is never sent', async () => {
    const before = leaky.heads.length
    for (const method of ['TRACE', 'TRACK'])
      expect((await reverse(port, task.handle, { method, path: '/bearer/leak/body/raw' })).status).toBeGreaterThan(399)
    expect(leaky.heads.length).toBe(before)
  })
})

it('repeats nothing of an issuer that repeats the secret of the client, nor of a key that cannot be sent', async () => {
  for (const place of BAD) {
    for (const via of [viaReverse, viaForward, viaTunnel]) {
      const answer = await via(place, '/leak/body/raw')
      expect(answer.status, place).toBe(502)
      expect(sightings(answer.bytes), answer.bytes.toString('latin1')).toEqual([])
    }
  }
  const secret = encodeURIComponent(clientSecret).slice(0, 12)
  expect(leaky.heads.some((head) => head.startsWith('POST /token') && /authorization: basic/i.test(head))).toBe(true)
  expect(secret).not.toBe('')
})

it('lets no handle and no grant pass to an upstream, whichever slot they came in', async () => {
  for (const credential of [task.handle, task.token]) {
    const pair = Buffer.from(`me:${credential}`).toString('base64')
    const slots: [PlaceName, string, string][] = [
      ['bearer', '', `Authorization: Bearer ${credential}\r\n`],
      ['bearer', '', `Authorization: token ${credential}\r\n`],
      ['basic', '', `Authorization: Basic ${pair}\r\n`],
      ['query', `?a=1&key=${credential}&b=2`, ''],
      ['query', `?k%65y=${credential}`, `Proxy-Authorization: Basic ${pair}\r\n`],
      ['cookie', '', `Cookie: a=1; session=${credential}; b=2\r\n`],
      ['bearer', '', `Authorization: Bearer ${credential}\r\nProxy-Authorization: Basic ${pair}\r\n`],
      ['bearer', '', `Authorization: Bearer ${credential}\r\nConnection: x-authorization\r\n`],
    ]
    for (const [place, query, fields] of slots) {
      const before = leaky.heads.length
      const path = `/${place}/leak/body/raw${query}`
      const answer = keep(await reverse(port, task.handle, { path, fields }))
      expect(answer.status, `${place} ${query} ${fields}`).toBe(200)
      expect(findCanary(leaky.heads.slice(before).join(''), credential), `${place} ${query}`).toEqual([])
    }
  }
  for (const via of [viaForward, viaTunnel]) await via('bearer', '/leak/body/raw')
  for (const credential of [task.handle, task.token]) expect(findCanary(leaky.heads.join(''), credential)).toEqual([])
})

describe('what the gateway keeps and says', () => {
  it('shows no credential at the control door', async () => {
    const { control: url } = await control.status()
    const said = [JSON.stringify(await control.status()), JSON.stringify(await control.tasks())]
    for (const path of [
      '/health/live',
      '/health/ready',
      '/.well-known/jwks.json',
      '/ca.pem',
      '/openapi.json',
      '/metrics',
      '/status',
    ])
      said.push(await get(new URL(path, url)))
    for (const text of said) expect(sightings(text)).toEqual([])
    for (const text of said) expect(findCanary(text, task.handle)).toEqual([])
  })

  it('shows no credential in what the log says of a call', async () => {
    const entries = await entriesOf(join(dir, 'data'))
    const [call, refused] = ['oauth', 'repeats'].map(
      (name) => entries.findLast((entry) => entry.target?.service === name)?.req ?? '',
    ) as [string, string]
    const said = await Promise.all([
      keyless('log', 'show', call),
      keyless('log', 'show', refused),
      keyless('log', 'lineage', call),
    ])
    for (const { stdout, stderr, code } of said) {
      expect(code, stderr).toBe(0)
      expect(sightings(stdout + stderr)).toEqual([])
    }
    const tail = await keyless('log', 'tail', '--lines', '100000', '--json')
    expect(tail.stdout.split('\n').length).toBeGreaterThan(100)
    for (const secret of [...secrets(), task.handle, task.token]) expect(findCanary(tail.stdout, secret)).toEqual([])
  })

  it('leaves no credential and no handle in Redis', async () => {
    const client = new Redis(redis.url)
    try {
      const names = await client.keys('*')
      const values = await Promise.all(names.map((name) => client.dumpBuffer(name)))
      const all = Buffer.concat([Buffer.from(names.join('\n')), ...values.filter((value) => value !== null)])
      expect(names.some((name) => name.includes('lease'))).toBe(true)
      expect(sightings(all, everySecret())).toEqual([])
      for (const secret of [task.handle, task.token]) expect(findCanary(all, secret)).toEqual([])
    } finally {
      client.disconnect()
    }
  })

  it('leaves none in its output and its data directory, with Redis and without', { timeout: 60_000 }, async () => {
    const credentials = [...everySecret(), task.handle, task.token]
    await gateway.stop()
    const said = [gateway.stdout + gateway.stderr]
    await startProcess('') // the same directory, grants in SQLite
    for (const place of PLACES) expect((await viaReverse(place, '/leak/body/json')).status).toBe(200)
    for (const place of BAD) await viaReverse(place, '/leak/body/json')
    credentials.push(...secrets(), task.handle, task.token)
    const whileRunning = await seen(credentials)
    await gateway.stop()
    said.push(gateway.stdout + gateway.stderr)
    expect(whileRunning).toEqual([])
    expect(await seen(credentials)).toEqual([])
    for (const text of said) expect(credentials.flatMap((one) => findCanary(text, one))).toEqual([])
  })

  it('gave the agent nothing, all its bytes taken together', () => {
    const all = Buffer.concat(got)
    expect(all.length).toBeGreaterThan(100_000)
    expect(sightings(all, everySecret())).toEqual([])
  })
})

const seen = (credentials: readonly string[]) => findCanaryInTree(join(dir, 'data'), ...new Set(credentials))

const keyless = (...args: string[]) =>
  run(process.execPath, [join(ROOT, 'gateway', 'keyless.ts'), ...args, '--config', join(dir, 'keyless.yaml')])

async function get(url: URL): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  request(url, (answer) => {
    const chunks: Buffer[] = []
    answer.on('data', (chunk: Buffer) => chunks.push(chunk))
    answer.on('end', () => resolve(JSON.stringify(answer.rawHeaders) + Buffer.concat(chunks).toString()))
  })
    .on('error', reject)
    .end()
  return promise
}
