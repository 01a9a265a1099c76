/**
 * The thread that compresses closed segments, as the log sees it: begun when there is one, kept while more come, so that its code
 * stays warm, and ended when none has come for a while. What it was doing when it ended is begun again by whoever asks next.
 */
import { Worker } from 'node:worker_threads'
import { threadEnv } from '../../thread-env.ts'
import type { Failure } from './archive-worker.ts'
import type { ClosedSegment } from './compress.ts'

/** To start it costs as much as to compress half a segment. */
const IDLE_MS = 60_000

export class ArchiveThread {
  #worker: Worker | undefined
  #answer: PromiseWithResolvers<readonly Failure[]> | undefined
  #idle: NodeJS.Timeout | undefined

  /** One call at a time. @returns what stays as it is. @throws {Error} when the thread ended before it was done. */
  async compress(segments: readonly ClosedSegment[]): Promise<readonly Failure[]> {
    clearTimeout(this.#idle)
    const answer = Promise.withResolvers<readonly Failure[]>()
    this.#answer = answer
    this.#worker ??= this.#begin()
    this.#worker.ref()
    this.#worker.postMessage(segments)
    try {
      return await answer.promise
    } finally {
      if (this.#worker) this.#rest(this.#worker)
    }
  }

  /** What is under way is given up. */
  async end(): Promise<void> {
    const worker = this.#worker
    this.#gone(new Error('the thread that compresses was ended'))
    await worker?.terminate()
  }

  #begin(): Worker {
    const worker = new Worker(new URL('./archive-worker.ts', import.meta.url), { env: threadEnv() })
    worker.on('message', (failures: readonly Failure[]) => this.#answer?.resolve(failures))
    // The next one may have begun before this one is gone.
    const gone = (cause: Error) => {
      if (this.#worker === worker) this.#gone(cause)
    }
    worker.on('error', (cause) => gone(cause as Error))
    worker.on('exit', () => gone(new Error('the thread that compresses has ended')))
    return worker
  }

  #rest(worker: Worker): void {
    worker.unref()
    this.#idle = setTimeout(() => void this.end(), IDLE_MS).unref()
  }

  #gone(cause: Error): void {
    clearTimeout(this.#idle)
    this.#worker = undefined
    this.#answer?.reject(cause)
  }
}
