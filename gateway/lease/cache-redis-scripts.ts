/** Lua for the Redis lease cache: each script is one atomic step over the keys of one grant. */

/**
 * KEYS value, index, ended, fence; ARGV bytes, ttl ms, fence or '', id.
 * The index lives as long as the longest value in it.
 */
export const SET = `
if redis.call('EXISTS', KEYS[3]) == 1 then return 'ended' end
if ARGV[3] == '' then
  if redis.call('EXISTS', KEYS[1]) == 1 then return 'superseded' end
elseif tonumber(redis.call('GET', KEYS[4]) or '0') > tonumber(ARGV[3]) then
  return 'superseded'
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SADD', KEYS[2], ARGV[4])
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
return 'stored'`

/** KEYS value; ARGV bytes. */
export const REMOVE = `
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0`

/** KEYS lock, fence; ARGV lock ms, fence ms. The counter outlives the lock, so that a late holder finds itself superseded. */
export const TAKE_LOCK = `
if redis.call('EXISTS', KEYS[1]) == 1 then return false end
local fence = redis.call('INCR', KEYS[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
redis.call('SET', KEYS[1], fence, 'NX', 'PX', ARGV[1])
return fence`

/** KEYS lock; ARGV fence, lock ms. */
export const EXTEND = `
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0`

/** KEYS lock; ARGV fence. */
export const UNLOCK = `
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0`

/** KEYS index; ARGV prefix of values. */
export const LIST = `
local found = {}
for _, id in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local value = redis.call('GET', ARGV[1] .. id)
  if value then
    found[#found + 1] = id
    found[#found + 1] = value
  end
end
return found`

/** KEYS index, ended; ARGV prefix of values, ended ms, channel, grant. Values share the hash tag of the declared keys. Tells everybody what it removed. */
export const PURGE = `
redis.call('SET', KEYS[2], '1', 'PX', ARGV[2])
local removed = {}
local told = ARGV[4]
for _, id in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local value = redis.call('GET', ARGV[1] .. id)
  if value then
    removed[#removed + 1] = id
    removed[#removed + 1] = value
    told = told .. ' ' .. redis.sha1hex(value)
    redis.call('DEL', ARGV[1] .. id)
  end
end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[3], told)
return removed`
