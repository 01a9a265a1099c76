/** Figures as tables, with the machine they were taken on. */
import { readFileSync } from 'node:fs'
import { cpus, release, totalmem } from 'node:os'
import { run } from '../test/rig/process.ts'

/** One way of reaching the far side, measured. */
export interface Row {
  readonly name: string
  readonly requestsPerS: number
  /** Of the proxy; undefined when there is none. */
  readonly cpuPerRequest: number | undefined
  /** Microseconds at 64 connections. */
  readonly busyP50: number
  readonly busyP99: number
  /** Microseconds at one connection. */
  readonly quietP50: number
  readonly quietP99: number
  readonly errors: number
}

export interface Table {
  readonly title: string
  /** The first row is the far side without a proxy. */
  readonly rows: readonly Row[]
}

export async function report(tables: readonly Table[]): Promise<string> {
  return `${[
    '# Measured',
    '',
    'Written by `npm run bench`; do not edit. Every row of a table was taken in the same run, in turns.',
    '',
    ...(await machine()),
    '',
    ...tables.flatMap(tableLines),
    'Requests a second and "at c = 64" are with 64 kept-alive connections, everything else with one; medians of the rounds. CPU is user and',
    'system time of the proxy and its children from `/proc/PID/stat`. The gateway runs with everything on: grant by handle, policy, sealed',
    'lease, the decision fsynced before the credential is attached, scrubbing of the answer, and the index of the log kept in a thread beside it. All others attach a',
    'fixed header and record nothing. Absolute figures move between machines; compare the ratios to the rows of nginx and the bare relay.',
  ].join('\n')}\n`
}

function tableLines({ title, rows }: Table): string[] {
  const direct = rows[0]
  return [
    `## ${title}`,
    '',
    '| | req/s | CPU µs/request | p50 / p99 µs at c = 1 | added p50 µs | p50 / p99 µs at c = 64 |',
    '|---|--:|--:|--:|--:|--:|',
    ...rows.map((row) =>
      [
        '',
        row.name,
        Math.round(row.requestsPerS).toLocaleString('en'),
        row.cpuPerRequest === undefined ? '–' : row.cpuPerRequest.toFixed(1),
        `${row.quietP50} / ${row.quietP99}`,
        row === direct ? '–' : String(row.quietP50 - (direct?.quietP50 ?? 0)),
        `${row.busyP50} / ${row.busyP99}`,
        '',
      ]
        .join(' | ')
        .trim(),
    ),
    '',
    ...(rows.some((row) => row.errors > 0)
      ? [`Errors: ${rows.map((row) => `${row.name} ${row.errors}`).join(', ')}`, '']
      : []),
  ]
}

export async function machine(): Promise<string[]> {
  const first = async (command: string, ...args: string[]) => {
    const ended = await run(command, args, {
      env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/usr/local/sbin` },
    })
    return /\d+(?:\.\d+)+/.exec(ended.stdout + ended.stderr)?.[0] ?? 'unknown'
  }
  const system = /^PRETTY_NAME="?([^"\n]*)/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? 'Linux'
  const nodes = cpus()
  return [
    `- ${new Date().toISOString().slice(0, 10)}; ${nodes[0]?.model.trim() ?? 'unknown processor'}, ${nodes.length} processors, ${Math.round(totalmem() / 2 ** 30)} GiB, ${process.arch}`,
    `- ${system}, kernel ${release()}`,
    `- Node ${process.versions.node}, nginx ${await first('nginx', '-v')}, wrk ${await first('wrk', '-v')}`,
    '- The proxies run on one processor; the load and the nginx that answers (1 KB) share another.',
  ]
}
