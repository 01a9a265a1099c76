/** The thread of the records: follows the log, and answers questions in between. Started by `records-thread.ts`. */
import { setPriority } from 'node:os'
import { setTimeout as wait } from 'node:timers/promises'
import { parentPort, workerData } from 'node:worker_threads'
import { openPersonal } from '../audit/personal/personal.ts'
import { systemClock } from '../protocol/clock.ts'
import { GatewayError } from '../protocol/problem.ts'
import { isUnsound, removeSqlite } from './database-sqlite.ts'
import { lagBehind } from './indexer.ts'
import { type Index, openIndex } from './opening.ts'
import type { Lag } from './query.ts'
import { createRecords, type Records } from './records.ts'
import type { Asking, FromThread, RecordsPlan, ToThread } from './records-thread.ts'

/** How often the log is looked at: file events are lost on network volumes and across containers. */
const POLL_MS = 250
const RETRY_MS = { first: 1_000, last: 30_000 } as const
/** Of the time that indexing takes, as much again is left to calls: the machine may have one core. */
const REST_MS = 1_000

// Behind the calls where there are no processors for both; on Linux a priority is one thread's own.
if (process.platform === 'linux') setPriority(10)

const plan = workerData as RecordsPlan
const stop = new AbortController()
const say = (message: FromThread) => parentPort?.postMessage(message)

interface Opened {
  readonly index: Index
  readonly records: Records
}
let opened: Opened | undefined
let lag: Lag = { entries: 0, seconds: 0 }

parentPort?.on('message', (message: ToThread) => {
  if (message === 'stop') stop.abort()
  else void answer(message)
})

async function answer({ id, name, args }: Exclude<ToThread, 'stop'>): Promise<void> {
  try {
    if (!opened) throw new GatewayError('store_unavailable', 'The index is not open yet, or its database is away.')
    const asked = { ...opened.records, page: pageOf(opened.records) }[name] as (
      ...values: readonly unknown[]
    ) => Promise<unknown>
    say({ id, value: await asked(...args) })
  } catch (cause) {
    if (isUnsound(cause)) await discard()
    const refusal = cause instanceof GatewayError ? cause : unreadable(cause)
    say({ id, refusal: { code: refusal.code, detail: refusal.detail } })
  }
}

function pageOf(records: Records): Asking['page'] {
  return async (query) => {
    const page = await records.find(query)
    return { found: page.records.length, text: JSON.stringify(page) }
  }
}

function unreadable(cause: unknown): GatewayError {
  return new GatewayError('store_unavailable', `The records cannot be read: ${textOf(cause)}.`, { cause })
}

/** Databases quote statements and values in longer texts. */
function textOf(cause: unknown): string {
  const { message, code } = cause as NodeJS.ErrnoException
  return (message.split('\n', 1)[0] || code) ?? 'unknown error'
}

async function open(): Promise<Opened> {
  const names = plan.personal && (await openPersonal({ ...plan.personal, isReader: true }))
  const index = await openIndex({ ...plan, clock: systemClock, rest: (workedMs) => sleep(Math.min(workedMs, REST_MS)) })
  return { index, records: createRecords({ ...index, dir: plan.dir, origin: plan.origin, names }) }
}

async function shut(): Promise<void> {
  const was = opened
  opened = undefined
  await was?.index.database.close().catch(() => undefined)
}

/** A damaged file is of no use to anybody; the log has everything. */
async function discard(): Promise<void> {
  await shut()
  if ('path' in plan.at) removeSqlite(plan.at.path)
}

async function follow(): Promise<void> {
  if (opened && !opened.index.isCurrent()) await shut()
  opened ??= await open()
  await opened.index.indexer.catchUp(stop.signal)
  lag = await opened.index.indexer.lag()
}

/** What the index misses grows while its database is away, and somebody has to be told. */
function lagMeanwhile(): Promise<Lag> {
  return opened?.index.indexer.lagMeanwhile() ?? lagBehind({ dir: plan.dir, clock: systemClock })
}

function sleep(ms: number): Promise<void> {
  return wait(ms, undefined, { signal: stop.signal }).catch(() => undefined)
}

let retryMs: number = RETRY_MS.first
while (!stop.signal.aborted) {
  try {
    await follow()
    say({ state: { lag, trouble: undefined } })
    retryMs = RETRY_MS.first
    await sleep(POLL_MS)
  } catch (cause) {
    if (isUnsound(cause)) await discard()
    lag = await lagMeanwhile().catch(() => lag)
    say({ state: { lag, trouble: textOf(cause) } })
    await sleep(retryMs)
    retryMs = Math.min(2 * retryMs, RETRY_MS.last)
  }
}
await shut()
parentPort?.close()
