/**
 * `npm run bench:streams`: what one figure a request does not tell: latency at a fixed rate, new intercepted connections, one
 * gigabyte, and thousands of event streams at once; nginx beside the gateway, in turns. Takes about two minutes and writes
 * bench/STREAMS.md. Needs Linux, nginx, and 12,000 file descriptors a process.
 */
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { type ClientRequest, request } from 'node:http'
import { join } from 'node:path'
import { ROOT, runOk } from '../test/rig/process.ts'
import type { PacedLoad } from './paced-load.ts'
import { cpuMicroseconds, onProcessor } from './processor.ts'
import { machine } from './report.ts'
import { BIG_BYTES, HOST, type Stage, setUp } from './stage.ts'
import type { TunnelLoad } from './tunnel-load.ts'
import type { Seen } from './wrk.ts'

const RATES = [1_000, 5_000] as const
const STREAMS = 5_000
const PLAN = {
  paced: { seconds: 5, rounds: 3 },
  fresh: { seconds: 4, rounds: 3, lines: 8 },
  big: { rounds: 3 },
} as const

interface Way {
  readonly name: string
  readonly pid: number | undefined
  readonly port: number
  readonly target: (path: string, port: number) => string
  readonly headers: (port: number) => Record<string, string>
}

const stage = await setUp()
try {
  const ways = cleartextWays(stage)
  await warm(ways)
  const lines = [
    '# Rates, connections and streams, measured',
    '',
    'Written by `npm run bench:streams`; do not edit. Ways take turns; medians of the rounds.',
    '',
    ...(await machine()),
    '',
    ...(await paced(ways)),
    ...(await fresh(stage)),
    ...(await big(ways)),
    ...(await streams(stage, ways)),
  ]
  const text = `${lines.join('\n')}\n`
  process.stdout.write(text)
  await writeFile(join(ROOT, 'bench', 'STREAMS.md'), text)
} finally {
  await stage.stop()
}

function cleartextWays({ ports, handle, nginxPid, relayPid, gatewayPid }: Stage): Way[] {
  const basic = `Basic ${Buffer.from(`task:${handle}`).toString('base64')}`
  const plain = { target: (path: string) => path, headers: (port: number) => ({ Host: `${HOST}:${port}` }) }
  return [
    { name: 'direct', pid: undefined, port: ports.clear, ...plain },
    { name: 'nginx `proxy_pass`', pid: nginxPid, port: ports.nginxClear, ...plain },
    { name: 'bare relay in Node', pid: relayPid, port: ports.relay, ...plain },
    {
      name: 'keyless, forward proxy',
      pid: gatewayPid,
      port: ports.proxy,
      target: (path, port) => `http://${HOST}:${port}${path}`,
      headers: (port) => ({ Host: `${HOST}:${port}`, 'Proxy-Authorization': basic }),
    },
  ]
}

async function warm(ways: readonly Way[]): Promise<void> {
  for (const way of ways) if (way.pid !== undefined) await atRate(way, 2_000, 8)
}

async function atRate(way: Way, perS: number, seconds: number): Promise<Seen> {
  const { clear } = stage.ports
  const load = { port: way.port, target: way.target('/items/1', clear), headers: way.headers(clear), perS, seconds }
  return loadBy('paced-load.ts', { ...load, connections: 32 } satisfies PacedLoad)
}

async function paced(ways: readonly Way[]): Promise<string[]> {
  const lines = ['## Latency at a fixed rate, 32 connections', '']
  lines.push(
    `| | ${RATES.map((rate) => `p50 / p99 µs at ${rate.toLocaleString('en')}/s`).join(' | ')} |`,
    '|---|--:|--:|',
  )
  const cells = new Map(ways.map((way) => [way, [] as string[]]))
  for (const rate of RATES) {
    const seen = new Map(ways.map((way) => [way, [] as Seen[]]))
    for (let round = 0; round < PLAN.paced.rounds; round++)
      for (const way of ways) seen.get(way)?.push(await atRate(way, rate, PLAN.paced.seconds))
    for (const way of ways) cells.get(way)?.push(latencies(seen.get(way) ?? []))
  }
  for (const way of ways) lines.push(`| ${way.name} | ${cells.get(way)?.join(' | ')} |`)
  return [...lines, '']
}

function latencies(seen: readonly Seen[]): string {
  const errors = seen.reduce((sum, one) => sum + one.errors, 0)
  const text = `${median(seen.map((one) => one.p50))} / ${median(seen.map((one) => one.p99))}`
  return errors === 0 ? text : `${text} (${errors} not answered within 5 s)`
}

