/**
 * Grants shared by replicas, in Redis. All keys of a tenant carry one hash tag, so that the steps of one change stay on one
 * node of a Cluster and can be a transaction. Everything expires by itself. Needs `maxmemory-policy noeviction`: an evicted
 * key would bring a spent use back to life.
 */
import type { ChainableCommander, Cluster, Redis } from 'ioredis'
import type { Clock } from '../protocol/clock.ts'
import { type GrantStore, REMEMBER_S, type Standing, type StoredGrant, storeUnavailable } from './store.ts'

/** Within a second the end of a task is known everywhere (DESIGN §2, promise 8). */
const TRUST_MS = 1_000
/** A Redis that takes longer is as good as gone: the call is refused instead of held. */
const ANSWER_MS = 1_000

/** @param o.prefix first part of every key, default `keyless`. @param o.redis stays the caller's to close. */
export function openRedisStore(o: {
  readonly redis: Redis | Cluster
  readonly prefix?: string
  readonly clock: Clock
}): GrantStore {
  const { redis, clock } = o
  const keys = createKeys(o.prefix ?? 'keyless')
  const nowS = () => Math.floor(clock.nowMs() / 1000)
  const lifeMs = (expiresAt: number) => Math.max(1, Math.ceil((expiresAt + REMEMBER_S) * 1000 - clock.nowMs()))
  const byId = (tenant: string, id: string) => readStanding(redis, keys.grant(tenant, id), keys.ended(tenant, id))
  const byPointer = async (tenant: string, pointer: string) => {
    const id = await redis.get(pointer)
    return id === null ? undefined : byId(tenant, id)
  }
  return {
    trustMs: TRUST_MS,
    create: (g) => bounded(create(redis, keys, { g, ttlMs: lifeMs(g.expiresAt), nowMs: clock.nowMs() })),
    byHandle: (tenant, digest) => bounded(byPointer(tenant, keys.handle(tenant, digest))),
    byId: (tenant, id) => bounded(byId(tenant, id)),
    byTask: (tenant, task) => bounded(byPointer(tenant, keys.task(tenant, task))),
    end: (g, reason) =>
      bounded(
        transact(
          redis
            .multi()
            .set(keys.ended(g.tenant, g.id), reason, 'PX', lifeMs(g.expiresAt), 'NX')
            .zrem(keys.live(g.tenant), g.id)
            .zrem(keys.beats(g.tenant), g.id),
        ).then(([first]) => first === 'OK'),
      ),
    spend: (tenant, id, operation, expiresAt) =>
      bounded(
        redis
          .set(keys.use(tenant, id, operation), '1', 'PX', lifeMs(expiresAt), 'NX')
          .then((answer) => answer === 'OK'),
      ),
    // XX: a beat that arrives after the end cannot put the grant back on the list.
    beat: (g) => bounded(redis.zadd(keys.beats(g.tenant), 'XX', clock.nowMs(), g.id).then(() => undefined)),
    overdue: (silentMs) => bounded(overdue(redis, keys, { nowMs: clock.nowMs(), silentMs })),
    live: (tenant) => bounded(live(redis, keys, tenant, nowS())),
    close: () => {},
  }
}

type Keys = ReturnType<typeof createKeys>

function createKeys(prefix: string) {
  const key = (tenant: string, rest: string) => `{${prefix}:${tenant}}:${rest}`
  return {
    grant: (tenant: string, id: string) => key(tenant, `grant:${id}`),
    ended: (tenant: string, id: string) => key(tenant, `ended:${id}`),
    handle: (tenant: string, digest: string) => key(tenant, `handle:${digest}`),
    task: (tenant: string, task: string) => key(tenant, `task:${task}`),
    use: (tenant: string, id: string, operation: string) => key(tenant, `use:${id}:${operation}`),
    /** Sorted set: grant id by expiry, epoch seconds. */
    live: (tenant: string) => key(tenant, 'live'),
    /** Sorted set: grant id by last sign of life, epoch milliseconds. */
    beats: (tenant: string) => key(tenant, 'beats'),
    /** Who looks after a silent grant right now. */
    claim: (tenant: string, id: string) => key(tenant, `claim:${id}`),
    /** Set of tenants with promised heartbeats. */
    tenants: `{${prefix}}:tenants`,
  }
}

