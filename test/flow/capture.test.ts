/** An operation whose answer is a credential: the agent gets something that stands for it, and can use it where it could use the credential. */
import { randomBytes } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { brotliCompressSync, gzipSync } from 'node:zlib'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { throwAwayTls } from '../../deploy/demo/certificate.ts'
import { type Answer, basic, codeOf, reverse } from '../invariant/agent.fixture.ts'
import { BEARER, entriesOf, type Site, writeSite } from '../invariant/services.fixture.ts'
import { findCanary, newCanary } from '../rig/canary.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { startRedis, type TestRedis } from '../rig/redis.ts'

/** An authorization server and the registry behind it: tokens are minted with our key, and only minted ones open `/v2`. */
interface Registry {
  readonly port: number
  readonly caPem: string
  readonly minted: string[]
  /** Authorization fields that arrived, in order. */
  readonly arrived: string[]
  /** How `/token` answers; undefined: as it should. */
  answer: ((response: ServerResponse, token: string) => void) | undefined
  stop(): Promise<void>
}

const key = newCanary()
let registry: Registry
let redis: TestRedis
let site: Site
let replicas: readonly [TestGateway, TestGateway]
let handle: string

beforeAll(async () => {
  ;[registry, redis] = await Promise.all([startRegistry(), startRedis()])
  const operations = {
    'token.mint': {
      match: ['GET /token', 'POST /token'],
      access: 'admin',
      returns_secret: true,
      captures: ['/token', '/access_token', '/refresh_token', '/keys/*/secret'],
    },
    'token.blind': { match: ['GET /blind'], access: 'admin', returns_secret: true },
    pull: { match: ['GET /v2/{path**}'], access: 'read' },
  } as const
  const slots = [BEARER, { in: 'query', name: 'key' }, { in: 'cookie', name: 'session' }] as const
  const names = ['registry', 'other'] as const
  const rules = ['registry:token.mint', 'registry:token.blind', 'other:token.mint'].map((name) => `Action::"${name}"`)
  site = await writeSite(registry, {
    services: names.map((name) => ({ name, operations: operations as never, slots: [...slots] as never })),
    credentials: { registry: key, other: newCanary() },
    policies: { text: `@id("mint") @owner("test") permit (principal, action in [${rules.join(', ')}], resource);` },
  })
  const keys = join(site.dir, 'keys')
  await mkdir(keys, { mode: 0o700 })
  const yaml = `${site.yaml}keys_dir: ${keys}\npublic_url: http://gateway.keyless.test\nredis: { url: "${redis.url}" }\n`
  replicas = [await startGateway(yaml), await startGateway(yaml)]
})

beforeEach(async () => {
  registry.answer = undefined
  handle = (await replicas[0].openTask('registry:* other:*')).handle
})

afterAll(async () => {
  redis.resume?.()
  for (const replica of replicas ?? []) await replica.stop()
  await Promise.all([registry?.stop(), redis?.stop(), site?.remove()])
})

async function startRegistry(): Promise<Registry> {
  const tls = await throwAwayTls(['registry.keyless.test', 'other.keyless.test'])
  const server = createServer({ key: tls.key, cert: tls.cert }, (request, response) => {
    made.arrived.push(shown(request))
    const url = new URL(request.url ?? '/', 'https://registry')
    if (/^\/(token|blind)/.test(url.pathname)) {
      const token = `ghs_${randomBytes(30).toString('base64url')}/+"\\`
      made.minted.push(token)
      if (made.answer !== undefined) made.answer(response, token)
      else json(response, 200, { token, access_token: token, expires_in: 60, issued: 12345678901234567890n })
      return
    }
    const isKnown = made.minted.includes(shown(request))
    json(response, isKnown ? 200 : 401, { ok: isKnown, echo: shown(request) })
  })
  server.listen(0, '127.0.0.1')
  const made: Registry = {
    port: 0,
    caPem: tls.caPem,
    minted: [],
    arrived: [],
    answer: undefined,
    async stop() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
  await new Promise((resolve) => server.once('listening', resolve))
  return Object.assign(made, { port: (server.address() as AddressInfo).port })
}

/** The credential of a request, wherever it is. */
function shown({ headers, url }: IncomingMessage): string {
  const [scheme = '', value = ''] = (headers.authorization ?? '').split(' ')
  if (scheme.toLowerCase() === 'basic') return Buffer.from(value, 'base64').toString().split(':').slice(1).join(':')
  const cookie = /session=([^;]*)/.exec(headers.cookie ?? '')?.[1]
  return value || (new URL(url ?? '/', 'https://x').searchParams.get('key') ?? cookie ?? '')
}

function json(response: ServerResponse, status: number, body: object, fields: Record<string, string> = {}): void {
  const text = JSON.stringify(body, (_, v) => (typeof v === 'bigint' ? `#${v}#` : v)).replaceAll(/"#(\d+)#"/g, '$1')
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
    ...fields,
  })
  response.end(text)
}

