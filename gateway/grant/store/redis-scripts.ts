/**
 * Lua for the Redis store of grants: each script is one atomic step. Keys that a script finds by itself (`ARGV` prefix) carry
 * the hash tag of the declared ones: all of a tenant's are on one node of a Cluster.
 */

/** KEYS grant, grants of the task; ARGV stored, marks as JSON, task, ttl ms, expiry s, id, now s, key of the handle or ''. */
export const CREATE = `
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'stored', ARGV[1], 'marks', ARGV[2], 'task', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
if ARGV[8] ~= '' then redis.call('SET', ARGV[8], ARGV[6], 'PX', ARGV[4]) end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[7])
redis.call('ZADD', KEYS[2], ARGV[5], ARGV[6])
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[2], ARGV[4]) end
return 1`

const STANDING = `
local function standing(key, prefix)
  local found = redis.call('HMGET', key, 'stored', 'marks', 'task')
  if not found[1] then return false end
  local ended = false
  for _, mark in ipairs(cjson.decode(found[2])) do
    ended = redis.call('GET', prefix .. 'ended:' .. mark)
    if ended then break end
  end
  local orders = redis.call('HGET', prefix .. 'orders', 'version')
  return { found[1], ended, redis.call('HGET', prefix .. 'task:' .. found[3], 'suspended'), orders }
end`

/** KEYS grant; ARGV prefix. @returns stored, reason, '1' when suspended, version of the orders. */
export const BY_ID = `${STANDING}
return standing(KEYS[1], ARGV[1])`

/** KEYS grants; ARGV prefix. @returns for each reason, '1' when suspended and version of the orders, or nil. */
export const STATES = `${STANDING}
local states = {}
for i, key in ipairs(KEYS) do
  local found = standing(key, ARGV[1])
  states[i] = found and { found[2], found[3], found[4] }
end
return states`

/** KEYS handle; ARGV prefix. */
export const BY_HANDLE = `${STANDING}
local id = redis.call('GET', KEYS[1])
return id and standing(ARGV[1] .. 'grant:' .. id, ARGV[1])`

/** KEYS grants of the task; ARGV prefix, now s. */
export const GRANTS_OF = `${STANDING}
local living = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[2], '+inf')) do
  local found = standing(ARGV[1] .. 'grant:' .. id, ARGV[1])
  if found and not found[2] then living[#living + 1] = found[1] end
end
return living`

/** KEYS end of the mark, living tasks, heartbeats; ARGV reason, ttl ms, mark, channel. */
export const END = `
redis.call('ZREM', KEYS[2], ARGV[3])
redis.call('ZREM', KEYS[3], ARGV[3])
local isFirst = redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2], 'NX')
redis.pcall('PUBLISH', ARGV[4], ARGV[3])
return isFirst and 1 or 0`

/** KEYS orders; ARGV expected version, version, what it is about, body, channel. */
export const PUT_ORDER = `
if (redis.call('HGET', KEYS[1], 'version') or '0') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[2], ARGV[3], ARGV[4])
redis.pcall('PUBLISH', ARGV[5], '')
return 1`

/** KEYS orders; ARGV expected version, what they are about. */
export const FORGET_ORDERS = `
if (redis.call('HGET', KEYS[1], 'version') or '0') ~= ARGV[1] then return 0 end
for i = 2, #ARGV do redis.call('HDEL', KEYS[1], ARGV[i]) end
return 1`

/**
 * KEYS task, end of the task, living tasks, heartbeats;
 * ARGV stored, version, expected version or '', suspended, ttl ms, expiry s, id, now s, now ms if watched or '', channel.
 */
export const SAVE_TASK = `
if (redis.call('HGET', KEYS[1], 'version') or '') ~= ARGV[3] or redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'stored', ARGV[1], 'version', ARGV[2], 'suspended', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', ARGV[8])
redis.call('ZADD', KEYS[3], ARGV[6], ARGV[7])
if ARGV[9] == '' then redis.call('ZREM', KEYS[4], ARGV[7]) else redis.call('ZADD', KEYS[4], 'NX', ARGV[9], ARGV[7]) end
if ARGV[4] == '1' then redis.pcall('PUBLISH', ARGV[10], ARGV[7]) end
return 1`

/** KEYS living tasks; ARGV prefix, now s. */
export const TASKS = `
local living = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[2], '+inf')) do
  living[#living + 1] = redis.call('HGET', ARGV[1] .. 'task:' .. id, 'stored') or nil
end
return living`

/**
 * KEYS one a charge; ARGV four a charge: 'count', limit, by, ttl ms; or 'rate', n, µs, ms; or 'past', what it counts as JSON, '', ttl ms.
 * A rate is the list of its last n calls, newest first, in µs of this server: replicas need not agree on the time.
 */
export const SPEND = `
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
for i, key in ipairs(KEYS) do
  local kind, limit, by = ARGV[4 * i - 3], tonumber(ARGV[4 * i - 2]), tonumber(ARGV[4 * i - 1])
  if kind == 'past' then
    for field, seen in pairs(cjson.decode(ARGV[4 * i - 2]).seen) do
      if tonumber(redis.call('HGET', key, field) or '0') > seen then return i - 1 end
    end
  elseif kind == 'rate' then
    local nth = redis.call('LINDEX', key, limit - 1)
    if nth and now - nth < by then return i - 1 end
  elseif tonumber(redis.call('GET', key) or '0') + math.max(by, 1) > limit then
    return i - 1
  end
end
for i, key in ipairs(KEYS) do
  local limit, by, ttl = ARGV[4 * i - 2], tonumber(ARGV[4 * i - 1]), tonumber(ARGV[4 * i])
  if ARGV[4 * i - 3] == 'past' then
    local call = cjson.decode(limit)
    for _, field in ipairs(call.plain) do redis.call('HINCRBY', key, field, 1) end
    for _, field in ipairs(call.kinds) do
      if redis.call('HINCRBY', key, field, 1) == 1 then redis.call('HINCRBY', key, 'd', 1) end
    end
    if redis.call('PTTL', key) < ttl then redis.call('PEXPIRE', key, ttl) end
  elseif ARGV[4 * i - 3] == 'rate' then
    redis.call('LPUSH', key, string.format('%.0f', now))
    redis.call('LTRIM', key, 0, limit - 1)
    redis.call('PEXPIRE', key, ttl)
  elseif by > 0 then
    redis.call('INCRBY', key, by)
    if redis.call('PTTL', key) < ttl then redis.call('PEXPIRE', key, ttl) end
  end
end
return -1`

/** KEYS one a charge; ARGV two a charge: by, ttl ms. */
export const ADD = `
for i, key in ipairs(KEYS) do
  redis.call('INCRBY', key, ARGV[2 * i - 1])
  if redis.call('PTTL', key) < tonumber(ARGV[2 * i]) then redis.call('PEXPIRE', key, ARGV[2 * i]) end
end`

/** KEYS rate; ARGV µs. @returns calls that still count. */
export const RECENT = `
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local calls = redis.call('LRANGE', KEYS[1], 0, -1)
for i, at in ipairs(calls) do
  if now - at >= tonumber(ARGV[1]) then return i - 1 end
end
return #calls`
