/**
 * `npm run bench`: the same requests directly, through nginx, and through the gateway in each of its modes, in turns, in one
 * run of about four minutes. Prints the tables and writes bench/RESULTS.md. Needs Linux, nginx and wrk.
 */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ROOT, runOk } from '../test/rig/process.ts'
import { cpuMicroseconds, onProcessor } from './processor.ts'
import { type Row, report, type Table } from './report.ts'
import { BODY_BYTES, HOST, type Stage, setUp } from './stage.ts'
import type { TunnelLoad } from './tunnel-load.ts'
import { type Seen, wrk } from './wrk.ts'

interface Way {
  readonly name: string
  /** Whose CPU time is counted. */
  readonly pid: number | undefined
  drive(connections: number, seconds: number): Promise<Seen>
}

interface Sample extends Seen {
  readonly cpu: number | undefined
}

const BUSY = 64
const COMPILED = /^(?:direct|nginx|haproxy)/
/** Rounds and seconds a round; all ways take turns within each. */
const PLAN = { warm: 20, busy: { rounds: 5, seconds: 2 }, quiet: { rounds: 3, seconds: 1 } } as const

const stage = await setUp()
try {
  const tables = [
    { title: `Cleartext, ${BODY_BYTES} bytes`, rows: await measure(cleartextWays(stage)) },
    { title: `TLS on both sides, ${BODY_BYTES} bytes`, rows: await measure(tlsWays(stage)) },
  ] satisfies Table[]
  const text = await report(tables)
  process.stdout.write(text)
  if (tables.some((table) => table.rows.some((row) => row.errors > 0)))
    throw new Error('some requests failed: these figures mean nothing')
  await writeFile(join(ROOT, 'bench', 'RESULTS.md'), text)
} finally {
  await stage.stop()
}

function cleartextWays({ ports, handle, nginxPid, relayPid, gatewayPid, peers }: Stage): Way[] {
  const host = `${HOST}:${ports.clear}`
  const basic = `Basic ${Buffer.from(`task:${handle}`).toString('base64')}`
  const way = (
    name: string,
    pid: number | undefined,
    load: { place: string; target: string; headers: Record<string, string> },
  ): Way => ({
    name,
    pid,
    drive: (connections, seconds) => wrk({ ...load, connections, seconds }),
  })
  const path = '/items/1'
  return [
    way('direct', undefined, { place: `127.0.0.1:${ports.clear}`, target: path, headers: { Host: host } }),
    way('nginx `proxy_pass`', nginxPid, {
      place: `127.0.0.1:${ports.nginxClear}`,
      target: path,
      headers: { Host: host },
    }),
    way('bare relay in Node', relayPid, {
      place: `127.0.0.1:${ports.relay}`,
      target: path,
      headers: { Host: host },
    }),
    ...peers.map(({ name, pid, port, kind }) =>
      way(name, pid, {
        place: `127.0.0.1:${port}`,
        target: kind === 'forward' ? `http://${host}${path}` : path,
        headers: { Host: host },
      }),
    ),
    way('keyless, forward proxy', gatewayPid, {
      place: `127.0.0.1:${ports.proxy}`,
      target: `http://${host}${path}`,
      headers: { Host: host, 'Proxy-Authorization': basic },
    }),
    way('keyless, reverse route', gatewayPid, {
      place: `127.0.0.1:${ports.proxy}`,
      target: `/bench${path}`,
      headers: { Host: `127.0.0.1:${ports.proxy}`, Authorization: `Bearer ${handle}` },
    }),
  ]
}

function tlsWays({ ports, handle, nginxPid, gatewayPid, upstreamCa, gatewayCa }: Stage): Way[] {
  const way = (
    name: string,
    pid: number | undefined,
    load: Omit<TunnelLoad, 'path' | 'connections' | 'seconds'>,
  ): Way => ({
    name,
    pid,
    drive: (connections, seconds) => tunnelLoad({ ...load, path: '/items/1', connections, seconds }),
  })
  const servername = `tls.${HOST}`
  const authorization = `Basic ${Buffer.from(`task:${handle}`).toString('base64')}`
  return [
    way('direct', undefined, { port: ports.tls, servername: HOST, ca: upstreamCa }),
    way('nginx, TLS terminated and begun anew', nginxPid, { port: ports.nginxTls, servername: HOST, ca: upstreamCa }),
    way('keyless, intercepted CONNECT', gatewayPid, {
      port: ports.proxy,
      servername,
      ca: gatewayCa,
      tunnel: { to: `${servername}:${ports.tls}`, authorization },
    }),
  ]
}

async function tunnelLoad(load: TunnelLoad): Promise<Seen> {
  const command = [process.execPath, join(ROOT, 'bench', 'tunnel-load.ts'), JSON.stringify(load)] as const
  const [program, ...args] = onProcessor('load', [...command])
  return JSON.parse(await runOk(program, args, { timeoutMs: (load.seconds + 15) * 1000 })) as Seen
}

async function measure(ways: readonly Way[]): Promise<Row[]> {
  // Only what is written in JavaScript compiles itself while it runs.
  for (const way of ways.filter((one) => !COMPILED.test(one.name))) await way.drive(BUSY, PLAN.warm)
  const busy = await takeTurns(ways, BUSY, PLAN.busy)
  const quiet = await takeTurns(ways, 1, PLAN.quiet)
  return ways.map((way) => {
    const [loaded, alone] = [busy.get(way) ?? [], quiet.get(way) ?? []]
    return {
      name: way.name,
      requestsPerS: median(loaded.map((one) => one.requests / one.seconds)),
      cpuPerRequest: way.pid === undefined ? undefined : median(loaded.map((one) => (one.cpu ?? 0) / one.requests)),
      busyP50: median(loaded.map((one) => one.p50)),
      busyP99: median(loaded.map((one) => one.p99)),
      quietP50: median(alone.map((one) => one.p50)),
      quietP99: median(alone.map((one) => one.p99)),
      errors: [...loaded, ...alone].reduce((sum, one) => sum + one.errors, 0),
    }
  })
}

async function takeTurns(
  ways: readonly Way[],
  connections: number,
  plan: { rounds: number; seconds: number },
): Promise<Map<Way, Sample[]>> {
  const samples = new Map<Way, Sample[]>(ways.map((way) => [way, []]))
  for (let round = 0; round < plan.rounds; round++) {
    for (const way of ways) {
      const before = way.pid === undefined ? undefined : cpuMicroseconds(way.pid)
      const seen = await way.drive(connections, plan.seconds)
      const cpu = way.pid === undefined || before === undefined ? undefined : cpuMicroseconds(way.pid) - before
      samples.get(way)?.push({ ...seen, cpu })
    }
  }
  return samples
}

/** The lower one of two. */
function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor((values.length - 1) / 2)] ?? Number.NaN
}
