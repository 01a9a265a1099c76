/** Threads that examine blocks of the log side by side; a log that is small is examined here, because a thread takes longer to start. */
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { threadEnv } from '../../thread-env.ts'
import { type Block, blockReader } from './block.ts'

export interface Crew {
  /** Blocks that are worth having under way at once. */
  readonly width: number
  /** @param bytes whole lines, owned by the crew from here on. */
  examine(bytes: Buffer): Promise<Block>
  close(): Promise<void>
}

/** About a quarter of a second of work: from here on threads pay. */
const WORTH_THREADS_BYTES = 16 * 1024 * 1024

/** @param bytes of all entries, about. @param isWhole as in `blockReader`. @param threads default: as many as there are processors, at most 8. */
export function openCrew(bytes: number, isWhole: boolean, threads: number = Math.min(8, availableParallelism())): Crew {
  return bytes < WORTH_THREADS_BYTES || threads < 2 ? alone(isWhole) : new Threads(threads, isWhole)
}

function alone(isWhole: boolean): Crew {
  const read = blockReader(isWhole)
  return { width: 1, examine: async (bytes) => read(bytes), close: async () => {} }
}

interface Waiting {
  resolve(block: Block): void
  reject(cause: Error): void
}

class Threads implements Crew {
  readonly width: number
  readonly #workers: Worker[]
  readonly #waiting = new Map<number, Waiting>()
  #next = 0

  constructor(threads: number, isWhole: boolean) {
    // Two for each, so that none waits for this one.
    this.width = threads * 2
    this.#workers = Array.from({ length: threads }, () => {
      const worker = new Worker(new URL('./thread.ts', import.meta.url), {
        workerData: isWhole ? 'whole' : 'integrity',
        env: threadEnv(),
      })
      worker.on('message', ({ id, block }: { id: number; block: Block }) => this.#take(id)?.resolve(block))
      worker.on('error', (cause) => this.#fail(cause as Error))
      return worker
    })
  }

  examine(bytes: Buffer): Promise<Block> {
    const id = this.#next++
    const { promise, resolve, reject } = Promise.withResolvers<Block>()
    this.#waiting.set(id, { resolve, reject })
    this.#workers[id % this.#workers.length]?.postMessage({ id, bytes }, [bytes.buffer as ArrayBuffer])
    return promise
  }

  async close(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.terminate()))
  }

  #take(id: number): Waiting | undefined {
    const waiting = this.#waiting.get(id)
    this.#waiting.delete(id)
    return waiting
  }

  #fail(cause: Error): void {
    for (const { reject } of this.#waiting.values()) reject(cause)
    this.#waiting.clear()
  }
}
