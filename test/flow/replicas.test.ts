/** Two replicas on one Redis: one credential between them, and a task that ends on both within a second. */
import { mkdir } from 'node:fs/promises'
import { setTimeout as pause } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { OpenedTask } from '../../gateway/protocol/control.ts'
import { findCanary } from '../rig/canary.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { run } from '../rig/process.ts'
import { startRedis, type TestRedis } from '../rig/redis.ts'
import { startUpstream, type TestUpstream } from '../rig/upstream.ts'

let redis: TestRedis
let upstream: TestUpstream
let replicas: [TestGateway, TestGateway]

beforeAll(async () => {
  redis = await startRedis()
  upstream = await startUpstream()
  const keys = `${upstream.dir}/keys`
  await mkdir(keys, { mode: 0o700 })
  const yaml = `${await upstream.settings()}\nkeys_dir: ${keys}\npublic_url: http://gateway.keyless.test\nredis: { url: "${redis.url}" }\n`
  replicas = [await startGateway(yaml), await startGateway(yaml)]
})

afterAll(async () => {
  for (const replica of replicas ?? []) await replica.stop()
  await upstream.stop()
  await redis.stop()
})

const call = async (replica: TestGateway, task: OpenedTask, path = '/notes', method = 'GET') => {
  const proxy = `http://task:${task.handle}@127.0.0.1:${replica.proxyPort}`
  const ended = await run('curl', [
    '-sS',
    '-X',
    method,
    '-o',
    '/dev/null',
    '-w',
    '%{http_code}',
    '--cacert',
    `${replica.settings.keysDir}/ca.pem`,
    '-x',
    proxy,
    upstream.facts.api + path,
  ])
  return ended.stdout
}

it('knows a task that the other replica opened, and shares its credential', async () => {
  const before = upstream.issuedTokens
  const task = await replicas[0].openTask('demo:*', 'be known everywhere')
  expect(await call(replicas[0], task)).toBe('200')
  expect(await call(replicas[1], task)).toBe('200')
  expect(upstream.issuedTokens).toBe(before + 1)
})

it('ends a task on both replicas within a second', async () => {
  const task = await replicas[0].openTask('demo:*', 'end everywhere')
  expect(await call(replicas[1], task)).toBe('200')
  await replicas[0].control.completeTask(task.task)
  expect(await call(replicas[0], task)).toBe('000') // 407 on the CONNECT: curl has no answer to show
  await pause(1_000)
  expect(await call(replicas[1], task)).toBe('000')
})

it('lets a single-use operation through once, whichever replicas are asked at once', async () => {
  const task = await replicas[0].openTask('demo:*', 'delete one note')
  const before = upstream.counts.get('DELETE /notes/:id') ?? 0
  const codes = await Promise.all(
    Array.from({ length: 20 }, (_, n) => call(replicas[n % 2 ? 0 : 1], task, '/notes/1', 'DELETE')),
  )
  expect(codes.filter((code) => code === '403')).toHaveLength(19)
  expect((upstream.counts.get('DELETE /notes/:id') ?? 0) - before).toBe(1)
})

it('keeps nothing in Redis that can be read as a credential', async () => {
  const task = await replicas[0].openTask('demo:*', 'leave a lease behind')
  await call(replicas[0], task)
  const client = new Redis(redis.url)
  try {
    const keys = await client.keys('*')
    const all = await Promise.all(keys.map((key) => client.dump(key)))
    const text = all.map(String).join('\n')
    expect(keys.some((key) => key.includes('lease'))).toBe(true)
    expect(text).not.toMatch(/eyJ[\w-]+\.eyJ/)
    expect(findCanary(text + keys.join('\n'), task.handle)).toEqual([])
  } finally {
    client.disconnect()
  }
})

it('refuses with 503 while Redis is away, and recovers by itself', async () => {
  const task = await replicas[0].openTask('demo:*', 'meet a dead Redis')
  expect(await call(replicas[1], task)).toBe('200')
  const ready = await fetch(`${replicas[1].gateway.control}/health/ready`)
  expect(await ready.json()).toMatchObject({ ready: true, checks: { redis: true } })
  redis.pause?.()
  await pause(1_100) // what was read within the last second may still be believed
  const started = Date.now()
  const refused = await run('curl', [
    '-sS',
    '-i',
    '-H',
    `Authorization: Bearer ${task.handle}`,
    `http://127.0.0.1:${replicas[1].proxyPort}/demo/notes`,
  ])
  expect(refused.stdout).toMatch(/^HTTP\/1\.1 503 /)
  expect(refused.stdout).toContain('store_unavailable')
  expect(Date.now() - started).toBeLessThan(5_000)
  redis.resume?.()
  await expect.poll(() => call(replicas[1], task), { timeout: 10_000 }).toBe('200')
})
