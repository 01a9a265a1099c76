/**
 * The lease cache of a fleet, in Redis. Each operation that must be one step is one script; all keys of a grant carry the
 * same hash tag, so that the scripts also run on Redis Cluster. Grant ids are hashed in key names, values are sealed: whoever
 * reads Redis learns neither who nor what. A Redis that is down or hangs costs at most 250 ms once a second.
 */
import { hash } from 'node:crypto'
import { Command, type Redis } from 'ioredis'
import { GatewayError } from '../protocol/problem.ts'
import { subscribe } from '../redis-answer.ts'
import { ENDED_MS, type LeaseCache, type LeaseKey, type StoreOutcome } from './cache.ts'
import { EXTEND, LIST, PURGE, REMOVE, SET, TAKE_LOCK, UNLOCK } from './cache-redis-scripts.ts'

/** Milliseconds for one command; on one network a command takes less than one. */
const COMMAND_TIMEOUT_MS = 250

/** Milliseconds during which a Redis that timed out is not asked again. */
const PAUSE_MS = 1_000

/**
 * @param o.redis a connection that the caller owns; a second one for purge messages is made from it and owned here.
 * @param o.prefix first part of every key and channel name. Default `keyless:`.
 */
export function createRedisCache(o: { readonly redis: Redis; readonly prefix?: string }): LeaseCache {
  const prefix = `${o.prefix ?? 'keyless:'}lease:`
  const channel = `${prefix}purged`
  const burnt = `${prefix}burnt`
  const ask = bounded(o.redis)
  // As a command object: the answer is needed as bytes, and `callBuffer` breaks under automatic pipelining.
  const bytesOf = (args: (string | number)[]) => () =>
    o.redis.sendCommand(new Command('eval', args, { replyEncoding: null })) as Promise<Buffer[]>
  let subscriber: Redis | undefined

  return {
    isShared: true,
    async get(key) {
      return (await ask(() => o.redis.getBuffer(names(prefix, key).value))) ?? undefined
    },
    async set(key, value, { ttlMs, fence }) {
      const at = names(prefix, key)
      const args = [value, Math.max(1, Math.floor(ttlMs)), fence ?? '', key.id]
      const outcome = await ask(() => o.redis.eval(SET, 4, at.value, at.index, at.ended, at.fence, ...args))
      return outcome as StoreOutcome
    },
    async remove(key, value) {
      return (await ask(() => o.redis.eval(REMOVE, 1, names(prefix, key).value, value))) === 1
    },
    async burn(key, value, credentialId) {
      if (value !== undefined) await ask(() => o.redis.eval(REMOVE, 1, names(prefix, key).value, value))
      await ask(() => o.redis.publish(burnt, `${credentialId} ${key.grant}`))
    },
    onBurn(listener) {
      subscriber ??= subscribe(o.redis, [channel, burnt])
      subscriber.on('message', (name, message: string) => {
        const space = message.indexOf(' ')
        if (name === burnt) listener(message.slice(space + 1), message.slice(0, space))
      })
    },
    async lock(key, ttlMs) {
      const at = names(prefix, key)
      return (await ask(() => o.redis.eval(TAKE_LOCK, 2, at.lock, at.fence, ttlMs, ENDED_MS))) as number | null
    },
    async extend(key, fence, ttlMs) {
      await ask(() => o.redis.eval(EXTEND, 1, names(prefix, key).lock, fence, ttlMs))
    },
    async unlock(key, fence) {
      await ask(() => o.redis.eval(UNLOCK, 1, names(prefix, key).lock, fence))
    },
    async list(grant) {
      const group = groupOf(prefix, grant)
      return pairs(await ask(bytesOf([LIST, 1, `${group}:index`, `${group}:value:`])), grant)
    },
    async purge(grant) {
      const group = groupOf(prefix, grant)
      const args = [PURGE, 2, `${group}:index`, `${group}:ended`, `${group}:value:`, ENDED_MS, channel, grant]
      return pairs(await ask(bytesOf(args)), grant)
    },
    onPurge(listener) {
      subscriber ??= subscribe(o.redis, [channel, burnt])
      subscriber.on('message', (name, message: string) => {
        const [grant = '', ...removed] = message.split(' ')
        if (name === channel) listener(grant, new Set(removed))
      })
    },
    async close() {
      subscriber?.disconnect()
    },
  }
}

function groupOf(prefix: string, grant: string): string {
  return `${prefix}{${hash('sha256', grant, 'base64url')}}`
}

function names(prefix: string, key: LeaseKey) {
  const group = groupOf(prefix, key.grant)
  return {
    value: `${group}:value:${key.id}`,
    lock: `${group}:lock:${key.id}`,
    fence: `${group}:fence:${key.id}`,
    index: `${group}:index`,
    ended: `${group}:ended`,
  }
}

/** Scripts answer with flat lists: id, value, id, value. */
function pairs(flat: readonly Buffer[], grant: string) {
  return Array.from({ length: flat.length / 2 }, (_, i) => ({
    key: { id: String(flat[2 * i]), grant },
    value: flat[2 * i + 1] ?? Buffer.alloc(0),
  }))
}

type Ask = <T>(command: () => Promise<T>) => Promise<T>

/**
 * Commands with a bound in time. Nothing is sent unless the connection is up or coming up: a command that waits in a queue for
 * minutes would write a value long after its time. After a timeout Redis is left alone for a second.
 */
function bounded(redis: Redis): Ask {
  let pausedUntilMs = 0
  return async (command) => {
    const isUp =
      redis.status === 'ready' || redis.status === 'connect' || redis.status === 'connecting' || redis.status === 'wait'
    if (!isUp || performance.now() < pausedUntilMs) throw unavailable()
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, fail) => {
      // An answer that has arrived while this process was busy is read first: that it was late is not the fault of Redis.
      timer = setTimeout(() => setImmediate(() => fail(new Late())), COMMAND_TIMEOUT_MS)
    })
    try {
      return await Promise.race([command(), late])
    } catch (cause) {
      if (cause instanceof Late) pausedUntilMs = performance.now() + PAUSE_MS
      // Text of Redis errors can quote commands, and commands hold values.
      throw cause instanceof GatewayError ? cause : unavailable()
    } finally {
      clearTimeout(timer)
    }
  }
}

class Late extends Error {}

function unavailable(): GatewayError {
  return new GatewayError('store_unavailable', 'The shared lease cache (Redis) cannot be reached.')
}
