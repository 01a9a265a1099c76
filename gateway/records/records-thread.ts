/**
 * The records of a running gateway: a thread keeps the index and answers what is asked of it, so that no call waits for either.
 * Whatever happens to the thread, to its file or to Postgres, calls go on; the index catches up later.
 */
import type { KeyObject } from 'node:crypto'
import { Worker } from 'node:worker_threads'
import { GatewayError, type ProblemCode } from '../protocol/problem.ts'
import { threadEnv } from '../thread-env.ts'
import type { Lag, Query } from './query.ts'
import type { Records } from './records.ts'

export interface RecordsPlan {
  /** Directory of the log, and its name. */
  readonly dir: string
  readonly origin: string
  /** File of the index, or URL of a Postgres that several logs share. */
  readonly at: { readonly path: string } | { readonly url: string }
  /** Where the keys of sealed names are. */
  readonly personal?: { readonly dir: string; readonly key: KeyObject }
}

/** What the main thread may ask for. */
export interface Asking extends Pick<Records, 'find' | 'count' | 'tell'> {
  /** The page of `find` as JSON: five hundred records are written in the thread, not between calls. */
  page(query: Query): Promise<{ readonly found: number; readonly text: string }>
}

export type ToThread = { readonly id: number; readonly name: keyof Asking; readonly args: readonly unknown[] } | 'stop'

export type FromThread =
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly refusal: { readonly code: ProblemCode; readonly detail: string } }
  | { readonly state: RecordsState }

export interface RecordsState {
  readonly lag: Lag
  /** Why the index stands still; undefined while it does not. */
  readonly trouble: string | undefined
}

export interface RecordsThread extends Asking {
  /** As the thread told it last, at most a second ago unless it is in trouble; undefined: nothing was told yet. */
  readonly state: RecordsState | undefined
  close(): Promise<void>
}

export interface RecordsThreadOptions extends RecordsPlan {
  /** What somebody should know, one sentence. */
  warn(text: string): void
}

const RESTART_MS = 5_000
const CLOSE_MS = 2_000
/** A question that takes longer is given up; the thread goes on. */
const PATIENCE_MS = 15_000
/** Questions that are waiting: more would only wait longer. */
const MAX_WAITING = 64
const MEMORY_MB = 512

export function openRecordsThread({ warn, dir, origin, at, personal }: RecordsThreadOptions): RecordsThread {
  const workerData: RecordsPlan = { dir, origin, at, ...(personal && { personal }) }
  const questions = new Questions()
  let isUp = false
  let state: RecordsState | undefined
  let isClosing = false
  let restart: NodeJS.Timeout | undefined
  let worker = start()

  function start(): Worker {
    const made = new Worker(new URL('./records-worker.ts', import.meta.url), {
      workerData,
      // Postgres reads what its URL leaves out from there; nothing else of ours is for this thread.
      env: threadEnv(ofPostgres()),
      execArgv: [],
      resourceLimits: { maxOldGenerationSizeMb: MEMORY_MB },
    })
    made.unref()
    isUp = true
    made.on('message', hear)
    made.on('error', (cause) => warn(`the index stopped: ${(cause as Error).message}. It begins again shortly.`))
    made.on('exit', () => {
      isUp = false
      questions.giveUp('the index has stopped, and begins again shortly')
      if (isClosing) return
      restart = setTimeout(() => {
        worker = start()
      }, RESTART_MS).unref()
    })
    return made
  }

  function hear(message: FromThread): void {
    if ('state' in message) {
      const { trouble } = message.state
      if (trouble !== undefined && trouble !== state?.trouble) warn(`the index stands still: ${trouble}`)
      state = message.state
    } else questions.answered(message)
  }

  async function ask<T>(name: keyof Asking, args: readonly unknown[]): Promise<T> {
    if (isClosing || !isUp) throw away('the index has stopped')
    return questions.ask((id) => worker.postMessage({ id, name, args } satisfies ToThread))
  }

  return {
    find: (query) => ask('find', [query]),
    count: (filter) => ask('count', [filter]),
    page: (query) => ask('page', [query]),
    tell: (which, o) => ask('tell', [which, o]),
    get state() {
      return state
    },
    async close() {
      isClosing = true
      clearTimeout(restart)
      if (!isUp) return
      const ended = new Promise((resolve) => worker.once('exit', resolve))
      worker.postMessage('stop' satisfies ToThread)
      const timer = setTimeout(() => void worker.terminate(), CLOSE_MS)
      await ended
      clearTimeout(timer)
    },
  }
}

function ofPostgres(): Record<string, string> {
  return Object.fromEntries(
    Object.entries(process.env).flatMap(([name, value = '']) => (name.startsWith('PG') ? [[name, value]] : [])),
  )
}

/** What was asked of the thread and is not answered yet. */
class Questions {
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>()
  #asked = 0

  /** @throws {GatewayError} `too_many_requests`, `store_unavailable`, or the thread's refusal. */
  async ask<T>(post: (id: number) => void): Promise<T> {
    if (this.#waiting.size >= MAX_WAITING)
      throw new GatewayError(
        'too_many_requests',
        `${MAX_WAITING} questions are waiting already. Ask again in a moment.`,
      )
    const id = this.#asked++
    const answer = Promise.withResolvers<unknown>()
    this.#waiting.set(id, answer)
    const timer = setTimeout(() => answer.reject(away(`there is no answer after ${PATIENCE_MS / 1000} s`)), PATIENCE_MS)
    try {
      post(id)
      return (await answer.promise) as T
    } finally {
      clearTimeout(timer)
      this.#waiting.delete(id)
    }
  }

  answered(message: Exclude<FromThread, { state: unknown }>): void {
    const one = this.#waiting.get(message.id)
    if ('refusal' in message) one?.reject(new GatewayError(message.refusal.code, message.refusal.detail))
    else one?.resolve(message.value)
  }

  giveUp(why: string): void {
    for (const one of this.#waiting.values()) one.reject(away(why))
  }
}

function away(why: string): GatewayError {
  return new GatewayError('store_unavailable', `The records cannot be read: ${why}.`)
}
