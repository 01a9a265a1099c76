/** Redis for real: `REDIS_URL`, else `redis-server` on PATH on a free port, else a container. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { Redis } from 'ioredis'

export interface RedisServer {
  readonly url: string
  /** The process, when this fixture started one: tests stop and suspend it. */
  readonly process: ChildProcess | undefined
  stop(): Promise<void>
}

export async function startRedis(): Promise<RedisServer> {
  const url = process.env.REDIS_URL
  if (url !== undefined) return { url, process: undefined, stop: async () => undefined }
  return (await startLocalRedis()) ?? (await startContainer())
}

/** A Redis of this test's own, which it may kill; undefined when there is no `redis-server`. */
export async function startLocalRedis(): Promise<RedisServer | undefined> {
  const port = await freePort()
  const args = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no']
  const child = spawn('redis-server', args, { stdio: 'ignore' })
  const isStarted = await Promise.race([once(child, 'spawn').then(() => true), once(child, 'error').then(() => false)])
  if (!isStarted) return undefined
  const url = `redis://127.0.0.1:${port}`
  await isAnswering(url)
  return {
    url,
    process: child,
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return
      const ended = once(child, 'exit')
      child.kill('SIGKILL')
      await ended
    },
  }
}

async function startContainer(): Promise<RedisServer> {
  const { GenericContainer } = await import('testcontainers')
  const container = await new GenericContainer('redis:7-alpine').withExposedPorts(6379).start()
  const url = `redis://${container.getHost()}:${container.getMappedPort(6379)}`
  return { url, process: undefined, stop: async () => void (await container.stop()) }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

async function isAnswering(url: string): Promise<void> {
  const redis = new Redis(url, { retryStrategy: () => 20, maxRetriesPerRequest: null })
  redis.on('error', () => undefined)
  await redis.ping()
  redis.disconnect()
}

/** A connection as `house.ts` makes it: commands fail at once while Redis is away. */
export async function connect(url: string): Promise<Redis> {
  const redis = new Redis(url, {
    lazyConnect: true,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    commandTimeout: 1_000,
    enableAutoPipelining: true,
    retryStrategy: () => 20,
  })
  redis.on('error', () => undefined)
  await redis.connect()
  return redis
}
