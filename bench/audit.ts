/**
 * `npm run bench:audit`: what the record of a call costs: its two entries, from the event to the disk, with calls waiting for
 * each other as they do in the gateway. In one process, without sockets. Writes bench/AUDIT.md.
 */
import { createSecretKey, randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Audit, createAudit } from '../gateway/audit/audit.ts'
import { loadLogKey, openLog } from '../gateway/audit/log.ts'
import { systemClock } from '../gateway/protocol/clock.ts'
import { uuidv7 } from '../gateway/protocol/id.ts'
import { decision, endpoint, grant, inbound, leaseFacts, outcome } from '../test/audit/log.fixture.ts'
import { ROOT } from '../test/rig/process.ts'
import { machine } from './report.ts'

const AT_ONCE = [1, 8, 64, 1024] as const
/** Calls of one measurement, and how often it is taken: the median counts. */
const PLACE = endpoint()
const ALLOWED = decision()
const LEASE = { facts: leaseFacts() }
const DONE = outcome()

const PLAN = { warm: 60_000, calls: 40_000, alone: 4_000, rounds: 5 } as const

interface Measured {
  readonly entriesPerS: number
  /** Of all threads, user and system. */
  readonly cpuPerEntry: number
  /** Microseconds from the decision to its receipt. */
  readonly p50: number
  readonly p99: number
}

const rows: string[] = []
for (const durability of ['fsync', 'relaxed'] as const) {
  const dir = await mkdtemp(join(tmpdir(), 'keyless-bench-'))
  try {
    const origin = 'bench.keyless.test/log'
    const log = await openLog({ dir, origin, key: await loadLogKey(dir, origin), durability, clock: systemClock })
    const hmacKey = createSecretKey(randomBytes(32))
    const audit = createAudit({ log, clock: systemClock, node: 'bench', version: '0', hmacKey })
    await run(audit, 64, PLAN.warm)
    for (const atOnce of AT_ONCE) rows.push(row(durability, atOnce, await measure(audit, atOnce)))
    await audit.close()
  } finally {
    await rm(dir, { recursive: true })
  }
}

const text = [
  '# The record, measured',
  '',
  'Written by `npm run bench:audit`; do not edit.',
  '',
  ...(await machine()).slice(0, 2),
  `- Node ${process.versions.node}; in one process, without sockets; the median of ${PLAN.rounds} rounds`,
  '',
  '| durability | calls at once | entries/s | CPU µs/entry | entries/s a core | decision durable after µs, p50 / p99 |',
  '|---|--:|--:|--:|--:|--:|',
  ...rows,
  '',
  'A call is two entries, decision and outcome, of 1.1 KB together with their hashes, tree and checkpoints; the credential waits for the first. CPU',
  'is that of all threads of the process, user and system.',
  '',
].join('\n')
process.stdout.write(text)
await writeFile(join(ROOT, 'bench', 'AUDIT.md'), text)
process.exit()

async function measure(audit: Audit, atOnce: number): Promise<Measured> {
  const taken: Measured[] = []
  for (let round = 0; round < PLAN.rounds; round++)
    taken.push(await run(audit, atOnce, atOnce === 1 ? PLAN.alone : PLAN.calls))
  const of = (pick: (one: Measured) => number) => taken.map(pick).toSorted((a, b) => a - b)[PLAN.rounds >> 1] as number
  return {
    entriesPerS: of((one) => one.entriesPerS),
    cpuPerEntry: of((one) => one.cpuPerEntry),
    p50: of((one) => one.p50),
    p99: of((one) => one.p99),
  }
}

async function run(audit: Audit, atOnce: number, calls: number): Promise<Measured> {
  const grants = Array.from({ length: Math.min(atOnce, 64) }, () => grant())
  const waits = new Float64Array(calls)
  let begun = 0
  const caller = async (which: number) => {
    const held = grants[which % grants.length] as ReturnType<typeof grant>
    while (begun < calls) {
      const at = begun++
      const event = audit.openCall(inbound({ id: uuidv7() }))
      event.authenticated(held)
      event.located(PLACE)
      event.decided(ALLOWED)
      const started = performance.now()
      await event.commit()
      waits[at] = performance.now() - started
      event.leased(LEASE)
      event.closed(DONE)
    }
  }
  const [cpu, started] = [process.cpuUsage(), performance.now()]
  await Promise.all(Array.from({ length: atOnce }, (_, which) => caller(which)))
  const seconds = (performance.now() - started) / 1000
  const { user, system } = process.cpuUsage(cpu)
  waits.sort()
  const micros = (share: number) => Math.round((waits[Math.floor(calls * share)] as number) * 1000)
  return {
    entriesPerS: (2 * calls) / seconds,
    cpuPerEntry: (user + system) / (2 * calls),
    p50: micros(0.5),
    p99: micros(0.99),
  }
}

function row(durability: string, atOnce: number, { entriesPerS, cpuPerEntry, p50, p99 }: Measured): string {
  const whole = (value: number) => Math.round(value).toLocaleString('en')
  return `| ${durability} | ${whole(atOnce)} | ${whole(entriesPerS)} | ${cpuPerEntry.toFixed(1)} | ${whole(1e6 / cpuPerEntry)} | ${p50} / ${p99} |`
}