async function fresh({ ports, handle, upstreamCa, gatewayCa, nginxPid, gatewayPid }: Stage): Promise<string[]> {
  const authorization = `Basic ${Buffer.from(`task:${handle}`).toString('base64')}`
  const common = { path: '/items/1', connections: PLAN.fresh.lines, seconds: PLAN.fresh.seconds }
  const servername = `tls.${HOST}`
  const tunnel = { to: `${servername}:${ports.tls}`, authorization }
  const ways: { name: string; pid: number; load: TunnelLoad }[] = [
    {
      name: 'nginx, TLS terminated and begun anew',
      pid: nginxPid,
      load: { ...common, port: ports.nginxTls, servername: HOST, ca: upstreamCa },
    },
    {
      name: 'keyless, intercepted CONNECT',
      pid: gatewayPid,
      load: { ...common, port: ports.proxy, servername, ca: gatewayCa, tunnel },
    },
  ]
  const costs = new Map(ways.map((way) => [way, [] as number[]]))
  const rates = new Map(ways.map((way) => [way, [] as number[]]))
  for (let round = 0; round <= PLAN.fresh.rounds; round++) {
    for (const way of ways) {
      const before = cpuMicroseconds(way.pid)
      const seen = await loadBy('new-connections.ts', way.load)
      if (seen.errors > 0) throw new Error(`${seen.errors} of ${seen.requests} new connections failed at ${way.name}`)
      if (round === 0) continue // warms leaf, tickets and code
      costs.get(way)?.push((cpuMicroseconds(way.pid) - before) / seen.requests)
      rates.get(way)?.push(seen.requests / seen.seconds)
    }
  }
  return [
    '## A new TLS connection with one request, handshake in full',
    '',
    '| | per second | CPU µs |',
    '|---|--:|--:|',
    ...ways.map(
      (way) =>
        `| ${way.name} | ${median(rates.get(way) ?? []).toFixed(0)} | ${median(costs.get(way) ?? []).toFixed(0)} |`,
    ),
    '',
  ]
}

async function big(ways: readonly Way[]): Promise<string[]> {
  const rows = new Map(ways.map((way) => [way, [] as { mbPerS: number; cpuS: number }[]]))
  for (let round = 0; round < PLAN.big.rounds; round++) {
    for (const way of ways.filter(({ name }) => !name.startsWith('bare'))) {
      const before = way.pid === undefined ? 0 : cpuMicroseconds(way.pid)
      const started = performance.now()
      await download(way)
      const seconds = (performance.now() - started) / 1000
      const cpuS = way.pid === undefined ? 0 : (cpuMicroseconds(way.pid) - before) / 1e6
      rows.get(way)?.push({ mbPerS: BIG_BYTES / 1e6 / seconds, cpuS })
    }
  }
  return [
    '## One answer of 1 GiB',
    '',
    '| | MB/s | CPU s |',
    '|---|--:|--:|',
    ...[...rows]
      .filter(([, samples]) => samples.length > 0)
      .map(
        ([way, samples]) =>
          `| ${way.name} | ${median(samples.map((one) => one.mbPerS)).toFixed(0)} | ${way.pid === undefined ? '–' : median(samples.map((one) => one.cpuS)).toFixed(2)} |`,
      ),
    '',
  ]
}

/** By curl, which reads faster than this process would. */
async function download(way: Way): Promise<void> {
  const { clear } = stage.ports
  const url = `http://${HOST}:${clear}/big/file`
  const isProxy = way.target('/', clear) !== '/'
  const through = isProxy
    ? [
        '--proxy',
        `http://127.0.0.1:${way.port}`,
        '--proxy-header',
        `Proxy-Authorization: ${way.headers(clear)['Proxy-Authorization']}`,
      ]
    : ['--connect-to', `${HOST}:${clear}:127.0.0.1:${way.port}`]
  const [program, ...args] = onProcessor('load', [
    'curl',
    '-sS',
    '-f',
    '-o',
    '/dev/null',
    '-w',
    '%{size_download}',
    ...through,
    url,
  ])
  const size = Number(await runOk(program, args, { timeoutMs: 60_000 }))
  if (size !== BIG_BYTES) throw new Error(`${way.name} delivered ${size} bytes`)
}

async function streams({ gatewayPid, ports }: Stage, ways: readonly Way[]): Promise<string[]> {
  const way = ways.at(-1) as Way
  const before = residentKb(gatewayPid)
  const open = await Promise.all(Array.from({ length: STREAMS }, () => openStream(way, ports.events)))
  await new Promise((resolve) => setTimeout(resolve, 5_000))
  const cpu = cpuMicroseconds(gatewayPid)
  const seconds = 5
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000))
  const share = (cpuMicroseconds(gatewayPid) - cpu) / (seconds * 1e6)
  const kb = (residentKb(gatewayPid) - before) / STREAMS
  const cut = open.filter((one) => one.destroyed).length
  for (const one of open) one.destroy()
  return [
    `## ${STREAMS.toLocaleString('en')} event streams, one event a second on each`,
    '',
    '| KB of memory a stream | CPU | cut |',
    '|--:|--:|--:|',
    `| ${kb.toFixed(1)} | ${(share * 100).toFixed(0)} % of a core | ${cut} |`,
    '',
  ]
}

function openStream(way: Way, port: number): Promise<ClientRequest> {
  return new Promise((resolve, reject) => {
    const sent = request({
      host: '127.0.0.1',
      port: way.port,
      path: way.target('/events/1', port),
      headers: way.headers(port),
      agent: false,
    })
    sent.once('response', (received) => {
      if (received.statusCode !== 200) return reject(new Error(`a stream was answered ${received.statusCode}`))
      received.on('error', () => undefined).resume()
      received.once('data', () => resolve(sent))
    })
    sent.once('error', reject)
    sent.end()
  })
}

/** RssAnon: the process's own memory, without what it shares with files. */
function residentKb(pid: number): number {
  return Number(/^RssAnon:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1])
}

async function loadBy(file: string, load: PacedLoad | TunnelLoad): Promise<Seen> {
  const [program, ...args] = onProcessor('load', [process.execPath, join(ROOT, 'bench', file), JSON.stringify(load)])
  return JSON.parse(await runOk(program, args, { timeoutMs: (load.seconds + 30) * 1000 })) as Seen
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor((values.length - 1) / 2)] ?? Number.NaN
}
