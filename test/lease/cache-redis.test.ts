import { randomBytes } from 'node:crypto'
import { performance } from 'node:perf_hooks'
import type { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { LeaseCache } from '../../gateway/lease/cache.ts'
import { createRedisCache } from '../../gateway/lease/cache-redis.ts'
import { cacheConformance } from '../conformance/cache.ts'
import { stopwatch } from '../rig/stopwatch.ts'
import {
  countingProvider,
  fakeClock,
  grant,
  leaseRig,
  permit,
  plain,
  receipt,
  sealKey,
  service,
  unauthorized,
} from './lease.fixture.ts'
import { connect, fragileLink, type RedisServer, startRedis } from './redis.fixture.ts'

let server: RedisServer
const connections: Redis[] = []
const prefix = `keyless-test-${randomBytes(4).toString('hex')}:`

async function replica(url = server.url): Promise<{ redis: Redis; cache: LeaseCache }> {
  const redis = await connect(url)
  connections.push(redis)
  return { redis, cache: createRedisCache({ redis, prefix }) }
}

beforeAll(async () => {
  server = await startRedis()
  for (let i = 0; i < 3; i += 1) await replica()
})

afterAll(async () => {
  for (const redis of connections) redis.disconnect()
  await server.stop()
})

let turn = 0
cacheConformance('redis', () => ({
  open() {
    turn += 1
    const redis = connections[turn % 3]
    if (redis === undefined) throw new Error('not connected')
    return createRedisCache({ redis, prefix })
  },
  // The time of Redis cannot be moved, so its own clock is watched; expiry uses one that it reads only now and then.
  async pass(ms) {
    const startMs = await redisTimeMs()
    while ((await redisTimeMs()) - startMs <= ms + 20);
  },
}))

async function redisTimeMs(): Promise<number> {
  const [seconds, micros] = (await connections[0]?.time()) ?? [0, 0]
  return Number(seconds) * 1000 + Number(micros) / 1000
}

const billing = service()

describe('leases over Redis', () => {
  test('a value lives as long as its credential may be used, and no key or value names anyone', async () => {
    const clock = fakeClock(Date.now())
    const { redis, cache } = await replica()
    const before = new Set(await redis.keys(`${prefix}*`))
    const who = grant({ id: 'grant-with-a-telling-name', expiresAt: Math.floor(clock.nowMs() / 1000) + 900 })
    const { leases } = leaseRig({ clock, cache, provider: countingProvider(clock, { lifeS: 100 }) })
    const lease = await leases.acquire(permit({ grant: who, service: billing }), receipt)
    const attached = await lease.attach(plain())
    const secret = attached.secrets[0]?.reveal() ?? ''
    const keys = (await redis.keys(`${prefix}*`)).filter((key) => !before.has(key))
    const value = keys.find((key) => key.includes(':value:')) ?? ''
    const leftMs = await redis.pttl(value)
    expect(leftMs).toBeGreaterThan(85_000)
    expect(leftMs).toBeLessThanOrEqual(91_000)
    for (const key of keys) {
      expect(key).not.toContain('telling')
      expect(await redis.pttl(key)).toBeGreaterThan(0)
    }
    const stored = (await redis.getBuffer(value)) ?? Buffer.alloc(0)
    for (const form of ['utf8', 'base64', 'hex', 'utf16le'] as const) {
      expect(stored.includes(Buffer.from(Buffer.from(secret).toString(form === 'utf16le' ? 'utf8' : form)))).toBe(false)
    }
    await leases.close()
  })

  test('a hundred calls on two replicas make one request to the issuer', async () => {
    const clock = fakeClock(Date.now())
    const provider = countingProvider(clock)
    const key = sealKey()
    const ordinary = provider.next
    provider.next = async (request, signal) => {
      await new Promise((done) => setImmediate(done))
      return ordinary(request, signal)
    }
    const replicas = await Promise.all(
      [0, 1].map(async () => leaseRig({ clock, provider, sealKey: key, cache: (await replica()).cache })),
    )
    const same = permit({ service: billing, grant: grant({ expiresAt: Math.floor(clock.nowMs() / 1000) + 900 }) })
    const all = await Promise.all(Array.from({ length: 100 }, (_, i) => replicas[i % 2]?.leases.acquire(same, receipt)))
    expect(new Set(all.map((lease) => lease?.facts.credentialId)).size).toBe(1)
    expect(provider.requests).toHaveLength(1)
    expect(replicas.flatMap((rig) => rig.entries)).toHaveLength(1)
    for (const rig of replicas) await rig.leases.close()
  })

  test('a credential rejected on one replica is replaced once for both', async () => {
    const clock = fakeClock(Date.now())
    const provider = countingProvider(clock)
    const key = sealKey()
    const [one, two] = await Promise.all(
      [0, 1].map(async () => leaseRig({ clock, provider, sealKey: key, cache: (await replica()).cache })),
    )
    if (one === undefined || two === undefined) throw new Error('no replicas')
    const same = permit({ service: billing, grant: grant({ expiresAt: Math.floor(clock.nowMs() / 1000) + 900 }) })
    const held = [await one.leases.acquire(same, receipt), await two.leases.acquire(same, receipt)]
    const replayed = []
    for (const lease of held) replayed.push(await lease.reissue(plain(), unauthorized))
    expect(replayed[0]?.headers).toEqual(replayed[1]?.headers)
    expect(provider.requests).toHaveLength(2)
    await one.leases.close()
    await two.leases.close()
  })

  test('a purge empties Redis and the memory of the other replica', async () => {
    const clock = fakeClock(Date.now())
    const provider = countingProvider(clock)
    const shared = { clock, provider, sealKey: sealKey() }
    const [here, there] = [await replica(), await replica()]
    const [one, two] = [leaseRig({ ...shared, cache: here.cache }), leaseRig({ ...shared, cache: there.cache })]
    const ended = grant({ expiresAt: Math.floor(clock.nowMs() / 1000) + 900 })
    const same = permit({ service: billing, grant: ended })
    await one.leases.acquire(same, receipt)
    await two.leases.acquire(same, receipt)
    await expect
      .poll(async () => Number((await here.redis.pubsub('NUMSUB', `${prefix}lease:purged`))[1]))
      .toBeGreaterThanOrEqual(2)
    await one.leases.purge(ended)
    expect(provider.revoked).toHaveLength(1)
    await expect
      .poll(async () => {
        const lease = await Promise.resolve()
          .then(() => two.leases.acquire(same, receipt))
          .catch((error) => error.code)
        return lease
      })
      .toBe('grant_revoked')
    expect(provider.requests).toHaveLength(1)
    await one.leases.close()
    await two.leases.close()
  })

  test('what Redis lost, or holds no more since it was replaced, is revoked by the replica that got it when another one ends the grant', async () => {
    const clock = fakeClock(Date.now())
    const provider = countingProvider(clock)
    const shared = { clock, provider, sealKey: sealKey() }
    const [here, there] = [await replica(), await replica()]
    const [one, two] = [leaseRig({ ...shared, cache: here.cache }), leaseRig({ ...shared, cache: there.cache })]
    const ended = grant({ expiresAt: Math.floor(clock.nowMs() / 1000) + 900 })
    const other = service({ name: 'other' })
    const first = await two.leases.acquire(permit({ service: billing, grant: ended }), receipt)
    await first.reissue(plain(), unauthorized)
    await two.leases.acquire(permit({ service: other, grant: ended }), receipt)
    expect(provider.requests).toHaveLength(3)
    await here.redis.del(...(await here.redis.keys(`${prefix}*:value:*`)))
    await one.leases.purge(ended)
    await expect.poll(() => new Set(provider.revoked).size).toBe(3)
    await one.leases.close()
    await two.leases.close()
  })

  test('bytes that do not open count as absent and are replaced', async () => {
    const clock = fakeClock(Date.now())
    const { redis, cache } = await replica()
    const key = sealKey()
    const provider = countingProvider(clock)
    const same = permit({ service: billing, grant: grant({ expiresAt: Math.floor(clock.nowMs() / 1000) + 900 }) })
    const first = leaseRig({ clock, provider, sealKey: key, cache })
    const before = new Set(await redis.keys(`${prefix}*:value:*`))
    await first.leases.acquire(same, receipt)
    const name = (await redis.keys(`${prefix}*:value:*`)).find((candidate) => !before.has(candidate)) ?? ''
    await redis.setrange(name, 40, 'tampered')
    const second = leaseRig({ clock, provider, sealKey: key, cache: createRedisCache({ redis, prefix }) })
    await second.leases.acquire(same, receipt)
    const third = leaseRig({ clock, provider, sealKey: key, cache: createRedisCache({ redis, prefix }) })
    await third.leases.acquire(same, receipt)
    expect(provider.requests).toHaveLength(2)
    for (const rig of [first, second, third]) await rig.leases.close()
  })
})

describe('a Redis that is gone', () => {
  test('down: calls keep their credential, new ones are issued here, a grant still ends, and nothing hangs', async () => {
    const link = await fragileLink(server.url)
    const clock = fakeClock(Date.now())
    const { cache } = await replica(link.url)
    const { leases, provider } = leaseRig({ clock, cache })
    const until = Math.floor(clock.nowMs() / 1000) + 900
    const known = permit({ service: billing, grant: grant({ expiresAt: until }) })
    await leases.acquire(known, receipt)
    await link.cut()
    expect(leases.acquire(known, receipt)).not.toBeInstanceOf(Promise)
    using watch = stopwatch()
    await leases.acquire(permit({ service: billing, grant: grant({ expiresAt: until }) }), receipt)
    expect(watch.ms).toBeLessThan(1_500)
    expect(provider.requests).toHaveLength(2)
    await leases.purge(known.grant)
    expect(provider.revoked).toHaveLength(1)
    clock.advance(3_600_000)
    await expect(
      (async () => leases.acquire(permit({ service: billing, grant: known.grant }), receipt))(),
    ).rejects.toThrow()
    await leases.close()
  })

  test('hanging: once a second one command waits a quarter of a second, the others fail at once', async () => {
    const link = await fragileLink(server.url)
    const { cache } = await replica(link.url)
    const key = { id: 'id', grant: 'grant' }
    expect(await cache.get(key)).toBeUndefined()
    link.freeze()
    const startMs = performance.now()
    await expect(cache.get(key)).rejects.toMatchObject({ code: 'store_unavailable' })
    const firstMs = performance.now() - startMs
    using watch = stopwatch()
    const value = Buffer.from('value')
    await expect(cache.set(key, value, { ttlMs: 1_000, fence: null })).rejects.toMatchObject({
      code: 'store_unavailable',
    })
    await expect(cache.purge('grant')).rejects.toMatchObject({ code: 'store_unavailable' })
    expect(watch.ms).toBeLessThan(240)
    expect(firstMs).toBeGreaterThanOrEqual(240)
    await link.cut()
  })
})
