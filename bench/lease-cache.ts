/** Credentials that are there already: in this process, and at another replica by way of Redis. */
import { createSecretKey, randomBytes } from 'node:crypto'
import { Redis } from 'ioredis'
import { createMemoryCache } from '../gateway/lease/cache-memory.ts'
import { createRedisCache } from '../gateway/lease/cache-redis.ts'
import { createLeases, type Leases } from '../gateway/lease/leases.ts'
import { systemClock } from '../gateway/protocol/clock.ts'
import type { Provider } from '../gateway/provider/provider.ts'
import { countingProvider, permit, receipt, service } from '../test/lease/lease.fixture.ts'
import { startRedis } from '../test/rig/redis.ts'
import { livingGrant } from './lease-issuers.ts'
import { row, timed } from './timing.ts'

const PLAN = { hits: 100_000, rounds: 5, tasks: 1_000, shared: 1_000 } as const

const to = service()
const sealKey = createSecretKey(randomBytes(32))

function room(provider: Provider, cache = createMemoryCache({ clock: systemClock })): Leases {
  const providers = new Map([[provider.name, provider]])
  return createLeases({ providers, cache, sealKey, clock: systemClock, record: async () => undefined })
}

function billing(o: Partial<Provider> = {}): Provider {
  return { ...countingProvider(systemClock), name: 'billing', ...o }
}

export async function cacheTable(): Promise<string[]> {
  return [
    '| A credential that is there already | µs | |',
    '|---|--:|---|',
    await near('in this process, one task', 1, billing()),
    await near(`in this process, ${PLAN.tasks.toLocaleString('en')} tasks in turn`, PLAN.tasks, billing()),
    await near('in this process, a role worked out for each call', 1, billing({ role: ({ path }) => `repo:${path}` })),
    await far(),
  ]
}

/** The median of the rounds: calls are too short to be timed one by one. */
async function near(name: string, tasks: number, provider: Provider): Promise<string> {
  const leases = room(provider)
  const permits = Array.from({ length: tasks }, () => permit({ service: to, grant: livingGrant() }))
  for (const one of permits) await leases.acquire(one, receipt)
  const hit = (i: number) => {
    if (leases.acquire(permits[i % tasks] as (typeof permits)[number], receipt) instanceof Promise)
      throw new Error('the credential was not there')
  }
  for (let i = 0; i < PLAN.hits; i++) hit(i)
  const rounds = Array.from({ length: PLAN.rounds }, () => {
    const started = performance.now()
    for (let i = 0; i < PLAN.hits; i++) hit(i)
    return ((performance.now() - started) * 1000) / PLAN.hits
  }).sort((a, b) => a - b)
  await leases.close()
  return row(name, rounds[PLAN.rounds >> 1]?.toFixed(2) ?? '', 'no promise, no copy')
}

/** One replica has issued; another one gets the same calls. What Redis is asked for is counted by Redis. */
async function far(): Promise<string> {
  const server = await startRedis()
  const connections = [0, 1].map(() => new Redis(server.url, { enableAutoPipelining: true }))
  try {
    const provider = billing()
    const [one, two] = connections.map((redis) => room(provider, createRedisCache({ redis, prefix: server.prefix })))
    const permits = Array.from({ length: PLAN.shared * 1.1 }, () => permit({ service: to, grant: livingGrant() }))
    for (const each of permits) await one?.acquire(each, receipt)
    const admin = connections[0] as Redis
    const before = await commands(admin)
    const { p50, p99 } = await timed(PLAN.shared, (i) => two?.acquire(permits[i] as (typeof permits)[number], receipt))
    const asked = await commands(admin)
    const each = [...asked].flatMap(([name, calls]) => {
      const more = (calls - (before.get(name) ?? 0)) / permits.length
      return more > 0 && name !== 'info' ? [`${more.toFixed(2)} ${name.toUpperCase()}`] : []
    })
    await Promise.all([one?.close(), two?.close()])
    const micros = (ms: number) => Math.round(ms * 1000)
    return row('by Redis, from another replica, p50 / p99', `${micros(p50)} / ${micros(p99)}`, each.join(', '))
  } finally {
    for (const redis of connections) redis.disconnect()
    await server.stop()
  }
}

async function commands(redis: Redis): Promise<Map<string, number>> {
  const found = (await redis.info('commandstats')).matchAll(/cmdstat_([^:]+):calls=(\d+)/g)
  return new Map([...found].map(([, name = '', calls]) => [name, Number(calls)]))
}
