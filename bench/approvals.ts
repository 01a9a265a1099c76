/**
 * `npm run bench:approvals`: a thousand calls that wait for a human, each for an approval of its own, at a gateway in a process of its
 * own; alone, and with Redis. Takes about half a minute and writes bench/APPROVALS.md. Needs Linux; redis-server for the second row.
 */
import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { Agent, request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { stringify } from 'yaml'
import { type ControlClient, controlClient } from '../gateway/cli/control-client.ts'
import { startEcho } from '../test/rig/echo.ts'
import { ROOT, type Running, start } from '../test/rig/process.ts'
import { startRedis } from '../test/rig/redis.ts'
import { cpuMicroseconds } from './processor.ts'
import { machine } from './report.ts'
import { load, quantiles, row } from './timing.ts'

const AGENTS = 10
const EACH = 100
const BODY = 'x'.repeat(1024)
/** Humans who decide at once. */
const LANES = 16
/** Time in which nothing happens but waiting. */
const QUIET_MS = 2_000

const echo = await startEcho({ names: ['notes.keyless.test'] })
const redis = await startRedis()
const lines = [
  '# Held approvals, measured',
  '',
  'Written by `npm run bench:approvals`; do not edit. 1,000 calls of ten agents, 200 a second, each with a body of 1 KiB and an approval of its own; 16 people decide at once.',
  '',
  ...(await machine()),
  `- load of the machine before: ${load()}`,
  '',
  row(
    '',
    'asked, per second',
    'KB of memory a held call',
    'CPU while they wait',
    'decisions, per second',
    'ms from a yes to the answer, p50 / p99',
    'lost',
  ),
  row('---', '--:', '--:', '--:', '--:', '--:', '--:'),
  await measured('SQLite', undefined),
  await measured('Redis', redis.url),
]
const text = `${lines.join('\n')}\n`
process.stdout.write(text)
await writeFile(join(ROOT, 'bench', 'APPROVALS.md'), text)
await redis.stop()
await echo.stop()

async function measured(name: string, redisUrl: string | undefined): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'keyless-bench-'))
  const { gateway, port } = await begin(dir, redisUrl)
  try {
    return row(name, ...(await run(controlClient(join(dir, 'data', 'control.sock')), gateway.pid, port)))
  } finally {
    await gateway.stop()
    await rm(dir, { recursive: true, force: true })
  }
}

async function begin(dir: string, redisUrl: string | undefined): Promise<{ gateway: Running; port: number }> {
  const write = async (file: string, content: string) => {
    await writeFile(join(dir, file), content, { mode: 0o600 })
    return join(dir, file)
  }
  const service = {
    ...{
      name: 'notes',
      title: 'Notes',
      hosts: ['notes.keyless.test'],
      ports: [echo.tlsPort],
      addresses: ['127.0.0.1/32'],
    },
    slots: [{ in: 'header', name: 'authorization', prefix: 'Bearer ' }],
    operations: { ask: { match: ['POST /echo/ask'], access: 'write' } },
  }
  const policy =
    '@id("ask") @owner("bench") @approval("human") permit (principal, action, resource is Endpoint);\n@id("mint") @owner("bench") permit (principal, action, resource is Service);\n'
  const settings = {
    data_dir: join(dir, 'data'),
    listen: { proxy: '127.0.0.1:0', control: '127.0.0.1:0' },
    services: [await write('notes.yaml', stringify(service))],
    credentials: {
      notes: { provider: 'static', value: { file: await write('key', 'a-standing-key-of-some-length') } },
    },
    policies: [await write('bench.cedar', policy)],
    upstream: { ca: [await write('ca.pem', echo.caPem)], hosts: { 'notes.keyless.test': '127.0.0.1' } },
    agents: Array.from({ length: AGENTS }, (_, n) => ({ id: `spiffe://bench/${n}`, owner: 'bench', purpose: 'wait' })),
    approvals: { hold_s: 55, max_pending: EACH, max_per_hour: 100_000 },
    ...(redisUrl && { redis: { url: redisUrl } }),
  }
  const file = await write('keyless.yaml', stringify(settings))
  const gateway = start(process.execPath, [join(ROOT, 'gateway', 'keyless.ts'), 'start', '--config', file])
  const [, port = ''] = await gateway.says(/proxy +http:\/\/[\d.]+:(\d+)/)
  await gateway.says(/Ctrl-C/)
  return { gateway, port: Number(port) }
}

async function run(control: ControlClient, pid: number, port: number): Promise<(string | number)[]> {
  const agent = new Agent({ keepAlive: true, maxSockets: Number.POSITIVE_INFINITY })
  const handles = await Promise.all(
    Array.from({ length: AGENTS }, async (_, n) => {
      const body = { scope: 'notes:*', purpose: 'wait for a human', agent: `spiffe://bench/${n}` }
      return (await control.openTask(body)).handle
    }),
  )
  const before = memoryKb(pid)
  const askedMs = performance.now()
  /** Query → when it was answered, and with what. */
  const answers = new Map<string, { status: number; atMs: number }>()
  const calls: Promise<void>[] = []
  for (let n = 0; n < EACH; n++) {
    for (const [a, handle] of handles.entries()) calls.push(call({ agent, port, handle, query: `${a}-${n}`, answers }))
    await pause(50)
  }
  while ((await control.approvals()).length < calls.length && answers.size === 0) await pause(500)
  const askedPerS = (calls.length * 1000) / (performance.now() - askedMs)
  const approvals = await control.approvals()
  await pause(1_000)
  const held = memoryKb(pid) - before
  const cpu = cpuMicroseconds(pid)
  await pause(QUIET_MS)
  const quiet = (cpuMicroseconds(pid) - cpu) / (QUIET_MS * 1000)
  const took: number[] = []
  const decidedMs = performance.now()
  const saidMs = new Map<string, number>()
  const left = [...approvals]
  const lane = async () => {
    for (let one = left.pop(); one !== undefined; one = left.pop()) {
      saidMs.set(one.verified.request?.url.split('?')[1] ?? '', performance.now())
      await control.decideApproval(one.id, 'approve')
    }
  }
  await Promise.all(Array.from({ length: LANES }, lane))
  const decidedPerS = (calls.length * 1000) / (performance.now() - decidedMs)
  await Promise.all(calls)
  for (const [query, { status, atMs }] of answers)
    if (status === 200) took.push(Math.max(0, atMs - (saidMs.get(query) ?? 0)))
  agent.destroy()
  const { p50, p99 } = quantiles(took)
  return [
    Math.round(askedPerS),
    (held / calls.length).toFixed(1),
    `${(quiet * 100).toFixed(1)} % of a core`,
    Math.round(decidedPerS),
    `${p50.toFixed(1)} / ${p99.toFixed(1)}`,
    calls.length - took.length,
  ]
}

interface Call {
  readonly agent: Agent
  readonly port: number
  readonly handle: string
  readonly query: string
  readonly answers: Map<string, { status: number; atMs: number }>
}

function call({ agent, port, handle, query, answers }: Call): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  const done = (status: number) => {
    answers.set(query, { status, atMs: performance.now() })
    resolve()
  }
  const headers = {
    'proxy-authorization': `Basic ${Buffer.from(`task:${handle}`).toString('base64')}`,
    'content-length': BODY.length,
  }
  request({ agent, port, host: '127.0.0.1', method: 'POST', path: `/notes/echo/ask?${query}`, headers }, (answer) =>
    answer.resume().on('end', () => done(answer.statusCode ?? 0)),
  )
    .on('error', () => done(0))
    .end(BODY)
  return promise
}

function memoryKb(pid: number): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])
}
