/** The thread in which exports run: formatting and compressing never keep a call waiting. Requests are made by the main thread. */
import { createSecretKey } from 'node:crypto'
import { setPriority } from 'node:os'
import { setTimeout as wait } from 'node:timers/promises'
import { parentPort, workerData } from 'node:worker_threads'
import { coveredBy } from '../../audit/files/follow.ts'
import { createCursor } from './cursor.ts'
import type { ExportJob, FromThread, LetterJob, ThreadPlan, ToThread } from './exports.ts'
import { formats } from './format.ts'
import { createItems } from './item.ts'
import { createLetterbox, type Letterbox } from './letterbox.ts'
import { createMask } from './mask.ts'
import { runPump } from './pump.ts'
import type { Sink } from './sink.ts'
import { createFileSink } from './sink-file.ts'
import { createHttpSink, type Push, type Pushed } from './sink-http.ts'
import { createPostgresSink } from './sink-postgres.ts'
import { openSpool, viewOf } from './spool.ts'

// Behind the calls where there are no processors for both; on Linux a priority is one thread's own.
if (process.platform === 'linux') setPriority(10)

const plan = workerData as ThreadPlan
const tell = (message: FromThread) => parentPort?.postMessage(message)

/** Number of a request → who waits for its answer. */
const waiting = new Map<number, PromiseWithResolvers<Pushed>>()
let sent = 0
const stop = new AbortController()
/** Name → what sends its messages. */
const boxes = new Map<string, Letterbox>()

const warnOf =
  (name: string) =>
  ({ message }: Error) =>
    tell({ kind: 'warn', name, text: message })

parentPort?.on('message', (message: ToThread) => {
  if (message.kind === 'stop') return stop.abort()
  if (message.kind === 'wake') return void boxes.get(message.name)?.wake().catch(warnOf(message.name))
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
  if ('letters' in to) return boxOf(name, to)
  const form = formats[format]
  if ('file' in to) return createFileSink(to.file, form)
  if ('postgres' in to) return createPostgresSink({ url: to.postgres, table: to.table, format: form })
  return createHttpSink({ url: to.url, format: form, send: (push) => send(name, push), nowMs: Date.now })
}

function boxOf(name: string, { letters: format, terms, spoolDir, isPolled }: LetterJob): Letterbox {
  const box = createLetterbox({
    format,
    terms,
    spool: openSpool(spoolDir),
    send: isPolled ? undefined : (push) => send(name, push),
    report: (state) => tell({ kind: 'letters', name, state }),
    warn: (text) => tell({ kind: 'warn', name, text }),
    gaveUp: (letter) => tell({ kind: 'undelivered', name, letter: viewOf(letter) }),
    nowMs: Date.now,
    random: Math.random,
    after(ms, done) {
      const timer = setTimeout(done, ms)
      return () => clearTimeout(timer)
    },
  })
  boxes.set(name, box)
  return box
}

/** Ends early when the gateway does. */
function sleep(ms: number): Promise<void> {
  return wait(ms, undefined, { signal: stop.signal }).catch(() => undefined)
}

async function run(job: ExportJob): Promise<void> {
  const { log, dir, stateDir, maskKey } = plan
  const sink = sinkOf(job)
  // Messages are news: a new receiver is told what happens from now on, not what happened ever.
  const begin = 'letters' in job.to ? endOf(dir) : undefined
  const sending = boxes.get(job.name)?.run(stop.signal)
  try {
    await runPump(
      {
        log,
        dir,
        cursor: createCursor(stateDir, job.name, log, begin),
        items: createItems(createMask(job.mask, createSecretKey(maskKey)), job.mask.length > 0),
        sink,
        kinds: job.kinds,
        notify: job.notify,
        report: (state) => tell({ kind: 'state', name: job.name, state }),
        warn: (text) => tell({ kind: 'warn', name: job.name, text }),
        sleep,
        random: Math.random,
      },
      stop.signal,
    )
    await sending
  } finally {
    await sink.close()
  }
}

function endOf(dir: string) {
  return async () => {
    const seq = await coveredBy(dir)
    return { seq, segment: 0, offset: 0 }
  }
}

await Promise.all(plan.jobs.map(run))
parentPort?.close()
