/** How fast the index is made and answers: `npm run bench:index [entries]`. Entries are of one busy gateway; default 100,000. */
import { appendFile, mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import canonicalize from 'canonicalize'
import { systemClock } from '../gateway/protocol/clock.ts'
import { uuidv7 } from '../gateway/protocol/id.ts'
import { findRecords } from '../gateway/records/find.ts'
import { openIndex } from '../gateway/records/opening.ts'
import type { Filter } from '../gateway/records/query.ts'

const ORIGIN = 'keyless.local/bench'
const ROUNDS = 30
const START_MS = Date.parse('2026-11-01T00:00:00Z')
const GATEWAY = { boot: 'bench', node: 'bench', ver: '0' }
const SERVICES = ['github', 'openai', 'stripe'] as const

const pick = <T>(values: readonly T[], i: number) => values[i % values.length] as T

function pair(i: number): string {
  const [human, task, grant] = [
    pick(['ana', 'ben', 'cyd', 'dee'], i * 7),
    Math.floor(i / 200),
    `grant-${Math.floor(i / 100)}`,
  ]
  const [service, req, ts] = [
    pick(SERVICES, i * 5 + (i >> 3)),
    uuidv7(START_MS + i),
    new Date(START_MS + i * 4).toISOString(),
  ]
  const agent = `spiffe://bench.test/agent-${Math.floor(i / 100) % 40}`
  const lineage = [
    { id: human, n: 0, type: 'human' },
    { grant, id: agent, n: 1, type: 'ai_agent' },
  ]
  const who = {
    human: { iss: 'https://id.test', sub: human },
    lineage,
    lineage_hash: grant,
    log: ORIGIN,
    req,
    gw: GATEWAY,
  }
  const rest = { task: { id: `task-${task}`, purpose: `invoice ${task}` }, tenant: 'bench', ts, v: 'ar/1' }
  const target = {
    host: `api.${service}.com`,
    method: 'GET',
    operation: `${service}:read`,
    path: `/v1/items/${i}`,
    port: 443,
    scheme: 'https',
    service,
  }
  const decision = { effect: 'allow', policy_ids: ['defaults#read'] }
  const client = { ip: '10.0.0.9', mode: 'forward', ua: 'curl/8.5.0' }
  const decided = { client, decision, kind: 'call.decision', ...who, seq: 2 * i, target, ...rest }
  const status = i % 50 === 0 ? 503 : 200
  const cred = {
    cache: 'hit',
    cred_id: `hmac:${service}`,
    credential: service,
    ephemeral: true,
    expires: 1,
    provider: 'static',
  }
  const outcome = { bytes_in: 1234, bytes_out: 22, dur_ms: 12.3, error: null, scrubbed: 0, status }
  const ended = { cred, kind: 'call.outcome', ...who, outcome, seq: 2 * i + 1, ...rest }
  return `${canonicalize(decided)}\n${canonicalize(ended)}\n`
}

async function writeLog(dir: string, entries: number): Promise<void> {
  await mkdir(dir)
  for (let at = 0; at < entries / 2; at += 5000) {
    const count = Math.min(5000, entries / 2 - at)
    await appendFile(join(dir, 'entries.jsonl'), Array.from({ length: count }, (_, i) => pair(at + i)).join(''))
  }
  await writeFile(join(dir, 'checkpoint'), `${ORIGIN}\n${2 * Math.floor(entries / 2)}\nAAAA\n`)
}

const calls: Readonly<Record<string, (i: number) => Filter>> = {
  'nothing given': () => ({}),
  human: () => ({ human: 'ana' }),
  agent: (i) => ({ agent: `spiffe://bench.test/agent-${i}` }),
  task: (i) => ({ task: `task-${i}` }),
  'ancestor (grant)': (i) => ({ ancestor: `grant-${i}` }),
  'host below': () => ({ host: '*.stripe.com' }),
  'status 503': () => ({ status: '503' }),
  'text, two words': (i) => ({ text: `invoice ${i}` }),
  'human, service, status': () => ({ human: 'ben', service: 'github', status: '5xx' }),
  'until long ago': () => ({ service: 'github', until: START_MS + 60_000 }),
  'two that never meet': () => ({ service: 'github', host: 'api.stripe.com' }),
}

const entries = Number(process.argv[2] ?? 100_000)
const home = await mkdtemp(join(tmpdir(), 'keyless-bench-index-'))
try {
  const [dir, path] = [join(home, 'audit'), join(home, 'index.sqlite')]
  await writeLog(dir, entries)
  const index = await openIndex({ dir, origin: ORIGIN, at: { path }, clock: systemClock })
  const [startedMs, cpu] = [performance.now(), process.cpuUsage()]
  const read = await index.indexer.catchUp()
  const [wallS, { user, system }] = [(performance.now() - startedMs) / 1000, process.cpuUsage(cpu)]
  const [log, made] = [await stat(join(dir, 'entries.jsonl')), await stat(path)]
  console.log(
    `${read} entries in ${wallS.toFixed(1)} s: ${Math.round(read / wallS)}/s, ${((user + system) / read).toFixed(1)} µs of CPU each, ${(made.size / log.size).toFixed(2)} of the log's bytes`,
  )
  for (const [name, filter] of Object.entries(calls)) {
    const took: number[] = []
    for (let i = 0; i < ROUNDS; i++) {
      const fromMs = performance.now()
      await findRecords(index.database, { ...filter(i), limit: 50 })
      took.push(performance.now() - fromMs)
    }
    took.sort((a, b) => a - b)
    console.log(
      `${name.padEnd(24)} p50 ${took[ROUNDS / 2]?.toFixed(1)} ms, slowest of ${ROUNDS} ${took.at(-1)?.toFixed(1)} ms`,
    )
  }
  await index.database.close()
} finally {
  await rm(home, { recursive: true, force: true })
}
