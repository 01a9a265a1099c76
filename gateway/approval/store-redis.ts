/**
 * Approvals shared by replicas, in Redis. All keys of a tenant carry one hash tag, so that one change is one script. Everything
 * expires by itself. Needs `maxmemory-policy noeviction`: an evicted key would let what was denied be asked again.
 */
import type { Redis } from 'ioredis'
import type { Clock } from '../protocol/clock.ts'
import { answered, subscribe } from '../redis-answer.ts'
import { type Added, type ApprovalStore, type StoredApproval, storeUnavailable } from './store.ts'
import { ADD, BY_ID, CHANGE, IN_SLOT, LAPSED, PENDING } from './store-redis-scripts.ts'

/** A message that got lost between replicas delays whoever waits by this much. */
const LOOK_MS = 2_000

/** @param o.prefix first part of every key, default `keyless`. @param o.redis stays the caller's to close. */
export function openRedisApprovals(o: {
  readonly redis: Redis
  readonly prefix?: string
  readonly clock: Clock
}): ApprovalStore {
  const { redis, clock } = o
  const prefix = o.prefix ?? 'keyless'
  const keys = keysOf(prefix)
  const channel = `${prefix}:approvals`
  const listeners = new Set<(tenant: string, id: string) => void>()
  let subscriber: Redis | undefined
  const run = <T>(script: string, names: readonly string[], ...given: readonly (string | number)[]) =>
    bounded(redis.eval(script, names.length, ...names, ...given) as Promise<T>)
  const nowMs = () => clock.nowMs()
  return {
    lookMs: LOOK_MS,
    async add(one, most): Promise<Added> {
      const { tenant, id, slot, agent, untilMs, keepMs } = one
      const names = [keys.slot(tenant, slot), keys.pending(tenant), keys.pendingOf(tenant, agent), keys.one(tenant, id)]
      const given = [id, JSON.stringify(one), one.version, untilMs, keepMs, nowMs(), most, keys.of(tenant)]
      const found = await run<string | number>(ADD, names, ...given)
      if (typeof found === 'string') return { first: required(found) }
      return found === 1 ? { isNew: true } : 'full'
    },
    count: (tenant, agent) => bounded(redis.zcount(keys.pendingOf(tenant, agent), `(${nowMs()}`, '+inf')),
    inSlot: async (tenant, slot) =>
      storedOf(await run(IN_SLOT, [keys.slot(tenant, slot)], keys.of(tenant)), nowMs(), 'untilMs'),
    byId: async (tenant, id) => storedOf(await run(BY_ID, [keys.one(tenant, id)]), nowMs(), 'keepMs'),
    async change(one) {
      const { tenant, id, slot, agent, version, isPending, untilMs, keepMs } = one
      const names = [keys.slot(tenant, slot), keys.pending(tenant), keys.pendingOf(tenant, agent), keys.one(tenant, id)]
      const given = [
        id,
        JSON.stringify(one),
        version,
        untilMs,
        keepMs,
        nowMs(),
        isPending ? 1 : 0,
        channel,
        `${tenant} ${id}`,
      ]
      return (await run(CHANGE, names, ...given)) === 1
    },
    pending: async (tenant) => parsed(await run<string[]>(PENDING, [keys.pending(tenant)], keys.of(tenant))),
    lapsed: async (tenant) => parsed(await run<string[]>(LAPSED, [keys.pending(tenant)], keys.of(tenant), nowMs())),
    onChange(told) {
      listeners.add(told)
      subscriber ??= subscribe(redis, [channel]).on('message', (_, message: string) => {
        const space = message.indexOf(' ')
        for (const listener of listeners) listener(message.slice(0, space), message.slice(space + 1))
      })
      return () => void listeners.delete(told)
    },
    close: () => subscriber?.disconnect(),
  }
}

/** The 1 is the layout. */
function keysOf(prefix: string) {
  const of = (tenant: string) => `{${prefix}:${tenant}}:approvals:1:`
  return {
    of,
    /** Hash: the approval and its version. */
    one: (tenant: string, id: string) => `${of(tenant)}one:${id}`,
    /** Id by fingerprint. */
    slot: (tenant: string, slot: string) => `${of(tenant)}slot:${slot}`,
    /** Sorted set: pending ones by the end of their time, epoch milliseconds. */
    pending: (tenant: string) => `${of(tenant)}pending`,
    /** The same of one agent. */
    pendingOf: (tenant: string, agent: string) => `${of(tenant)}pending-of:${agent}`,
  }
}

/** What whoever writes to Redis made unreadable is nothing to show, and hides none of the others. */
function parsed(texts: readonly string[]): StoredApproval[] {
  return texts.flatMap((text) => readable(text) ?? []).sort((a, b) => (a.id < b.id ? -1 : 1)) // UUIDv7: by time
}

function storedOf(text: unknown, nowMs: number, until: 'untilMs' | 'keepMs'): StoredApproval | undefined {
  if (typeof text !== 'string') return undefined
  const stored = required(text)
  return stored[until] > nowMs ? stored : undefined
}

/** Where one is looked for, it is not absent for being unreadable: a no would be. */
function required(text: string): StoredApproval {
  const stored = readable(text)
  if (stored === undefined) throw storeUnavailable(new TypeError('what Redis has of an approval is none'))
  return stored
}

/** As far as it takes to find whether a gateway of ours has sealed it (seal.ts). */
function readable(text: string): StoredApproval | undefined {
  try {
    const stored = JSON.parse(text) as Partial<StoredApproval> | null
    return typeof stored?.id === 'string' && typeof stored.body === 'string' ? (stored as StoredApproval) : undefined
  } catch {
    return undefined
  }
}

function bounded<T>(work: Promise<T>): Promise<T> {
  return answered(work, storeUnavailable)
}
