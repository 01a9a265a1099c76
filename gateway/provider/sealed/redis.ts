/**
 * Sealed values of replicas, in Redis: one hash, each step one script, so that it also runs on Redis Cluster. Values are sealed before
 * they come here. Needs persistence (`appendonly yes`) and `maxmemory-policy noeviction`: what Redis loses, a human connects anew.
 */
import type { Cluster, Redis } from 'ioredis'
import { answered } from '../../redis-answer.ts'
import { type SealedPlace, type SealedRow, type SealedRows, sealedStoreAway } from './sealed.ts'

/** A field holds `version claimed-until-ms base64`. */
const PARTS = `
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local found = redis.call('HGET', KEYS[1], ARGV[1])
local version, claimed, value
if found then version, claimed, value = string.match(found, '^(%d+) (%d+) (.*)$') end
local function put(v, c, text)
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %.0f %s', v, c, text))
end`

/** ARGV place, value or '', expected. A new row begins above every version that a removed one of this name can have had. */
const WRITE = `${PARTS}
if not found then
  if ARGV[3] ~= '0' or ARGV[2] == '' then return false end
  put(now, 0, ARGV[2])
  return string.format('%.0f', now)
end
if version ~= ARGV[3] then return false end
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  return version
end
put(tonumber(version) + 1, 0, ARGV[2])
return string.format('%.0f', tonumber(version) + 1)`

/** ARGV place, ms. */
const CLAIM = `${PARTS}
if not found then return false end
if tonumber(claimed) > now then return 'taken' end
put(tonumber(version) + 1, now + tonumber(ARGV[2]), value)
return redis.call('HGET', KEYS[1], ARGV[1])`

/** @param o.redis stays the caller's to close. @param o.prefix first part of the key. Default `keyless:`. */
export function openRedisSealed(o: { readonly redis: Redis | Cluster; readonly prefix?: string }): SealedRows {
  const { redis } = o
  const key = `${o.prefix ?? 'keyless:'}sealed`
  const run = (script: string, ...given: (string | number)[]) =>
    bounded(redis.eval(script, 1, key, ...given) as Promise<string | null>)
  return {
    async read(place) {
      const found = await bounded(redis.hget(key, fieldOf(place)))
      return found === null ? undefined : rowOf(found)
    },
    async write(place, value, expected) {
      const version = await run(WRITE, fieldOf(place), value?.toString('base64') ?? '', expected)
      return version === null ? undefined : Number(version)
    },
    async claim(place, forMs) {
      const found = await run(CLAIM, fieldOf(place), Math.ceil(forMs))
      if (found === null) return undefined
      return found === 'taken' ? found : rowOf(found)
    },
    places: async () => (await bounded(redis.hkeys(key))).map(placeOf),
    close: async () => {},
  }
}

function fieldOf({ tenant, name }: SealedPlace): string {
  return JSON.stringify([tenant, name])
}

function placeOf(field: string): SealedPlace {
  const [tenant = '', name = ''] = JSON.parse(field) as string[]
  return { tenant, name }
}

function rowOf(found: string): SealedRow {
  const [version, , value = ''] = found.split(' ')
  return { version: Number(version), value: Buffer.from(value, 'base64') }
}

function bounded<T>(work: Promise<T>): Promise<T> {
  return answered(work, () => sealedStoreAway('Redis')) // texts of Redis quote commands
}
