/**
 * Grants shared by replicas, in Redis. All keys of a tenant carry one hash tag, so that the steps of one change stay on one
 * node of a Cluster and can be a script. Everything expires by itself. Needs `maxmemory-policy noeviction`: an evicted key
 * would bring a spent use back to life.
 */
import type { Cluster, Redis } from 'ioredis'
import type { Clock } from '../../protocol/clock.ts'
import { answered } from '../../redis-answer.ts'
import { createOrderShelf } from './redis-orders.ts'
import {
  ADD,
  BY_HANDLE,
  BY_ID,
  CREATE,
  END,
  GRANTS_OF,
  RECENT,
  SAVE_TASK,
  SPEND,
  STATES,
  TASKS,
} from './redis-scripts.ts'
import {
  type Charge,
  type Eventual,
  type GrantState,
  type GrantStore,
  type KnownTask,
  REMEMBER_S,
  type Standing,
  type StoredGrant,
  type StoredTask,
  storeUnavailable,
} from './store.ts'

/** Within a second the end of a task is known everywhere (DESIGN §2, promise 8). */
const TRUST_MS = 1_000
/** Looked up in one step: Redis serves nobody else meanwhile. */
const MAX_KEYS = 500

/** Reason, whether it is suspended, version of the orders; null for a grant that is not there. */
type State = readonly [string | null, string | null, string | null] | null

/** @param o.prefix first part of every key, default `keyless`. @param o.redis stays the caller's to close. */
export function openRedisStore(o: {
  readonly redis: Redis | Cluster
  readonly prefix?: string
  readonly clock: Clock
}): GrantStore {
  const { redis, clock } = o
  const keys = createKeys(o.prefix ?? 'keyless')
  const run = <T>(script: string, names: readonly string[], ...given: readonly (string | number)[]) =>
    bounded(redis.eval(script, names.length, ...names, ...given) as Promise<T>)
  const nowS = () => Math.floor(clock.nowMs() / 1000)
  const { [Symbol.dispose]: silence, ...orders } = createOrderShelf({ redis, keys, run, bounded })
  const lifeMs = (untilS: number) => Math.max(1, Math.ceil((untilS + REMEMBER_S) * 1000 - clock.nowMs()))
  return {
    trustMs: TRUST_MS,
    ...orders,
    async create(g) {
      const { tenant, id, task, handleDigest, expiresAt } = g
      const handle = handleDigest === undefined ? '' : keys.handle(tenant, handleDigest)
      const given = [JSON.stringify(g), JSON.stringify(g.marks), task, lifeMs(expiresAt), expiresAt, id, nowS(), handle]
      return (await run(CREATE, [keys.grant(tenant, id), keys.grantsOf(tenant, task)], ...given)) === 1
    },
    byHandle: async (tenant, digest) =>
      standingOf(await run(BY_HANDLE, [keys.handle(tenant, digest)], keys.of(tenant))),
    byId: async (tenant, id) => standingOf(await run(BY_ID, [keys.grant(tenant, id)], keys.of(tenant))),
    states: (tenant, ids) => states(run, keys, tenant, ids),
    async end(tenant, mark, { reason, untilS }) {
      const names = [keys.ended(tenant, mark), keys.tasks(tenant), keys.beats(tenant)]
      return (await run(END, names, reason, lifeMs(untilS), mark, keys.changes(tenant))) === 1
    },
    async saveTask(task, expected) {
      const { tenant, id, version, watched, isSuspended, expiresAt } = task
      if (watched) await bounded(redis.sadd(keys.tenants, tenant))
      const names = [keys.task(tenant, id), keys.ended(tenant, id), keys.tasks(tenant), keys.beats(tenant)]
      const change = [JSON.stringify(task), version, expected ?? '', isSuspended ? 1 : 0, lifeMs(expiresAt)]
      const alive = [expiresAt, id, nowS(), watched ? clock.nowMs() : '']
      return (await run(SAVE_TASK, names, ...change, ...alive, keys.changes(tenant))) === 1
    },
    async task(tenant, id) {
      const known = bounded(
        Promise.all([redis.hget(keys.task(tenant, id), 'stored'), redis.get(keys.ended(tenant, id))]),
      )
      const [stored, ended] = await known
      return stored === null ? undefined : ({ ...JSON.parse(stored), ended: ended ?? undefined } as KnownTask)
    },
    tasks: async (tenant) =>
      parsed<StoredTask>(await run(TASKS, [keys.tasks(tenant)], keys.of(tenant), nowS())).sort(newestFirst),
    grantsOf: async (tenant, task) =>
      parsed<StoredGrant>(await run(GRANTS_OF, [keys.grantsOf(tenant, task)], keys.of(tenant), nowS())).sort(
        (a, b) => -newestFirst(a, b),
      ),
    spend(tenant, charges): Eventual<number> {
      if (charges.length === 0) return -1
      const names = charges.map(({ name }) => keys.count(tenant, name))
      return run(SPEND, names, ...charges.flatMap((charge) => wordsOf(charge, lifeMs)))
    },
    async add(tenant, charges) {
      const names = charges.map(({ name }) => keys.count(tenant, name))
      await run(ADD, names, ...charges.flatMap(({ by, untilS }) => [by, lifeMs(untilS)]))
    },
    async left(tenant, charge) {
      const key = keys.count(tenant, charge.name)
      if (charge.kind === 'rate') return charge.n - (await run<number>(RECENT, [key], charge.perS * 1_000_000))
      return Math.max(0, charge.limit - Number((await bounded(redis.get(key))) ?? 0))
    },
    past: async (tenant, name) => numbersOf(await bounded(redis.hgetall(keys.count(tenant, name)))),
    async once(tenant, name, untilMs) {
      const lifeMs = Math.max(1, Math.ceil(untilMs - clock.nowMs()))
      return (await bounded(redis.set(keys.seen(tenant, name), '1', 'PX', lifeMs, 'NX'))) === 'OK'
    },
    // XX: a beat that arrives after the end cannot put the task back on the list.
    beat: (tenant, task) => bounded(redis.zadd(keys.beats(tenant), 'XX', clock.nowMs(), task).then(() => undefined)),
    overdue: (silentMs) => bounded(overdue(redis, keys, { nowMs: clock.nowMs(), silentMs })),
    close: silence,
  }
}

