/**
 * What is exported is everything, in order, at least once, however the receiver and the gateway fail; no call waits for it; and
 * no secret is in it, in its state, or in what is said about it.
 */
import { mkdtemp, readFile, writeFile } from 'node:fs/promises'
import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest'
import { coveredBy } from '../../gateway/audit/files/follow.ts'
import { controlClient } from '../../gateway/cli/control-client.ts'
import { otlpFaults, plain } from '../records/export/otlp.fixture.ts'
import { findCanaryInTree, newCanary } from '../rig/canary.ts'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'
import { ROOT, type Running, start } from '../rig/process.ts'
import { reverse } from './agent.fixture.ts'
import { type Site, writeSite } from './services.fixture.ts'

const KEY = newCanary().replaceAll(/[^\x21-\x7e]/g, '')
const TOKEN = newCanary().replaceAll(/[^\x21-\x7e]/g, '')

let upstream: EchoUpstream
let receiver: Server
let url: string
/** What the receiver does with a request it has read. */
let answer: (response: ServerResponse) => void
/** Numbers of the entries that it has said yes to, as they came. */
let taken: number[]
let requests: number
let site: Site
let gateway: Running | undefined

const yes = (response: ServerResponse) => void response.setHeader('content-type', 'application/json').end('{}')

beforeAll(async () => {
  upstream = await startEcho({ names: ['notes.keyless.test'] })
  receiver = createServer(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const bytes = Buffer.concat(chunks)
    const body = JSON.parse((request.headers['content-encoding'] === 'gzip' ? gunzipSync(bytes) : bytes).toString())
    expect(otlpFaults(request.url as string, body)).toEqual([])
    expect(request.headers['x-api-key']).toBe(TOKEN)
    requests += 1
    response.on('finish', () => {
      if (response.statusCode === 200 && request.url === '/v1/logs') taken.push(...numbersIn(body))
    })
    answer(response)
  })
  await new Promise<void>((done) => receiver.listen(0, '127.0.0.1', done))
  url = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}`
})

afterAll(async () => {
  receiver.closeAllConnections()
  receiver.close()
  await upstream.stop()
})

afterEach(async () => {
  await gateway?.stop()
  await site.remove()
})

function numbersIn(body: { resourceLogs: { scopeLogs: { logRecords: { attributes: [] }[] }[] }[] }): number[] {
  const records = body.resourceLogs.flatMap(({ scopeLogs }) => scopeLogs.flatMap(({ logRecords }) => logRecords))
  return records.map(({ attributes }) => Number(/:(\d+)$/.exec(String(plain(attributes)['log.record.uid']))?.[1]))
}

async function prepare(): Promise<void> {
  answer = yes
  taken = []
  requests = 0
  const dir = await mkdtemp(join(tmpdir(), 'keyless-token-'))
  await writeFile(join(dir, 'token'), TOKEN)
  site = await writeSite(
    { port: upstream.tlsPort, caPem: upstream.caPem },
    {
      services: [{ name: 'notes', operations: { read: { match: ['GET /echo/{n}'], access: 'read' } } }],
      credentials: { notes: KEY },
      settings: {
        audit: {
          export: {
            otel: {
              format: 'otlp',
              to: { url, headers: { 'x-api-key': { file: join(dir, 'token') } }, addresses: ['127.0.0.1/32'] },
            },
            siem: { format: 'ocsf', to: { file: 'exported/ocsf.jsonl' } },
          },
        },
      },
    },
  )
  const listen = 'listen: { proxy: "127.0.0.1:0", control: "127.0.0.1:0" }'
  await writeFile(join(site.dir, 'keyless.yaml'), `data_dir: ${site.dir}/data\n${listen}\n${site.yaml}`)
}

async function begin() {
  gateway = start(process.execPath, [
    join(ROOT, 'gateway', 'keyless.ts'),
    'start',
    '--config',
    join(site.dir, 'keyless.yaml'),
  ])
  const [, port] = await gateway.says(/proxy +http:\/\/[\d.]+:(\d+)/)
  await gateway.says(/Ctrl-C/)
  const { handle } = await controlClient(join(site.dir, 'data', 'control.sock')).openTask({
    scope: 'notes:*',
    purpose: 'be told',
  })
  const call = async (n: number) => (await reverse(Number(port), handle, { path: `/notes/echo/${n}` })).status
  return { gateway, calls: (count: number) => Promise.all(Array.from({ length: count }, (_, n) => call(n))) }
}

const covered = () => coveredBy(join(site.dir, 'data', 'audit'))

/** Every number of the log, none before an earlier one was there. */
async function everything(): Promise<void> {
  await expect.poll(async () => new Set(taken).size >= (await covered()), { timeout: 15_000 }).toBe(true)
  expect([...new Set(taken)]).toEqual(Array.from({ length: new Set(taken).size }, (_, n) => n))
}

const statuses = (count: number) => new Array(count).fill(200)

it('arrives whole and in order after a receiver that fails, breaks off and dawdles, while no call notices', {
  timeout: 60_000,
}, async () => {
  await prepare()
  answer = (response) => void response.writeHead(503, { 'retry-after': '1' }).end()
  const { gateway: running, calls } = await begin()
  expect(await calls(20)).toEqual(statuses(20))
  await running.says(/warning: export otel: waits and tries again: HTTP 503/)
  const startedMs = performance.now()
  answer = (response) => void response.destroy()
  expect(await calls(20)).toEqual(statuses(20))
  await expect.poll(() => requests).toBeGreaterThan(1)
  answer = (response) => void setTimeout(() => yes(response), 300)
  expect(await calls(20)).toEqual(statuses(20))
  expect(performance.now() - startedMs).toBeLessThan(10_000)
  await running.says(/warning: export otel: works again/)
  await everything()
  expect(await findCanaryInTree(join(site.dir, 'data', 'export'), TOKEN)).toEqual([])
  expect(await findCanaryInTree(join(site.dir, 'exported'), KEY)).toEqual([])
  expect(running.stdout + running.stderr).not.toContain(TOKEN)
})

it('loses nothing when the gateway is killed while the receiver has entries that it has not confirmed', {
  timeout: 60_000,
}, async () => {
  await prepare()
  const first = await begin()
  expect(await first.calls(10)).toEqual(statuses(10))
  await everything()
  const before = requests
  let held: ServerResponse | undefined
  answer = (response) => {
    held = response
  }
  expect(await first.calls(10)).toEqual(statuses(10))
  await expect.poll(() => requests).toBeGreaterThan(before)
  first.gateway.kill('SIGKILL')
  await first.gateway.ended
  held?.destroy()
  answer = yes
  await begin()
  await everything()
  const lines = (await readFile(join(site.dir, 'exported', 'ocsf.jsonl'), 'utf8'))
    .split('\n')
    .filter((line) => line.endsWith('}'))
  const uids = new Set(lines.map((line) => JSON.parse(line).metadata.sequence as number))
  expect([...uids]).toEqual(Array.from({ length: uids.size }, (_, n) => n))
})
