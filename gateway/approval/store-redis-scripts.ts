/**
 * Lua for the Redis store of approvals: each script is one atomic step. Keys that a script finds by itself (`ARGV` prefix) carry the
 * hash tag of the declared ones: all of a tenant's are on one node of a Cluster.
 */

const STANDING = `
local function standing(slot, prefix)
  local id = redis.call('GET', slot)
  return id and redis.call('HGET', prefix .. 'one:' .. id, 'stored')
end`

/** KEYS slot; ARGV prefix. */
export const IN_SLOT = `${STANDING}
return standing(KEYS[1], ARGV[1])`

/** KEYS approval. */
export const BY_ID = `return redis.call('HGET', KEYS[1], 'stored')`

/** Give a key at least so many milliseconds more. */
const LAST = `
local function last(key, ms)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, ms) end
end`

/**
 * KEYS slot, pending, pending of the agent, approval; ARGV id, stored, version, until ms, keep ms, now ms, most, prefix.
 * @returns 1, 0 when the agent has too many, or what is in the slot.
 */
export const ADD = `${STANDING}${LAST}
local first = standing(KEYS[1], ARGV[8])
if first then return first end
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', ARGV[6])
if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[7]) then return 0 end
local life, keep = ARGV[4] - ARGV[6], ARGV[5] - ARGV[6]
if life <= 0 then return 0 end
redis.call('HSET', KEYS[4], 'stored', ARGV[2], 'version', ARGV[3])
redis.call('PEXPIRE', KEYS[4], math.ceil(keep))
redis.call('SET', KEYS[1], ARGV[1], 'PX', math.ceil(life))
for i = 2, 3 do
  redis.call('ZADD', KEYS[i], ARGV[4], ARGV[1])
  last(KEYS[i], math.ceil(keep))
end
return 1`

/**
 * KEYS slot, pending, pending of the agent, approval; ARGV id, stored, version, until ms or 0, keep ms, now ms, '1' when pending,
 * channel, message.
 */
export const CHANGE = `${LAST}
if redis.call('HGET', KEYS[4], 'version') ~= tostring(ARGV[3] - 1) then return 0 end
redis.call('HSET', KEYS[4], 'stored', ARGV[2], 'version', ARGV[3])
redis.call('PEXPIRE', KEYS[4], math.max(1, math.ceil(ARGV[5] - ARGV[6])))
for i = 2, 3 do
  if ARGV[7] == '1' then redis.call('ZADD', KEYS[i], ARGV[4], ARGV[1]) else redis.call('ZREM', KEYS[i], ARGV[1]) end
end
local holder = redis.call('GET', KEYS[1])
if not holder or holder == ARGV[1] then
  local life = ARGV[4] - ARGV[6]
  if life > 0 then redis.call('SET', KEYS[1], ARGV[1], 'PX', math.ceil(life)) else redis.call('DEL', KEYS[1]) end
end
redis.call('PUBLISH', ARGV[8], ARGV[9])
return 1`

const FOUND = `
local function found(ids, prefix)
  local all = {}
  for _, id in ipairs(ids) do
    local stored = redis.call('HGET', prefix .. 'one:' .. id, 'stored')
    if stored then all[#all + 1] = stored end
  end
  return all
end`

/** KEYS pending; ARGV prefix. */
export const PENDING = `${FOUND}
return found(redis.call('ZRANGE', KEYS[1], 0, -1), ARGV[1])`

/** KEYS pending; ARGV prefix, now ms. */
export const LAPSED = `${FOUND}
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[2])
return found(ids, ARGV[1])`