async function create(
  redis: Redis | Cluster,
  keys: Keys,
  o: { readonly g: StoredGrant; readonly ttlMs: number; readonly nowMs: number },
): Promise<void> {
  const { g, ttlMs, nowMs } = o
  if (g.watched) await redis.sadd(keys.tenants, g.tenant)
  const steps = redis
    .multi()
    .set(keys.grant(g.tenant, g.id), JSON.stringify(g), 'PX', ttlMs)
    .set(keys.task(g.tenant, g.task), g.id, 'PX', ttlMs)
    .set(keys.handle(g.tenant, g.handleDigest), g.id, 'PX', ttlMs)
    .zremrangebyscore(keys.live(g.tenant), '-inf', Math.floor(nowMs / 1000))
    .zadd(keys.live(g.tenant), g.expiresAt, g.id)
  await transact(g.watched ? steps.zadd(keys.beats(g.tenant), nowMs, g.id) : steps)
}

/** Results in order. @throws the first error: a transaction that was refused in part is a refused one to us. */
async function transact(steps: ChainableCommander): Promise<unknown[]> {
  const results = await steps.exec()
  if (results === null) throw new Error('the transaction was discarded')
  return results.map(([error, value]) => {
    if (error) throw error
    return value
  })
}

async function readStanding(redis: Redis | Cluster, grantKey: string, endedKey: string): Promise<Standing | undefined> {
  const [stored, ended] = await redis.mget(grantKey, endedKey)
  if (stored === null || stored === undefined) return undefined
  return { stored: JSON.parse(stored) as StoredGrant, ended: ended ?? undefined }
}

/** Each silent grant goes to the replica whose claim is first; the claim lapses, so that a replica that dies is replaced. */
async function overdue(
  redis: Redis | Cluster,
  keys: Keys,
  o: { nowMs: number; silentMs: number },
): Promise<readonly StoredGrant[]> {
  const found: StoredGrant[] = []
  for (const tenant of await redis.smembers(keys.tenants)) {
    const ids = await redis.zrangebyscore(keys.beats(tenant), '-inf', `(${o.nowMs - o.silentMs}`)
    for (const id of ids) {
      const standing = await readStanding(redis, keys.grant(tenant, id), keys.ended(tenant, id))
      const isOver =
        standing === undefined || standing.ended !== undefined || standing.stored.expiresAt * 1000 <= o.nowMs
      if (isOver) await redis.zrem(keys.beats(tenant), id)
      else if ((await redis.set(keys.claim(tenant, id), '1', 'PX', o.silentMs, 'NX')) === 'OK')
        found.push(standing.stored)
    }
  }
  return found
}

async function live(redis: Redis | Cluster, keys: Keys, tenant: string, nowS: number): Promise<readonly StoredGrant[]> {
  const ids = await redis.zrangebyscore(keys.live(tenant), `(${nowS}`, '+inf')
  if (ids.length === 0) return []
  const stored = await redis.mget(
    ids
      .sort()
      .reverse()
      .map((id) => keys.grant(tenant, id)),
  )
  return stored.flatMap((text) => (text === null ? [] : [JSON.parse(text) as StoredGrant]))
}

async function bounded<T>(work: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>()
  const refuse = () => late.reject(new Error(`Redis did not answer within ${ANSWER_MS} ms`))
  // One more turn: after a stall of our own, timers run before the answers that have arrived meanwhile are read.
  const timer = setTimeout(() => setImmediate(refuse), ANSWER_MS)
  try {
    return await Promise.race([work, late.promise])
  } catch (cause) {
    throw storeUnavailable(cause)
  } finally {
    clearTimeout(timer)
  }
}
