/** Load by `wrk`, and what it saw. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runOk } from '../test/rig/process.ts'
import { onProcessor } from './processor.ts'

export interface Load {
  /** `127.0.0.1:PORT`: where the connection goes. */
  readonly place: string
  /** Request target: origin form, or absolute form towards a forward proxy. */
  readonly target: string
  readonly headers: Readonly<Record<string, string>>
  readonly connections: number
  readonly seconds: number
}

export interface Seen {
  readonly requests: number
  readonly seconds: number
  /** Microseconds. */
  readonly p50: number
  readonly p99: number
  /** Answers other than 200, and connections that failed. */
  readonly errors: number
}

export async function wrk(load: Load): Promise<Seen> {
  const dir = await mkdtemp(join(tmpdir(), 'keyless-wrk-'))
  const script = join(dir, 'load.lua')
  await writeFile(script, lua(load))
  const options = ['-t', '1', '-c', String(load.connections), '-d', `${load.seconds}s`, '--timeout', '5s']
  const [program, ...args] = onProcessor('load', ['wrk', ...options, '-s', script, `http://${load.place}/`])
  try {
    const said = await runOk(program, args, { timeoutMs: (load.seconds + 10) * 1000 })
    const line = /^RESULT (.*)$/m.exec(said)?.[1]
    if (line === undefined) throw new Error(`wrk said nothing of its result:\n${said}`)
    return JSON.parse(line) as Seen
  } finally {
    await rm(dir, { recursive: true })
  }
}

/** The request is built once: wrk would otherwise put its own origin-form target and Host together. */
function lua({ target, headers }: Load): string {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\\r\\n`)
  return `
local text = "GET ${target} HTTP/1.1\\r\\n${lines.join('')}\\r\\n"
request = function() return text end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT {"requests":%d,"seconds":%.6f,"p50":%d,"p99":%d,"errors":%d}\\n',
    summary.requests, summary.duration / 1000000, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
`
}