const ask = (path: string, fields = '', replica = replicas[0], as = handle) =>
  reverse(replica.proxyPort, as, { path, fields: `Proxy-Authorization: ${basic(as)}\r\n${fields}` })

const bodyOf = ({ bytes }: Answer) => bytes.toString().slice(bytes.indexOf('\r\n\r\n') + 4)
const mint = async (replica = replicas[0], as = handle, service = 'registry') => {
  const answer = await ask(`/${service}/token`, '', replica, as)
  expect(answer.status, answer.bytes.toString()).toBe(200)
  return JSON.parse(bodyOf(answer)) as { token: string; access_token: string }
}

describe('a minted credential', () => {
  it('does not reach the agent: what stands for it does, and everything else as it was', async () => {
    const answer = await ask('/registry/token')
    const minted = registry.minted.at(-1) ?? ''
    expect(findCanary(answer.bytes, minted)).toEqual([])
    const body = bodyOf(answer)
    expect(JSON.parse(body)).toMatchObject({ expires_in: 60, token: expect.stringMatching(/^ghs_klp_[\w-]{43}$/) })
    expect(body).toContain('"issued":12345678901234567890') // not rounded
    expect(JSON.parse(body).token).toBe(JSON.parse(body).access_token)
    expect(answer.bytes.toString()).toContain(`Content-Length: ${Buffer.byteLength(body)}`)
  })

  it('that came back is of no more use to anybody, on any replica', async () => {
    const { token } = await mint()
    const fields = `Authorization: Bearer ${token}\r\n`
    expect((await ask('/registry/v2/a', fields)).status).toBe(200) // the registry repeats what it got
    for (const replica of replicas) {
      await expect.poll(async () => codeOf(await ask('/registry/v2/a', fields, replica))).toBe('foreign_credential')
    }
    const entries = await entriesOf(replicas[0].settings.dataDir)
    expect(entries.findLast(({ kind }) => kind === 'leak.detected')?.facts).toMatchObject({
      provider: 'captured',
      service: 'registry',
      where: { body: 1 },
      fate: 'expires',
    })
  })

  it.each([
    ['Bearer', (token: string) => ['/registry/v2/a', `Authorization: Bearer ${token}\r\n`]],
    ['token', (token: string) => ['/registry/v2/a', `Authorization: token ${token}\r\n`]],
    ['Basic', (token: string) => ['/registry/v2/a', `Authorization: Basic ${btoa(`me:${token}`)}\r\n`]],
    ['query', (token: string) => [`/registry/v2/a?x=1&key=${token}&y=2`, '']],
  ] as const)('is accepted by the upstream when it stands in %s', async (_, place) => {
    const { token } = await mint(replicas[1])
    const [path = '', fields] = place(token)
    const answer = await ask(path, fields)
    expect(answer.status, answer.bytes.toString()).toBe(200)
    expect(registry.arrived.at(-1)).toBe(registry.minted.at(-1))
    expect(findCanary(answer.bytes, registry.minted.at(-1) ?? '')).toEqual([])
  })

  it('leaves our own credential in place where no placeholder stands', async () => {
    await mint()
    await ask('/registry/v2/a')
    expect(registry.arrived.at(-1)).toBe(key)
  })

  it('is of no use to another grant, at another service, or when it was made up', async () => {
    const { token } = await mint()
    const other = (await replicas[0].openTask('registry:* other:*')).handle
    const before = registry.arrived.length
    for (const replica of replicas) {
      for (const [path, value, as] of [
        ['/registry/v2/a', token, other],
        ['/other/v2/a', token, handle],
        ['/registry/v2/a', `klp_${randomBytes(32).toString('base64url')}`, handle],
        ['/registry/v2/a', `${token.slice(0, -1)}${token.endsWith('A') ? 'B' : 'A'}`, handle],
      ] as const) {
        const answer = await ask(path, `Authorization: Bearer ${value}\r\n`, replica, as)
        expect([answer.status, codeOf(answer)]).toEqual([403, 'foreign_credential'])
      }
    }
    expect(registry.arrived.length).toBe(before)
  })

  it('ends with its task', async () => {
    const task = await replicas[0].openTask('registry:*')
    const { token } = await mint(replicas[0], task.handle)
    await replicas[0].control.completeTask(task.task)
    const answer = await ask('/registry/v2/a', `Authorization: Bearer ${token}\r\n`, replicas[1], task.handle)
    expect([answer.status, codeOf(answer)]).toEqual([401, 'grant_revoked'])
  })

  it('is recorded by an id, and nowhere else to be found', async () => {
    await mint()
    const entries = await entriesOf(replicas[0].settings.dataDir)
    expect(entries.findLast(({ kind }) => kind === 'lease.captured')?.facts).toMatchObject({
      service: 'registry',
      operation: 'registry:token.mint',
      cred_id: expect.stringMatching(/^[\w-]{22}$/),
    })
    for (const minted of registry.minted) expect(findCanary(JSON.stringify(entries), minted)).toEqual([])
  })

  it('keeps the look of a JWT, with its times and nothing else of it', async () => {
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
    const exp = Math.floor(Date.now() / 1000) + 600
    const jwt = `${part({ alg: 'RS256', kid: 'k' })}.${part({ sub: 'somebody', exp })}.${randomBytes(64).toString('base64url')}`
    registry.answer = (response) => json(response, 200, { access_token: jwt })
    const answer = await ask('/registry/token')
    const { access_token } = JSON.parse(bodyOf(answer)) as { access_token: string }
    const [header = '', claims = '', signature] = access_token.split('.')
    const read = (text: string) => JSON.parse(Buffer.from(text, 'base64url').toString())
    expect([read(header), read(claims)]).toEqual([{ alg: 'RS256', typ: 'JWT' }, { exp }])
    expect(signature).toMatch(/^klp_/)
    registry.answer = undefined
    registry.minted.push(jwt)
    expect((await ask('/registry/v2/a', `Authorization: Bearer ${access_token}\r\n`, replicas[1])).status).toBe(200)
  })
})