type Keys = ReturnType<typeof createKeys>

/** The 2 is the layout: what an older gateway wrote is neither read nor harmed. */
function createKeys(prefix: string) {
  const of = (tenant: string) => `{${prefix}:${tenant}}:2:`
  return {
    of,
    /** Hash: the grant, its marks, its task. */
    grant: (tenant: string, id: string) => `${of(tenant)}grant:${id}`,
    /** Reason by mark. */
    ended: (tenant: string, mark: string) => `${of(tenant)}ended:${mark}`,
    /** Id of a grant by digest. */
    handle: (tenant: string, digest: string) => `${of(tenant)}handle:${digest}`,
    /** Hash: the task, its version, whether it is suspended. */
    task: (tenant: string, task: string) => `${of(tenant)}task:${task}`,
    /** Sorted set: ids of a task's grants by expiry, epoch seconds. */
    grantsOf: (tenant: string, task: string) => `${of(tenant)}grants:${task}`,
    /** Sorted set: living tasks by expiry, epoch seconds. */
    tasks: (tenant: string) => `${of(tenant)}tasks`,
    /** Sorted set: watched tasks by last sign of life, epoch milliseconds. */
    beats: (tenant: string) => `${of(tenant)}beats`,
    /** Who looks after a silent task right now. */
    claim: (tenant: string, task: string) => `${of(tenant)}claim:${task}`,
    /** What is spent of a budget; of a rate, its last calls. */
    count: (tenant: string, name: string) => `${of(tenant)}count:${name}`,
    /** Hash: orders by what they are about, and their version. */
    orders: (tenant: string) => `${of(tenant)}orders`,
    /** Channel: marks that have ended; the empty one for orders. */
    changes: (tenant: string) => `${of(tenant)}changes`,
    seen: (tenant: string, name: string) => `${of(tenant)}seen:${name}`,
    /** Set of tenants with promised heartbeats. */
    tenants: `{${prefix}}:2:tenants`,
  }
}

function wordsOf(charge: Charge, lifeMs: (untilS: number) => number): readonly (string | number)[] {
  if (charge.kind === 'past') {
    const { plain, kinds, seen, untilS } = charge
    return ['past', JSON.stringify({ plain, kinds, seen }), '', lifeMs(untilS)]
  }
  return charge.kind === 'count'
    ? ['count', charge.limit, charge.by, lifeMs(charge.untilS)]
    : ['rate', charge.n, charge.perS * 1_000_000, Math.ceil(charge.perS * 1000)]
}

function numbersOf(hash: Readonly<Record<string, string>>): Readonly<Record<string, number>> {
  return Object.fromEntries(Object.entries(hash).map(([field, count]) => [field, Number(count)]))
}

function standingOf(found: readonly [string, ...NonNullable<State>] | null): Standing | undefined {
  if (found === null) return undefined
  const [stored, ...state] = found
  return { stored: JSON.parse(stored) as StoredGrant, ...stateOf(state) }
}

function stateOf([ended, suspended, orders]: NonNullable<State>): GrantState {
  return {
    ended: ended ?? undefined,
    isSuspended: suspended === '1',
    ...(orders !== null && { orders: Number(orders) }),
  }
}

type Run = <T>(script: string, names: readonly string[], ...given: readonly string[]) => Promise<T>

async function states(run: Run, keys: Keys, tenant: string, ids: readonly string[]) {
  const found: (GrantState | undefined)[] = []
  for (let at = 0; at < ids.length; at += MAX_KEYS) {
    const names = ids.slice(at, at + MAX_KEYS).map((id) => keys.grant(tenant, id))
    const answer = await run<readonly State[]>(STATES, names, keys.of(tenant))
    found.push(...answer.map((state) => (state === null ? undefined : stateOf(state))))
  }
  return found
}

function parsed<T>(texts: readonly string[]): T[] {
  return texts.map((text) => JSON.parse(text) as T)
}

/** UUIDv7: by time. */
function newestFirst(a: { readonly id: string }, b: { readonly id: string }): number {
  return a.id < b.id ? 1 : -1
}

/** Each silent task goes to the replica whose claim is first; the claim lapses, so that a replica that dies is replaced. */
async function overdue(
  redis: Redis | Cluster,
  keys: Keys,
  o: { nowMs: number; silentMs: number },
): Promise<readonly StoredTask[]> {
  const found: StoredTask[] = []
  for (const tenant of await redis.smembers(keys.tenants)) {
    for (const id of await redis.zrangebyscore(keys.beats(tenant), '-inf', `(${o.nowMs - o.silentMs}`)) {
      const stored = await redis.hget(keys.task(tenant, id), 'stored')
      const task = stored === null ? undefined : (JSON.parse(stored) as StoredTask)
      if (task === undefined || task.expiresAt * 1000 <= o.nowMs) await redis.zrem(keys.beats(tenant), id)
      else if ((await redis.set(keys.claim(tenant, id), '1', 'PX', o.silentMs, 'NX')) === 'OK') found.push(task)
    }
  }
  return found
}

function bounded<T>(work: Promise<T>): Promise<T> {
  return answered(work, storeUnavailable)
}
