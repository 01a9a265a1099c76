/**
 * Rego in wasm, in a thread of its own: evaluation holds its thread, and only a thread can be stopped. One that took too long is ended,
 * and everything that it was asked goes without an answer; the next question finds a new one.
 */
import { Worker } from 'node:worker_threads'
import { threadEnv } from '../../thread-env.ts'
import type { OpaBundle } from './opa-bundle.ts'

export interface OpaWork extends OpaBundle {
  /** `keyless/allow`; undefined: the first. */
  readonly entrypoint: string | undefined
}

export interface OpaInput {
  readonly id: number
  readonly input: unknown
}

/** `id` 0: the thread is ready. */
export interface OpaAnswer {
  readonly id: number
  readonly result?: unknown
  readonly failed?: true
}

const START_MS = 10_000
const MEMORY_MB = 256

interface Thread {
  readonly worker: Worker
  readonly ready: Promise<void>
}

export class OpaThread {
  readonly #work: OpaWork
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>()
  #thread: Thread | undefined
  #isClosed = false
  #last = 0

  constructor(work: OpaWork) {
    this.#work = work
  }

  /** @throws {Error} saying why the policy cannot be loaded. */
  async begin(): Promise<void> {
    await this.#started().ready
  }

  /**
   * @returns what the entrypoint says; undefined when it says nothing.
   * @param signal ends the thread with what it is at.
   */
  async evaluate(input: unknown, signal: AbortSignal): Promise<unknown> {
    const { worker, ready } = this.#started()
    await ready
    signal.throwIfAborted()
    const id = ++this.#last
    const waiting = Promise.withResolvers<unknown>()
    this.#waiting.set(id, waiting)
    const stop = () => void worker.terminate()
    signal.addEventListener('abort', stop, { once: true })
    worker.postMessage({ id, input } satisfies OpaInput)
    try {
      return await waiting.promise
    } finally {
      signal.removeEventListener('abort', stop)
      this.#waiting.delete(id)
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true
    await this.#thread?.worker.terminate()
  }

  #started(): Thread {
    if (this.#isClosed) throw new Error('closed')
    this.#thread ??= this.#start()
    return this.#thread
  }

  #start(): Thread {
    const worker = new Worker(new URL('./opa-worker.ts', import.meta.url), {
      env: threadEnv(),
      execArgv: [],
      workerData: this.#work,
      resourceLimits: { maxOldGenerationSizeMb: MEMORY_MB },
    })
    worker.unref()
    const ready = Promise.withResolvers<void>()
    ready.promise.catch(() => undefined) // whoever waits is told
    const patience = setTimeout(() => void worker.terminate(), START_MS).unref()
    worker.on('message', ({ id, result, failed }: OpaAnswer) => {
      if (id === 0) {
        clearTimeout(patience)
        ready.resolve()
      } else if (failed) this.#waiting.get(id)?.reject(new Error('the policy could not be evaluated'))
      else this.#waiting.get(id)?.resolve(result)
    })
    worker.on('error', (cause) => ready.reject(cause))
    worker.on('exit', () => {
      clearTimeout(patience)
      this.#thread = undefined
      ready.reject(new Error('the thread has ended'))
      for (const waiting of this.#waiting.values()) waiting.reject(new Error('the thread has ended'))
      if (!this.#isClosed && this.#waiting.size > 0) this.#thread = this.#start() // the next one is not to wait for it
    })
    return { worker, ready: ready.promise }
  }
}
