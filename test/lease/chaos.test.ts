/** Everything around the leases breaks: the outcome of each is in docs/leases.md, and never is an expired or foreign credential attached. */
import { writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { LeaseCache } from '../../gateway/lease/cache.ts'
import { createMemoryCache } from '../../gateway/lease/cache-memory.ts'
import { createRedisCache } from '../../gateway/lease/cache-redis.ts'
import type { Lease } from '../../gateway/lease/lease.ts'
import { SetBacks } from '../../gateway/lease/set-back.ts'
import { GatewayError, problems } from '../../gateway/protocol/problem.ts'
import { Secret } from '../../gateway/protocol/secret.ts'
import { createProvider, credentialSchema } from '../../gateway/provider/registry.ts'
import { type FalseServer, json, startFalseServer } from '../provider/authorization-server.fixture.ts'
import { providerTools } from '../provider/tools.fixture.ts'
import {
  countingProvider,
  fakeClock,
  field,
  grant,
  type LeaseRig,
  leaseRig,
  permit,
  plain,
  receipt,
  sealKey,
  service,
  T0,
} from './lease.fixture.ts'
import { connect, fragileLink, type RedisServer, startRedis } from './redis.fixture.ts'

const billing = service()
const refusal = async (lease: () => Promise<Lease> | Lease) => {
  try {
    await lease()
    return undefined
  } catch (cause) {
    return cause as GatewayError
  }
}

describe('an authorization server', () => {
  let server: FalseServer
  let dir: string
  beforeAll(async () => {
    server = await startFalseServer()
    dir = await mkdtemp(join(tmpdir(), 'keyless-chaos-'))
    writeFileSync(join(dir, 'secret'), 'a-secret-of-the-client')
  })
  afterAll(async () => {
    await server.stop()
    await rm(dir, { recursive: true })
  })

  const rig = (o: { url?: string; clock?: ReturnType<typeof fakeClock> } = {}) => {
    const clock = o.clock ?? fakeClock()
    const config = credentialSchema.parse({
      provider: 'oauth_client_credentials',
      token_url: o.url ?? server.tokenUrl,
      client_id: 'keyless',
      client_auth: 'client_secret_basic',
      client_secret: { file: 'secret' },
      addresses: ['127.0.0.1/32'],
    })
    const provider = createProvider(config, providerTools(dir, { fetchFor: () => globalThis.fetch, clock }))
    return leaseRig({ clock, providers: new Map([['billing', provider]]), timing: { issueTimeoutMs: 150 } })
  }
  const token = { access_token: 'canary-token-of-chaos', token_type: 'Bearer', expires_in: 300 }
  const answers = (body: unknown, status = 200) => {
    server.answer = (_request, response) => json(response, status, body)
  }

  test.each<[what: string, answer: FalseServer['answer'], code: string | undefined]>([
    ['that is slower than the time of a provider', () => undefined, 'credential_unavailable'],
    ['that hangs up', (_, response) => void response.destroy(), 'credential_unavailable'],
    ['that answers 500', (_, response) => json(response, 500, token), 'credential_unavailable'],
    ['that answers 429', (_, response) => json(response, 429, { error: 'slow_down' }), 'credential_unavailable'],
    ['that answers 200 with nothing', (_, response) => void response.end(), 'credential_unavailable'],
    ['that answers 200 with {}', (_, response) => json(response, 200, {}), 'credential_unavailable'],
    ['that answers a page', (_, response) => void response.end('<html>'), 'credential_unavailable'],
    ['that says no', (_, response) => json(response, 401, { error: 'invalid_client' }), 'credential_rejected'],
    [
      'whose expires_in is negative',
      (_, response) => json(response, 200, { ...token, expires_in: -1 }),
      'credential_unavailable',
    ],
    [
      'whose expires_in is 0',
      (_, response) => json(response, 200, { ...token, expires_in: 0 }),
      'credential_unavailable',
    ],
    [
      'whose expires_in is 5 s',
      (_, response) => json(response, 200, { ...token, expires_in: 5 }),
      'credential_unavailable',
    ],
    [
      'whose expires_in is no number',
      (_, response) => json(response, 200, { ...token, expires_in: {} }),
      'credential_unavailable',
    ],
  ])('%s: refused, nothing attached', async (_what, answer, code) => {
    server.answer = answer
    const { leases, entries } = rig()
    const refused = await refusal(() => leases.acquire(permit({ service: billing }), receipt))
    expect(refused?.code).toBe(code)
    expect(`${refused?.detail}${refused?.stack}${JSON.stringify(entries)}`).not.toContain('canary')
    expect(problems[refused?.code ?? 'internal'].status).toBe(502)
    await leases.close()
  })

  test('that is down is the same, at once', async () => {
    const { leases } = rig({ url: 'http://127.0.0.1:9/token' })
    expect((await refusal(() => leases.acquire(permit({ service: billing }), receipt)))?.code).toBe(
      'credential_unavailable',
    )
    await leases.close()
  })

  test.each([
    ['huge', 1e15, 900],
    ['missing', undefined, 270], // five minutes are assumed
  ])('whose expires_in is %s bounds nothing: policy and grant do', async (_what, expires_in, endsInS) => {
    answers({ ...token, expires_in })
    const { leases } = rig()
    const { facts } = await leases.acquire(permit({ service: billing }), receipt)
    expect(facts.expiresAt).toBe(T0 / 1000 + endsInS)
    await leases.close()
  })

  test('that fails after it has rotated leaves the token in use until it truly ends, and no longer', async () => {
    answers(token)
    const clock = fakeClock()
    const { leases } = rig({ clock })
    const same = permit({ service: billing })
    await leases.acquire(same, receipt)
    answers({}, 500)
    clock.advance(269_999)
    expect(leases.acquire(same, receipt)).not.toBeInstanceOf(Promise)
    clock.advance(1)
    expect((await refusal(() => leases.acquire(same, receipt)))?.code).toBe('credential_unavailable')
    await leases.close()
  })

  test.each([
    ['forward', 600_000],
    ['back', -600_000],
  ])(
    'a clock of ours that jumps %s by ten minutes: never used beyond its time by either clock',
    async (_what, jumpMs) => {
      answers(token)
      const wall = fakeClock()
      let elapsedMs = 0
      const clock = { ...wall, elapsedMs: () => elapsedMs }
      const { leases } = rig({ clock })
      const same = permit({ service: billing, grant: grant({ expiresAt: T0 / 1000 + 3_600 }) })
      await leases.acquire(same, receipt)
      wall.advance(jumpMs)
      answers({}, 500)
      const early = leases.acquire(same, receipt)
      expect(early instanceof Promise).toBe(jumpMs > 0)
      await Promise.resolve(early).catch(() => undefined)
      elapsedMs = 270_000
      expect((await refusal(() => leases.acquire(same, receipt)))?.code).toBe('credential_unavailable')
      await leases.close()
    },
  )
})

describe('Redis', () => {
  let server: RedisServer
  let admin: Redis
  beforeAll(async () => {
    server = await startRedis()
    admin = new Redis(server.url)
  })
  afterAll(async () => {
    admin.disconnect()
    await server.stop()
  })

  const clock = { nowMs: () => Date.now(), elapsedMs: () => performance.now() }
  const shared = { sealKey: sealKey(), provider: countingProvider(clock) }
  const live = () => grant({ expiresAt: Math.floor(Date.now() / 1000) + 900 })
  const room = async (url = server.url) => {
    const redis = await connect(url)
    const rig = leaseRig({ ...shared, clock: clock as never, cache: createRedisCache({ redis, prefix: 'chaos:' }) })
    return {
      ...rig,
      async end() {
        await rig.leases.close()
        redis.disconnect()
      },
    }
  }
  const sent = async (lease: Promise<Lease> | Lease) => field(await (await lease).attach(plain()), 'authorization')
  const valueKey = async () => (await admin.keys('chaos:*:value:*'))[0] ?? ''

  test.each<[what: string, damage: (value: Buffer, other: Buffer) => Buffer | undefined]>([
    ['evicts', () => undefined],
    ['returns a truncated value', (value) => value.subarray(0, value.length - 1)],
    ['returns an empty value', () => Buffer.alloc(0)],
    ['returns one bit turned', (value) => Buffer.from(value.map((byte, i) => (i === 40 ? byte ^ 1 : byte)))],
    ["returns another key's value", (_value, other) => other],
  ])('that %s: it counts as absent, and one is issued', async (_what, damage) => {
    await admin.flushall()
    const writer = await room()
    await sent(writer.leases.acquire(permit({ service: billing, grant: live() }), receipt))
    const other = (await admin.getBuffer(await valueKey())) ?? Buffer.alloc(0)
    await admin.flushall()
    const same = permit({ service: billing, grant: live() })
    const before = shared.provider.requests.length
    const first = await sent(writer.leases.acquire(same, receipt))
    const key = await valueKey()
    const damaged = damage((await admin.getBuffer(key)) ?? Buffer.alloc(0), other)
    if (damaged === undefined) await admin.del(key)
    else await admin.set(key, damaged, 'KEEPTTL')
    const reader = await room()
    const second = await sent(reader.leases.acquire(same, receipt))
    expect(second).not.toBe(first)
    expect(second).toBe(
      `Bearer ${field(await (await reader.leases.acquire(same, receipt)).attach(plain()), 'authorization')?.slice(7)}`,
    )
    expect(shared.provider.requests.length - before).toBe(2)
    await writer.end()
    await reader.end()
  })

  test('that fails over to a replica which takes no writes yet: each replica of ours issues for itself', async () => {
    const one = await room()
    await admin.replicaof('127.0.0.1', '1')
    try {
      expect(await sent(one.leases.acquire(permit({ service: billing, grant: live() }), receipt))).toMatch(
        /^Bearer token-/,
      )
    } finally {
      await admin.replicaof('NO', 'ONE')
      await one.end()
    }
  })

  test.each(['cut', 'freeze'] as const)(
    'that is gone (%s): what is held serves, what is missing is issued, within a second',
    async (how) => {
      const link = await fragileLink(server.url)
      const one = await room(link.url)
      const held = permit({ service: billing, grant: live() })
      const first = await sent(one.leases.acquire(held, receipt))
      await link[how]()
      expect(await sent(one.leases.acquire(held, receipt))).toBe(first)
      const started = performance.now()
      expect(await sent(one.leases.acquire(permit({ service: billing, grant: live() }), receipt))).toMatch(
        /^Bearer token-/,
      )
      expect(performance.now() - started).toBeLessThan(1_000)
      await one.leases.purge(held.grant)
      expect((await refusal(() => one.leases.acquire(held, receipt)))?.code).toBe('grant_revoked')
      await one.end()
      if (how === 'freeze') await link.cut()
    },
  )
})

/** Gives back what it should, or nothing, or another value, or a part of it, or does not answer. */
function damagedCache(memory: LeaseCache, how: () => string): LeaseCache {
  let last: Buffer | undefined
  return {
    isShared: true,
    async get(key) {
      if (how() === 'down') throw new GatewayError('store_unavailable', 'down')
      const value = await memory.get(key)
      const given = { swap: last, cut: value?.subarray(0, -3), forget: undefined, well: value }[how()]
      last = value ?? last
      return given
    },
    set: (...args) => memory.set(...args),
    remove: (...args) => memory.remove(...args),
    burn: (...args) => memory.burn(...args),
    lock: (...args) => memory.lock(...args),
    extend: (...args) => memory.extend(...args),
    unlock: (...args) => memory.unlock(...args),
    list: (...args) => memory.list(...args),
    purge: (...args) => memory.purge(...args),
    onBurn: () => undefined,
    onPurge: () => undefined,
    close: () => memory.close(),
  }
}

test('a clock that was set back lets no other replica use a shared credential for longer', async () => {
  const wall = fakeClock()
  let elapsedMs = 0
  const clock = { ...wall, elapsedMs: () => elapsedMs }
  const parts = { clock: clock as never, provider: countingProvider(clock, { lifeS: 100 }), sealKey: sealKey() }
  const cache = createMemoryCache({ clock })
  const [one, two] = [leaseRig({ ...parts, cache }), leaseRig({ ...parts, cache })]
  const same = permit({ service: billing })
  const first = await one.leases.acquire(same, receipt)
  wall.advance(-60_000)
  expect((await two.leases.acquire(same, receipt)).facts.credentialId).not.toBe(first.facts.credentialId)
  elapsedMs = 100_000
  expect(two.leases.acquire(same, receipt)).toBeInstanceOf(Promise)
})

/** A cache that gives back what it had when it was last well, whatever is over or has taken its place. */
function staleWorld(lifeS: number) {
  const wall = fakeClock()
  const now = { elapsedMs: 0, cache: 'well' }
  const clock = { ...wall, elapsedMs: () => now.elapsedMs }
  const setBacks = new SetBacks(clock)
  const cache = damagedCache(createMemoryCache({ clock }), () => now.cache)
  const provider = countingProvider(clock, { lifeS })
  const shared = { clock: clock as never, provider, cache, sealKey: sealKey() }
  return { wall, now, setBacks, provider, one: leaseRig(shared), two: leaseRig({ ...shared, setBacks }), shared }
}

test('a clock that was set back by less than its age makes no shared credential young again', async () => {
  const { wall, now, setBacks, one, two, shared } = staleWorld(100)
  const same = permit({ service: billing })
  const first = await one.leases.acquire(same, receipt)
  const seen = leaseRig(shared) // the cache has given it out once
  await seen.leases.acquire(same, receipt)
  now.elapsedMs += 280_000
  wall.advance(280_000)
  setBacks.look()
  wall.advance(-200_000) // by this clock it has 20 s left
  now.cache = 'swap'
  expect((await two.leases.acquire(same, receipt)).facts.credentialId).not.toBe(first.facts.credentialId)
})

test('what an issuer gives while the clock is set back is given back, and the next one is used', async () => {
  const { wall, provider, one } = staleWorld(100)
  const { next } = provider
  provider.next = async (...asked) => {
    const credential = await next(...asked)
    wall.advance(-200_000)
    return credential
  }
  const refused = await refusal(() => one.leases.acquire(permit({ service: billing }), receipt))
  expect(refused?.code).toBe('credential_unavailable')
  await expect.poll(() => provider.revoked).toHaveLength(1)
  provider.next = next
  const other = permit({ service: billing, grant: grant() })
  expect((await one.leases.acquire(other, receipt)).facts.cache).toBe('miss')
})

/** Two replicas on one cache, three grants, two services, and an issuer that remembers what it gave to whom and until when. */
function brokenWorld() {
  const wall = fakeClock()
  const now = { elapsedMs: 0, issuer: 'well', cache: 'well', turn: 0 }
  const clock = { ...wall, elapsedMs: () => now.elapsedMs }
  const issued = new Map<string, { readonly grant: string; readonly service: string; readonly endsMs: number }>()
  const provider = countingProvider(clock)
  provider.next = async (request) => {
    if (now.issuer === 'away') throw new GatewayError('credential_unavailable', 'away')
    const lifeS = { well: 100, short: 4, past: -50, wrong: Number.NaN }[now.issuer] ?? 0
    const value = `token-${issued.size}-of-some-length`
    const endsMs = now.elapsedMs + lifeS * 1000
    issued.set(`Bearer ${value}`, { grant: request.grant.id, service: request.service.name, endsMs })
    return { secret: new Secret(value), expiresAt: clock.nowMs() / 1000 + lifeS, ephemeral: true }
  }
  const cache = damagedCache(createMemoryCache({ clock }), () => now.cache)
  const shared = { clock: clock as never, provider, cache, sealKey: sealKey() }
  const clocks = [new SetBacks(clock), new SetBacks(clock)] as const
  const rooms = clocks.map((setBacks) => leaseRig({ ...shared, setBacks }))
  const grants = [0, 1, 2].map(() => grant({ expiresAt: T0 / 1000 + 900 }))
  const services = [service(), service({ name: 'files' })]
  const attached = async (who: number, where: number) => {
    const [whose, to] = [grants[who] ?? grant(), services[where] ?? billing]
    now.turn += 1
    const { leases } = rooms[now.turn % 2] as LeaseRig
    const lease = await leases.acquire(permit({ grant: whose, service: to }), receipt)
    const value = field(await lease.attach(plain({ service: to })), 'authorization')
    return { whose, to, known: issued.get(value ?? '') }
  }
  /** As each process does every second. */
  const look = () => {
    for (const each of clocks) each.look()
  }
  return { wall, now, attached, look, close: () => Promise.all(rooms.map(({ leases }) => leases.close())) }
}

const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant('call' as const), who: fc.nat(2), where: fc.nat(1) }) },
  fc.record({ do: fc.constant('pass' as const), ms: fc.constantFrom(1, 999, 30_000, 80_000, 300_000) }),
  fc.record({ do: fc.constant('wind' as const), ms: fc.constantFrom(-200_000, 200_000) }),
  fc.record({ do: fc.constant('issuer' as const), is: fc.constantFrom('well', 'away', 'short', 'past', 'wrong') }),
  fc.record({ do: fc.constant('cache' as const), is: fc.constantFrom('well', 'down', 'swap', 'cut', 'forget') }),
)
type Step = typeof step extends fc.Arbitrary<infer S> ? S : never

async function take(world: ReturnType<typeof brokenWorld>, one: Step): Promise<void> {
  const { wall, now, attached, look } = world
  if (one.do === 'issuer') now.issuer = one.is
  if (one.do === 'cache') now.cache = one.is
  if (one.do === 'pass' || one.do === 'wind') wall.advance(one.ms)
  if (one.do === 'pass') now.elapsedMs += one.ms
  if (one.do === 'wind') look()
  if (one.do !== 'call') return
  const refused = await attached(one.who, one.where).then(
    ({ whose, to, known }) => {
      expect(known).toMatchObject({ grant: whose.id, service: to.name })
      expect(known?.endsMs).toBeGreaterThan(now.elapsedMs)
    },
    (cause: GatewayError) => cause,
  )
  if (refused !== undefined) expect(['credential_unavailable', 'grant_expired']).toContain(refused.code)
}

test('whatever breaks, what is attached was issued for this grant and service and has not expired, or nothing goes out', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 20, maxLength: 60 }), async (steps) => {
      const world = brokenWorld()
      for (const one of steps) await take(world, one)
      await world.close()
    }),
    { numRuns: 80 },
  )
})