describe('an answer that cannot be captured for certain is withheld', () => {
  it.each<[string, (response: ServerResponse, token: string) => void]>([
    ['nothing at the place', (r, token) => json(r, 200, { jeton: token })],
    ['not JSON', (r, token) => r.end(`access_token=${token}`)],
    ['two equal keys', (r, token) => r.end(`{"token":${JSON.stringify(token)},"token":"x"}`)],
    [
      'text that is no UTF-8',
      (r, token) => r.end(Buffer.concat([Buffer.from(`{"token":"${token}`), Buffer.of(0xff), Buffer.from('"}')])),
    ],
    ['too long', (r, token) => json(r, 200, { token, pad: 'x'.repeat(1_100_000) })],
    [
      'too long, compressed',
      (r, token) => coded(r, 'gzip', gzipSync(JSON.stringify({ token, pad: 'x'.repeat(1_100_000) }))),
    ],
    [
      'a redirect',
      (r, token) => r.writeHead(302, { location: `https://elsewhere.example/?t=${encodeURIComponent(token)}` }).end(),
    ],
    ['a number', (r) => json(r, 200, { token: 123456789012 })],
    [
      'broken off',
      (r, token) => {
        r.writeHead(200, { 'content-length': '500' })
        r.write(JSON.stringify({ token }))
        setImmediate(() => r.destroy())
      },
    ],
    [
      'text where an object should hold it, beside another one',
      (r, token) => json(r, 200, { token: 'x', keys: token }),
    ],
    ['text where objects should hold them', (r, token) => json(r, 200, { keys: [{ secret: 'x' }, token] })],
    ['a list where a member is named', (r, token) => json(r, 200, [{ token }])],
    ['a number on the way', (r) => json(r, 200, { token: 'x', keys: [123456789012] })],
    ['a part', (r, token) => json(r, 206, { token })],
    ['expired', (r, token) => json(r, 200, { token, expires_at: '2001-01-01T00:00:00Z' })],
  ])('%s', async (_, answer) => {
    registry.answer = answer
    const got = await ask('/registry/token')
    expect(got.status).toBe(502)
    expect(codeOf(got)).toMatch(/^(answer_withheld|upstream_broken|upstream_encoding)$/)
    expect(findCanary(got.bytes, registry.minted.at(-1) ?? '')).toEqual([])
  })

  it('where the service file does not say where its credentials are', async () => {
    const got = await ask('/registry/blind')
    expect([got.status, codeOf(got)]).toEqual([502, 'answer_withheld'])
  })

  it('while the store is away, and is of use again afterwards', { timeout: 20_000 }, async () => {
    if (redis.pause === undefined) return
    redis.pause()
    const got = await ask('/registry/token')
    expect(got.status).toBeGreaterThanOrEqual(500)
    expect(findCanary(got.bytes, registry.minted.at(-1) ?? '')).toEqual([])
    redis.resume?.()
    await expect.poll(async () => (await ask('/registry/token')).status, { timeout: 10_000 }).toBe(200)
  })
})

