/**
 * `npm run bench:audit`: what the record of a call costs: its two entries, from the event to the disk, with calls waiting for
 * each other as they do in the gateway. In one process, without sockets. Writes bench/AUDIT.md.
 */
import { createSecretKey, randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { type Audit, createAudit } from '../gateway/audit/audit.ts'
import { loadLogKey, openLog } from '../gateway/audit/log.ts'
import { systemClock } from '../gateway/protocol/clock.ts'
import type { Grant } from '../gateway/protocol/grant.ts'
import { uuidv7 } from '../gateway/protocol/id.ts'
import type { Lag } from '../gateway/records/query.ts'
import { openRecordsThread } from '../gateway/records/records-thread.ts'
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
/** Calls a second while the index is watched, and for how long. */
const PACES = [500, 2000] as const
const PACED_S = 10
const ORIGIN = 'bench.keyless.test/log'

interface Measured {
  readonly entriesPerS: number
  /** Of all threads, user and system. */
  readonly cpuPerEntry: number
  /** Microseconds from the decision to its receipt. */
  readonly p50: number
  readonly p99: number
}

const rows: string[] = []
for (const durability of ['fsync', 'relaxed'] as const)
  await withAudit(durability, async (audit) => {
    for (const atOnce of AT_ONCE) rows.push(row(durability, atOnce, await measure(audit, atOnce)))
  })
const lags: string[] = []
await withAudit('fsync', async (audit, dir) => {
  for (const pace of PACES) lags.push(await paced(audit, pace, 'no', undefined))
  const thread = openRecordsThread({ dir, origin: ORIGIN, at: { path: `${dir}.sqlite` }, warn: console.error })
  while (thread.state === undefined || thread.state.lag.entries > 0) await pause(200)
  for (const pace of PACES) lags.push(await paced(audit, pace, 'yes', () => thread.state?.lag))
  await thread.close()
  for (const end of ['', '-wal', '-shm']) await rm(`${dir}.sqlite${end}`, { force: true })
})

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
  ...[`## The index beside it, ${PACED_S} s of calls at a fixed pace, each decision and outcome fsynced`, ''],
  ...[
    '| calls/s | indexed meanwhile | decision durable after µs, p50 / p99 | entries behind, median / most | seconds behind, most |',
    '|--:|---|--:|--:|--:|',
  ],
  ...lags,
  '',
  'A call is two entries, decision and outcome, of 1.1 KB each, with their hashes, tree and checkpoints, and with closed files compressed and read',
  'back; the credential waits for the first. CPU is that of all threads of the process, user and system. Absolute figures move between machines:',
  'nginx takes about 16 µs of CPU for a proxied request on the machine of the targets, and what bench/RESULTS.md says here.',
  '',
].join('\n')
process.stdout.write(text)
await writeFile(join(ROOT, 'bench', 'AUDIT.md'), text)
process.exit()

async function withAudit(durability: 'fsync' | 'relaxed', work: (audit: Audit, dir: string) => Promise<void>) {
  const dir = await mkdtemp(join(tmpdir(), 'keyless-bench-'))
  try {
    const key = await loadLogKey(dir, ORIGIN)
    const log = await openLog({ dir, origin: ORIGIN, key, durability, clock: systemClock })
    const hmacKey = createSecretKey(randomBytes(32))
    const audit = createAudit({ log, clock: systemClock, node: 'bench', version: '0', hmacKey })
    await run(audit, 64, PLAN.warm)
    await work(audit, dir)
    await audit.close()
  } finally {
    await rm(dir, { recursive: true })
  }
}

/** Calls at a fixed pace, whether the last ones are done or not. */
async function paced(audit: Audit, pace: number, indexed: string, lagOf: (() => Lag | undefined) | undefined) {
  const held = grant()
  const waits: number[] = []
  const behind: Lag[] = []
  const under: Promise<void>[] = []
  const [started, total] = [performance.now(), pace * PACED_S]
  while (under.length < total) {
    const due = Math.min(total, Math.floor(((performance.now() - started) / 1000) * pace))
    while (under.length < due) under.push(call(audit, held).then((wait) => void waits.push(wait)))
    const lag = lagOf?.()
    if (lag) behind.push(lag)
    await pause(1)
  }
  await Promise.all(under)
  const at = (values: number[], share: number) =>
    Math.round(values.toSorted((a, b) => a - b)[Math.floor(values.length * share)] ?? 0)
  const entries = behind.map((lag) => lag.entries)
  const micros = waits.map((wait) => wait * 1000)
  const told =
    behind.length === 0
      ? '– | –'
      : `${at(entries, 0.5)} / ${Math.max(...entries)} | ${Math.max(...behind.map((lag) => lag.seconds)).toFixed(1)}`
  return `| ${pace.toLocaleString('en')} | ${indexed} | ${at(micros, 0.5)} / ${at(micros, 0.99)} | ${told} |`
}

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
    const held = grants[which % grants.length] as Grant
    while (begun < calls) {
      const at = begun++
      waits[at] = await call(audit, held)
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

/** @returns milliseconds until its decision was durable. */
async function call(audit: Audit, held: Grant): Promise<number> {
  const event = audit.openCall(inbound({ id: uuidv7() }))
  event.authenticated(held)
  event.located(PLACE)
  event.decided(ALLOWED)
  const started = performance.now()
  await event.commit()
  const wait = performance.now() - started
  event.leased(LEASE)
  event.closed(DONE)
  return wait
}

function row(durability: string, atOnce: number, { entriesPerS, cpuPerEntry, p50, p99 }: Measured): string {
  const whole = (value: number) => Math.round(value).toLocaleString('en')
  return `| ${durability} | ${whole(atOnce)} | ${whole(entriesPerS)} | ${cpuPerEntry.toFixed(1)} | ${whole(1e6 / cpuPerEntry)} | ${p50} / ${p99} |`
}
