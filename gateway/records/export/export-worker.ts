/** The thread in which exports run: formatting and compressing never keep a call waiting. Requests are made by the main thread. */
import { createSecretKey } from 'node:crypto'
import { setPriority } from 'node:os'
import { setTimeout as wait } from 'node:timers/promises'
import { parentPort, workerData } from 'node:worker_threads'
import { createCursor } from './cursor.ts'
import type { ExportJob, FromThread, ThreadPlan, ToThread } from './exports.ts'
import { formats } from './format.ts'
import { createItems } from './item.ts'
import { createMask } from './mask.ts'
import { runPump } from './pump.ts'
import type { Sink } from './sink.ts'
import { createFileSink } from './sink-file.ts'
import { createHttpSink, type Push, type Pushed } from './sink-http.ts'
import { createPostgresSink } from './sink-postgres.ts'

// Behind the calls where there are no processors for both; on Linux a priority is one thread's own.
if (process.platform === 'linux') setPriority(10)

const plan = workerData as ThreadPlan
const tell = (message: FromThread) => parentPort?.postMessage(message)

/** Number of a request → who waits for its answer. */
const waiting = new Map<number, PromiseWithResolvers<Pushed>>()
let sent = 0
const stop = new AbortController()

parentPort?.on('message', (message: ToThread) => {
  if (message.kind === 'stop') return stop.abort()
  const one = waiting.get(message.id)
  waiting.delete(message.id)
  if (message.kind === 'answered') one?.resolve(message.pushed)
  else one?.reject(new Error(message.why))
})

async function send(name: string, push: Push): Promise<Pushed> {
  const id = sent++
  const answer = Promise.withResolvers<Pushed>()
  waiting.set(id, answer)
  tell({ kind: 'send', name, id, push })
  return answer.promise
}

function sinkOf({ name, format, to }: ExportJob): Sink {
  const form = formats[format]
  if ('file' in to) return createFileSink(to.file, form)
  if ('postgres' in to) return createPostgresSink({ url: to.postgres, table: to.table, format: form })
  return createHttpSink({ url: to.url, format: form, send: (push) => send(name, push), nowMs: Date.now })
}

/** Ends early when the gateway does. */
function sleep(ms: number): Promise<void> {
  return wait(ms, undefined, { signal: stop.signal }).catch(() => undefined)
}

async function run(job: ExportJob): Promise<void> {
  const { log, dir, stateDir, maskKey } = plan
  const sink = sinkOf(job)
  try {
    await runPump(
      {
        log,
        dir,
        cursor: createCursor(stateDir, job.name, log),
        items: createItems(createMask(job.mask, createSecretKey(maskKey)), job.mask.length > 0),
        sink,
        kinds: job.kinds,
        report: (state) => tell({ kind: 'state', name: job.name, state }),
        warn: (text) => tell({ kind: 'warn', name: job.name, text }),
        sleep,
        random: Math.random,
      },
      stop.signal,
    )
  } finally {
    await sink.close()
  }
}

await Promise.all(plan.jobs.map(run))
parentPort?.close()