function coded(response: ServerResponse, coding: string, bytes: Buffer): void {
  response.writeHead(200, { 'content-type': 'application/json', 'content-encoding': coding }).end(bytes)
}

describe('what comes with a captured answer', () => {
  it('is captured from a compressed answer too', async () => {
    registry.answer = (response, token) => coded(response, 'br', brotliCompressSync(JSON.stringify({ token })))
    const answer = await ask('/registry/token', 'Accept-Encoding: br\r\n')
    expect(JSON.parse(bodyOf(answer)).token).toMatch(/^ghs_klp_/)
    expect(answer.bytes.toString()).not.toMatch(/content-encoding/i)
  })

  it('loses every field that could hold it, and the value within other values', async () => {
    registry.answer = (response, token) =>
      json(
        response,
        200,
        { token, note: `use ${encodeURIComponent(token)} soon`, url: Buffer.from(`t:${token}`).toString('base64') },
        {
          location: '/x',
          'x-token': 'a',
          'x-request-id': token.replaceAll(/["\\]/g, ''),
          link: '<x>',
          'x-ratelimit-remaining': '5',
        },
      )
    const answer = await ask('/registry/token')
    const head = answer.bytes.toString().split('\r\n\r\n')[0] ?? ''
    expect(head).toMatch(/x-ratelimit-remaining: 5/i)
    expect(head).not.toMatch(/^(location|x-token|link):/im)
    expect(findCanary(answer.bytes, registry.minted.at(-1) ?? '')).toEqual([])
  })

  it('is all of them where a pointer names many', async () => {
    const tokens = Array.from({ length: 5 }, () => randomBytes(20).toString('hex'))
    registry.answer = (response) => json(response, 200, { keys: tokens.map((secret, id) => ({ id, secret })) })
    const answer = await ask('/registry/token')
    const { keys } = JSON.parse(bodyOf(answer)) as { keys: { secret: string }[] }
    expect(new Set(keys.map(({ secret }) => secret)).size).toBe(5)
    for (const token of tokens) expect(findCanary(answer.bytes, token)).toEqual([])
  })

  it('is nothing where there is nothing: a failure reaches the agent, and so does an answer without content', async () => {
    registry.answer = (response) => json(response, 422, { message: 'no such scope' })
    const refused = await ask('/registry/token')
    expect([refused.status, JSON.parse(bodyOf(refused))]).toEqual([422, { message: 'no such scope' }])
    registry.answer = (response) => void response.writeHead(204, { location: 'https://x.example/?t=secret' }).end()
    const empty = await ask('/registry/token')
    expect(empty.status).toBe(204)
    expect(empty.bytes.toString()).not.toContain('secret')
  })
})
