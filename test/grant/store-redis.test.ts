/** The conformance suite on a real Redis, and what is Redis' own. */
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { digestOf, newHandle } from '../../gateway/grant/handle.ts'
import type { StoredGrant } from '../../gateway/grant/store.ts'
import { openRedisStore } from '../../gateway/grant/store-redis.ts'
import { describeStore } from '../conformance/store.ts'
import { manualClock } from '../rig/clock.ts'
import { startRedis, type TestRedis } from '../rig/redis.ts'
import { grantsWith, openTask, presenting } from './grant.fixture.ts'
import { openRelay } from './relay.fixture.ts'

let server: TestRedis
beforeAll(async () => {
  server = await startRedis()
})
afterAll(() => server.stop())

describeStore('Redis', async () => {
  const connections: Redis[] = []
  return {
    open(clock) {
      const redis = new Redis(server.url, { enableAutoPipelining: true })
      connections.push(redis)
      return openRedisStore({ redis, prefix: server.prefix, clock })
    },
    close: async () => connections.forEach((redis) => void redis.disconnect()),
  }
})

describe('the Redis store', () => {
  const clock = manualClock()
  const stored: StoredGrant = {
    tenant: 'keys',
    id: 'g1',
    task: 't1',
    handleDigest: 'd1',
    body: 'b',
    expiresAt: clock.nowMs() / 1000 + 900,
    watched: true,
  }

  it('lets every key of a grant expire by itself, an hour after the grant', async () => {
    const redis = new Redis(server.url)
    const store = openRedisStore({ redis, prefix: `${server.prefix}px`, clock })
    await store.create(stored)
    await store.end(stored, 'completed')
    await store.spend('keys', 'g1', 'github:x', stored.expiresAt)
    for (const key of ['grant:g1', 'task:t1', 'handle:d1', 'ended:g1', 'use:g1:github:x']) {
      const left = await redis.pttl(`{${server.prefix}px:keys}:${key}`)
      expect(left, key).toBeGreaterThan((900 + 3590) * 1000)
      expect(left, key).toBeLessThanOrEqual((900 + 3600) * 1000)
    }
    redis.disconnect()
  })

  it('keeps all keys of a tenant in one slot of a Cluster, and says tenant in each', async () => {
    const redis = new Redis(server.url)
    const prefix = `${server.prefix}slot`
    const store = openRedisStore({ redis, prefix, clock })
    await store.create(stored)
    await store.spend('keys', 'g1', 'github:x', stored.expiresAt)
    const keys = (await redis.keys(`{${prefix}*`)).filter((key) => !key.endsWith('}:tenants'))
    expect(keys.length).toBeGreaterThanOrEqual(6)
    expect(new Set(keys.map((key) => key.slice(0, key.indexOf('}') + 1)))).toEqual(new Set([`{${prefix}:keys}`]))
    redis.disconnect()
  })

  it('gives whoever can write to Redis nobody else’s grant', async () => {
    const redis = new Redis(server.url)
    const prefix = `${server.prefix}write`
    const store = openRedisStore({ redis, prefix, clock })
    const grants = grantsWith({ store, clock })
    const own = await openTask(grants)
    const wide = await openTask(grants, { scope: 'github:* openai:*' })
    const key = (rest: string) => `{${prefix}:acme}:${rest}`
    const mine = newHandle()
    await redis.set(key(`handle:${digestOf(mine)}`), wide.grant.id)
    await redis.set(key(`handle:${digestOf(own.handle)}`), wide.grant.id)
    await expect(grants.authenticate(presenting(mine))).rejects.toMatchObject({ code: 'grant_invalid' })
    await expect(grants.authenticate(presenting(own.handle))).rejects.toMatchObject({ code: 'grant_invalid' })
    await redis.copy(key(`grant:${wide.grant.id}`), key(`grant:${own.grant.id}`), 'REPLACE')
    await expect(grants.authenticate(presenting(own.token))).rejects.toMatchObject({ code: 'grant_invalid' })
    expect(await grants.authenticate(presenting(wide.handle))).toMatchObject({ id: wide.grant.id })
    redis.disconnect()
  })

  it('says store_unavailable at once when the connection is cut, and works again after', async () => {
    const relay = await openRelay(server.url)
    const redis = new Redis(relay.url, { enableOfflineQueue: false, maxRetriesPerRequest: 0, retryStrategy: () => 5 })
    redis.on('error', () => {})
    await new Promise((resolve) => redis.once('ready', resolve))
    const store = openRedisStore({ redis, prefix: `${server.prefix}cut`, clock })
    await store.create(stored)
    relay.cut()
    const refused = { code: 'store_unavailable' }
    await expect(store.byHandle('keys', 'd1')).rejects.toMatchObject(refused)
    await expect(store.end(stored, 'x')).rejects.toMatchObject(refused)
    await expect(store.spend('keys', 'g1', 'x', stored.expiresAt)).rejects.toMatchObject(refused)
    const ready = new Promise((resolve) => redis.once('ready', resolve))
    relay.heal()
    await ready
    expect(await store.byHandle('keys', 'd1')).toMatchObject({ stored: { id: 'g1' } })
    redis.disconnect()
    await relay.close()
  })

  it('does not wait for a Redis that hangs', { timeout: 10_000 }, async () => {
    const relay = await openRelay(server.url)
    const redis = new Redis(relay.url)
    const store = openRedisStore({ redis, prefix: `${server.prefix}hang`, clock })
    await store.create(stored)
    relay.hang()
    await expect(store.byId('keys', 'g1')).rejects.toMatchObject({ code: 'store_unavailable' })
    redis.disconnect()
    await relay.close()
  })
})
