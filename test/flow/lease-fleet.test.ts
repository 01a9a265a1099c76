/** Two replicas, a real Redis and an issuer that is slow: one request, whoever asks how often, and one more when the replica that asked is killed. */
import { mkdir, writeFile } from 'node:fs/promises'
import type { ServerResponse } from 'node:http'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { controlClient } from '../../gateway/cli/control-client.ts'
import { reverse } from '../invariant/agent.fixture.ts'
import { type Site, writeSite } from '../invariant/services.fixture.ts'
import { type FalseServer, json, startFalseServer } from '../provider/authorization-server.fixture.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { ROOT, type Running, start } from '../rig/process.ts'
import { startRedis, type TestRedis } from '../rig/redis.ts'
import { type QuietUpstream, startQuiet } from './quiet.fixture.ts'

let redis: TestRedis
let upstream: QuietUpstream
let issuer: FalseServer
let site: Site
let replicas: TestGateway[]
let mortal: Running
let mortalPort: number
/** Token requests that wait for their answer. */
const waiting: ServerResponse[] = []

beforeAll(async () => {
  redis = await startRedis()
  upstream = await startQuiet(['notes.keyless.test'])
  issuer = await startFalseServer()
  issuer.answer = (_request, response) => void waiting.push(response)
  site = await writeSite(upstream, {
    services: [{ name: 'notes', operations: { read: { match: ['GET /list'], access: 'read' } } }] as Parameters<
      typeof writeSite
    >[1]['services'],
    credentials: {
      notes: {
        provider: 'oauth_client_credentials',
        addresses: ['127.0.0.1/32'],
        token_url: issuer.tokenUrl,
        client_id: 'keyless',
        client_auth: 'client_secret_basic',
        client_secret: { env: 'PATH' },
      },
    },
  })
  const keys = join(site.dir, 'keys')
  await mkdir(keys, { mode: 0o700 })
  const yaml = `${site.yaml}\nkeys_dir: ${keys}\npublic_url: http://gateway.keyless.test\nredis: { url: "${redis.url}" }\n`
  replicas = [await startGateway(yaml), await startGateway(yaml)]
  const listen = 'listen: { proxy: "127.0.0.1:0", control: "127.0.0.1:0" }'
  await writeFile(join(site.dir, 'mortal.yaml'), `data_dir: ${site.dir}/mortal\n${listen}\n${yaml}`)
  const command = [join(ROOT, 'gateway', 'keyless.ts'), 'start', '--config', join(site.dir, 'mortal.yaml')]
  mortal = start(process.execPath, command)
  mortalPort = Number((await mortal.says(/proxy +http:\/\/[\d.]+:(\d+)/))[1])
  await mortal.says(/Ctrl-C/)
}, 60_000)

afterAll(async () => {
  mortal?.kill('SIGKILL')
  for (const replica of replicas ?? []) await replica.stop()
  await issuer.stop()
  await upstream.stop()
  await redis.stop()
  await site.remove()
})

const give = (response: ServerResponse | undefined, token: string) =>
  response && json(response, 200, { access_token: token, token_type: 'Bearer', expires_in: 600 })

it('makes one request for five hundred calls on two replicas, however slow the issuer and whoever leaves', async () => {
  const [one, two] = replicas as [TestGateway, TestGateway]
  const task = await one.openTask('notes:read', 'ask together')
  const leaving = new AbortController()
  const ask = (i: number): Promise<number> => {
    const port = i % 2 === 0 ? one.proxyPort : two.proxyPort
    return i === 0
      ? fetch(`http://127.0.0.1:${port}/notes/list`, {
          headers: { authorization: `Bearer ${task.handle}` },
          signal: leaving.signal,
        }).then(
          () => 0,
          () => 0,
        )
      : reverse(port, task.handle, { path: '/notes/list' }).then(({ status }) => status)
  }
  const calls: Promise<number>[] = []
  while (calls.length < 500) {
    calls.push(ask(calls.length))
    // Agents and both replicas share this process: all at once, none would hear in time what Redis says.
    if (calls.length % 10 === 0) await new Promise(setImmediate)
  }
  await expect.poll(() => waiting.length).toBe(1)
  leaving.abort()
  await new Promise((done) => setTimeout(done, 2_500)) // longer than a lock that nobody keeps alive
  expect(waiting).toHaveLength(1)
  give(waiting.pop(), 'one-token-for-all-of-them')
  const statuses = await Promise.all(calls)
  expect(statuses.filter((status) => status === 200)).toHaveLength(499)
  expect(issuer.requests).toHaveLength(1)
}, 60_000)

it('takes over from a replica that was killed while it asked, within two seconds and a little', async () => {
  const [one] = replicas as [TestGateway, TestGateway]
  const task = await controlClient(join(site.dir, 'mortal', 'control.sock')).openTask({
    purpose: 'outlive a replica',
    scope: 'notes:read',
  })
  const lost = reverse(mortalPort, task.handle, { path: '/notes/list' }).catch(() => undefined)
  await expect.poll(() => waiting.length).toBe(1)
  const kept = reverse(one.proxyPort, task.handle, { path: '/notes/list' })
  mortal.kill('SIGKILL')
  const killedMs = performance.now()
  await lost
  await expect.poll(() => waiting.length, { timeout: 10_000, interval: 20 }).toBe(2)
  const tookMs = performance.now() - killedMs
  give(waiting[1], 'token-of-the-survivor')
  expect((await kept).status).toBe(200)
  expect(tookMs).toBeLessThan(4_000)
}, 60_000)
