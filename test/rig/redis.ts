/**
 * A real Redis: the one at `REDIS_URL`, else `redis-server` on PATH, else a container. Without any, tests that need it fail:
 * in CI that is a broken machine, elsewhere a message says what to install.
 */
import { randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { freePort, untilListening } from './ports.ts'
import { type Running, start } from './process.ts'

export interface TestRedis {
  readonly url: string
  /** Different for each caller, so that test files can share a server. */
  readonly prefix: string
  /** Absent where the server is not ours to stop (`REDIS_URL`). */
  readonly pause?: () => void
  readonly resume?: () => void
  stop(): Promise<void>
}

export async function startRedis(): Promise<TestRedis> {
  const prefix = `test-${randomUUID()}:`
  const url = process.env.REDIS_URL
  if (url) return { url, prefix, stop: async () => {} }
  if (onPath('redis-server')) return { prefix, ...(await startServer()) }
  if (process.env.CI) throw new Error('CI needs a real Redis: set REDIS_URL or install redis-server (.ci/run does).')
  return { prefix, ...(await startContainer()) }
}

/** Nothing is written to disk, and nobody but this machine can connect. */
async function startServer(): Promise<Omit<TestRedis, 'prefix'>> {
  const dir = await mkdtemp(join(tmpdir(), 'keyless-redis-'))
  const port = await freePort()
  const options = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', dir]
  const server: Running = start('redis-server', options)
  await Promise.race([
    untilListening(port),
    server.ended.then((ended) => Promise.reject(new Error(`redis-server ended: ${ended.stdout}${ended.stderr}`))),
  ])
  return {
    url: `redis://127.0.0.1:${port}`,
    pause: () => server.kill('SIGSTOP'),
    resume: () => server.kill('SIGCONT'),
    async stop() {
      server.kill('SIGCONT')
      await server.stop()
      await rm(dir, { recursive: true, force: true })
    },
  }
}

async function startContainer(): Promise<Omit<TestRedis, 'prefix'>> {
  try {
    const { GenericContainer } = await import('testcontainers')
    const container = await new GenericContainer('redis:7').withExposedPorts(6379).start()
    return {
      url: `redis://${container.getHost()}:${container.getMappedPort(6379)}`,
      stop: async () => void (await container.stop()),
    }
  } catch (cause) {
    throw new Error('These tests need a real Redis: install redis-server, or start Docker, or set REDIS_URL.', {
      cause,
    })
  }
}

function onPath(command: string): boolean {
  return (process.env.PATH ?? '').split(delimiter).some((dir) => dir !== '' && existsSync(join(dir, command)))
}
