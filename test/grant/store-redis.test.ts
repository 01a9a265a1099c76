/** The conformance suite on a real Redis, and what is Redis' own. */
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { digestOf, newHandle } from '../../gateway/grant/handle.ts'
import { openRedisStore } from '../../gateway/grant/store/redis.ts'
import type { Charge, GrantStore, StoredGrant, StoredTask } from '../../gateway/grant/store/store.ts'
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

const AGE = `
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  if redis.call('TYPE', key).ok == 'list' then
    for i, at in ipairs(redis.call('LRANGE', key, 0, -1)) do
      redis.call('LSET', key, i - 1, string.format('%.0f', at - ARGV[2]))
    end
  end
end`

describeStore('Redis', async () => {
  const connections: Redis[] = []
  return {
    open(clock) {
      const redis = new Redis(server.url, { enableAutoPipelining: true })
      connections.push(redis)
      return openRedisStore({ redis, prefix: server.prefix, clock })
    },
    // The store measures rates by the time of Redis: what is remembered moves back instead.
    pass: async (_clock, ms) => void (await connections[0]?.eval(AGE, 0, `*${server.prefix}*`, ms * 1000)),
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
    marks: ['g1', 't1'],
  }
  const { expiresAt } = stored
  const task: StoredTask = { ...stored, id: 't1', version: 0, watched: true, isSuspended: false }
  const once: Charge = { name: 'g1/once/x', kind: 'count', limit: 1, by: 1, untilS: expiresAt }
  const rate: Charge = { name: 'g1/0/rate', kind: 'rate', n: 2, perS: 60, untilS: expiresAt }
  const fill = async (store: GrantStore) => {
    await store.create(stored)
    await store.saveTask(task, undefined)
    await store.end('keys', 'g1', { reason: 'completed', untilS: expiresAt })
    await store.spend('keys', [once, rate])
  }

  it('lets every key of a grant expire by itself, an hour after the grant', async () => {
    const redis = new Redis(server.url)
    const prefix = `${server.prefix}px`
    await fill(openRedisStore({ redis, prefix, clock }))
    for (const key of ['grant:g1', 'grants:t1', 'task:t1', 'handle:d1', 'ended:g1', 'count:g1/once/x']) {
      const left = await redis.pttl(`{${prefix}:keys}:2:${key}`)
      expect(left, key).toBeGreaterThan((900 + 3590) * 1000)
      expect(left, key).toBeLessThanOrEqual((900 + 3600) * 1000)
    }
    expect(await redis.pttl(`{${prefix}:keys}:2:count:g1/0/rate`)).toBeLessThanOrEqual(60_000)
    redis.disconnect()
  })

  it('keeps all keys of a tenant in one slot of a Cluster, and says tenant in each', async () => {
    const redis = new Redis(server.url)
    const prefix = `${server.prefix}slot`
    await fill(openRedisStore({ redis, prefix, clock }))
    const keys = (await redis.keys(`{${prefix}*`)).filter((key) => !key.endsWith('}:2:tenants'))
    expect(keys.length).toBe(9)
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
    const key = (rest: string) => `{${prefix}:acme}:2:${rest}`
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
    await expect(store.end('keys', 'g1', { reason: 'x', untilS: expiresAt })).rejects.toMatchObject(refused)
    await expect(store.spend('keys', [once])).rejects.toMatchObject(refused)
    await expect(store.left('keys', once)).rejects.toMatchObject(refused)
    await expect(store.once('keys', 'x', clock.nowMs() + 1000)).rejects.toMatchObject(refused)
    await expect(store.saveTask(task, undefined)).rejects.toMatchObject(refused)
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
    const refused = { code: 'store_unavailable' }
    await Promise.all([
      expect(store.byId('keys', 'g1')).rejects.toMatchObject(refused),
      expect(store.spend('keys', [once])).rejects.toMatchObject(refused),
    ])
    redis.disconnect()
    await relay.close()
  })
})
