/** The part of the composition root that reaches Redis, and knows what it is trusted with. */
import { Redis } from 'ioredis'

/**
 * One connection for leases and grants. A command fails at once while Redis is away: callers fail closed instead of hanging.
 * @param isNeeded false: what can be done without it is worth a start, and it is tried again in the background.
 */
export async function connectRedis(url: string, isNeeded = true): Promise<Redis> {
  const redis = new Redis(url, {
    lazyConnect: true,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    connectTimeout: 2_000,
    commandTimeout: 1_000,
    enableAutoPipelining: true,
    // It has become a replica: whoever took its place answers at the same address, on a new connection.
    reconnectOnError: ({ message }) => message.includes('READONLY'),
  })
  let why = ''
  // Later ones are reported where a command fails; without a listener they would end the process.
  redis.on('error', (cause: NodeJS.ErrnoException) => {
    why = cause.code ?? cause.name
  })
  try {
    await redis.connect()
    return redis
  } catch (cause) {
    if (!isNeeded) return redis
    redis.disconnect()
    const { host, port } = redis.options
    throw new Error(
      `Redis at ${host}:${port} cannot be used (${why || (cause as Error).name}). Start it, or correct redis.url in the settings.`,
      { cause },
    )
  }
}

/** One sentence for each thing in which this Redis would lose what replicas rely on. @param keepsSealed the sealed store is in it. */
export async function redisWarnings(redis: Redis, keepsSealed: boolean): Promise<string[]> {
  const info = await redis.info().catch(() => '') // an ACL may keep it from us
  const of = (name: string) => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1]
  const { host, port } = redis.options
  const policy = of('maxmemory_policy')
  const lost = keepsSealed ? 'sealed secrets, connections of humans and ended grants' : 'ended grants'
  return [
    ...(policy === undefined || policy === 'noeviction'
      ? []
      : [`Redis at ${host}:${port} may evict ${lost} (maxmemory-policy ${policy}). Set it to noeviction.`]),
    ...(of('aof_enabled') === '0'
      ? [
          `Redis at ${host}:${port} loses ${lost} when it restarts (appendonly no). Set appendonly to yes${keepsSealed ? ', or keep sealed values in Postgres' : ''}.`,
        ]
      : []),
  ]
}
