/** The conformance suite on a real Redis, and what is Redis' own. */
import { Redis } from 'ioredis'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type StoredApproval, storable } from '../../gateway/approval/store.ts'
import { openRedisApprovals } from '../../gateway/approval/store-redis.ts'
import { describeApprovals } from '../conformance/approvals.ts'
import { manualClock } from '../rig/clock.ts'
import { startRedis, type TestRedis } from '../rig/redis.ts'
import { record } from './approval.fixture.ts'

let server: TestRedis
beforeAll(async () => {
  server = await startRedis()
})
afterAll(() => server.stop())

describeApprovals('Redis', async () => {
  const connections: Redis[] = []
  return {
    open(clock) {
      const redis = new Redis(server.url, { enableAutoPipelining: true })
      connections.push(redis)
      return openRedisApprovals({ redis, prefix: server.prefix, clock })
    },
    close: async () => connections.forEach((redis) => void redis.disconnect()),
  }
})

it('leaves nothing behind that lives for ever', async () => {
  const redis = new Redis(server.url)
  const clock = manualClock(Date.now())
  const store = openRedisApprovals({ redis, prefix: `${server.prefix}ttl`, clock })
  const stored = storable(record(clock.nowMs()), 'sealed')
  await store.add(stored, 1)
  await store.change({ ...stored, version: 1, isPending: false })
  const keys = await redis.keys(`*${server.prefix}ttl*`)
  expect(keys.length).toBeGreaterThan(1)
  for (const key of keys) expect(await redis.pttl(key), key).toBeGreaterThan(0)
  redis.disconnect()
})

it.each(['{', 'null', '{"id":7}', '[]'])(
  'shows the others where one was written over with %s, and does not take that one for absent',
  async (text) => {
    const redis = new Redis(server.url)
    const clock = manualClock()
    const prefix = `${server.prefix}${text.length}${text.charCodeAt(0)}`
    const store = openRedisApprovals({ redis, prefix, clock })
    const [one, other] = [1, 2].map((n) => storable(record(clock.nowMs() + n), 'sealed')) as [
      StoredApproval,
      StoredApproval,
    ]
    for (const stored of [one, other]) await store.add(stored, 5)
    const [key = ''] = await redis.keys(`{${prefix}:*one:${one.id}`)
    await redis.hset(key, 'stored', text)
    expect((await store.pending('acme')).map(({ id }) => id)).toEqual([other.id])
    for (const looked of [
      () => store.byId('acme', one.id),
      () => store.inSlot('acme', one.slot),
      () => store.add(one, 5),
    ])
      await expect((async () => looked())()).rejects.toMatchObject({ code: 'store_unavailable' })
    redis.disconnect()
  },
)

it('is unavailable, and not empty, while Redis is away', async () => {
  const redis = new Redis(server.url, { enableOfflineQueue: false, maxRetriesPerRequest: 0, retryStrategy: () => null })
  redis.on('error', () => undefined)
  await new Promise((resolve) => redis.once('ready', resolve))
  redis.disconnect()
  const store = openRedisApprovals({ redis, prefix: server.prefix, clock: manualClock() })
  await expect(store.inSlot('acme', 'x')).rejects.toMatchObject({ code: 'store_unavailable' })
  await expect(store.byId('acme', 'x')).rejects.toMatchObject({ code: 'store_unavailable' })
})
