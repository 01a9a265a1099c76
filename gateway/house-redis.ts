/** The part of the composition root that reaches Redis. */
import { Redis } from 'ioredis'

/** One connection for leases and grants. A command fails at once while Redis is away: callers fail closed instead of hanging. */
export async function connectRedis(url: string): Promise<Redis> {
  const redis = new Redis(url, {
    lazyConnect: true,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    connectTimeout: 2_000,
    commandTimeout: 1_000,
    enableAutoPipelining: true,
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
    redis.disconnect()
    const { host, port } = redis.options
    throw new Error(
      `Redis at ${host}:${port} cannot be used (${why || (cause as Error).name}). Start it, or correct redis.url in the settings.`,
      { cause },
    )
  }
}
