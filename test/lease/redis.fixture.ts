/** Redis for real: `REDIS_URL`, else `redis-server` on PATH on a free port, else a container. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer, connect as dial, type Socket } from 'node:net'
import { Redis } from 'ioredis'

export interface RedisServer {
  readonly url: string
  stop(): Promise<void>
}

export async function startRedis(): Promise<RedisServer> {
  const url = process.env.REDIS_URL
  if (url !== undefined) return { url, stop: async () => undefined }
  return (await startLocalRedis()) ?? (await startContainer())
}

async function startLocalRedis(): Promise<RedisServer | undefined> {
  const port = await freePort()
  const args = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no']
  const child = spawn('redis-server', args, { stdio: 'ignore' })
  const isStarted = await Promise.race([once(child, 'spawn').then(() => true), once(child, 'error').then(() => false)])
  if (!isStarted) return undefined
  const url = `redis://127.0.0.1:${port}`
  await isAnswering(url)
  return {
    url,
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
  return { url, stop: async () => void (await container.stop()) }
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

export interface FragileLink {
  /** The same Redis, through this link. */
  readonly url: string
  /** Bytes stay where they are, connections stay open: a Redis that hangs. */
  freeze(): void
  /** Connections end and none is accepted: a Redis that is down. */
  cut(): Promise<void>
}

/** A way to Redis that a test can break. */
export async function fragileLink(url: string): Promise<FragileLink> {
  const far = new URL(url)
  const sockets = new Set<Socket>()
  const server = createServer((near) => {
    const upstream = dial(Number(far.port) || 6379, far.hostname)
    for (const [from, to] of [
      [near, upstream],
      [upstream, near],
    ] as const) {
      sockets.add(from)
      from.on('error', () => to.destroy())
      from.pipe(to)
    }
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  const through = new URL(url)
  through.host = `127.0.0.1:${address.port}`
  return {
    url: through.href,
    freeze() {
      for (const socket of sockets) socket.unpipe().pause()
    },
    async cut() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}
