/**
 * Checks policies in a thread of their own, so that no call waits while others are read, and none is lost when a policy brings the
 * validator down. The thread is there while there is something to check, and a little longer.
 */
import { Worker } from 'node:worker_threads'
import { threadEnv } from '../../thread-env.ts'
import type { Catalogue, CatalogueSource } from '../catalogue/catalogue.ts'
import { type Fault, PolicyFaults, throwFaults } from '../fault.ts'
import { assemble, type Bundle, type BundleSource, loadBundle, type Reviewed, sourcesOf } from '../source/bundle.ts'
import type { SourceFile } from '../source/policy-file.ts'

export interface ToReview {
  readonly id: number
  readonly paths: BundleSource['paths']
  readonly source: CatalogueSource
}

export type WasReviewed = { readonly id: number } & (
  | {
      /** Digest of the catalogue that they were checked against. */
      readonly catalogue: string
      readonly reviewed: Reviewed
    }
  | { readonly faults: readonly Fault[] }
)

const PATIENCE_MS = 60_000
const IDLE_MS = 5_000
const MEMORY_MB = 1_024
/** Characters times operations: below it a thread takes longer to begin than the work, which is over in some milliseconds. */
const WORTH_A_THREAD = 200_000

export class ReviewThread {
  readonly #catalogue: Catalogue
  readonly #source: CatalogueSource
  readonly #waiting = new Map<number, (answer: WasReviewed) => void>()
  #worker: Worker | undefined
  #idle: NodeJS.Timeout | undefined
  #last = 0

  /** @param source of which `catalogue` was made. */
  constructor(catalogue: Catalogue, source: CatalogueSource) {
    this.#catalogue = catalogue
    this.#source = source
  }

  /** As `loadBundle`. @throws {PolicyFaults} */
  async load(paths: BundleSource['paths']): Promise<Bundle> {
    const faults: Fault[] = []
    const files = await sourcesOf(paths, faults)
    throwFaults(faults)
    if (this.#weight(files) < WORTH_A_THREAD) return loadBundle({ paths: files, catalogue: this.#catalogue })
    const answer = await this.#ask(files)
    if ('faults' in answer) throw new PolicyFaults(answer.faults)
    // Service files have changed since the start. What decides here are those of the start.
    if (answer.catalogue !== this.#catalogue.digest) return loadBundle({ paths: files, catalogue: this.#catalogue })
    return assemble(answer.reviewed, this.#catalogue)
  }

  async close(): Promise<void> {
    clearTimeout(this.#idle)
    await this.#worker?.terminate()
  }

  /** Validation takes time with the text, and with the operations that it may speak of. */
  #weight(files: readonly SourceFile[]): number {
    const operations = this.#catalogue.services.reduce((sum, service) => sum + service.operations.length, 0)
    return operations * files.reduce((sum, { text }) => sum + text.length, 0)
  }

  async #ask(paths: BundleSource['paths']): Promise<WasReviewed> {
    clearTimeout(this.#idle)
    const id = ++this.#last
    const { promise, resolve } = Promise.withResolvers<WasReviewed>()
    this.#waiting.set(id, resolve)
    const patience = setTimeout(() => void this.#worker?.terminate(), PATIENCE_MS)
    this.#worker ??= this.#start()
    this.#worker.postMessage({ id, paths, source: this.#source } satisfies ToReview)
    try {
      return await promise
    } finally {
      clearTimeout(patience)
      this.#idle = setTimeout(() => void this.#worker?.terminate(), IDLE_MS).unref()
    }
  }

  #start(): Worker {
    const worker = new Worker(new URL('./review-worker.ts', import.meta.url), {
      env: threadEnv(),
      execArgv: [],
      resourceLimits: { maxOldGenerationSizeMb: MEMORY_MB },
    })
    let why = `they took longer than ${PATIENCE_MS / 1000} s to check`
    worker.on('message', (answer: WasReviewed) => {
      this.#waiting.get(answer.id)?.(answer)
      this.#waiting.delete(answer.id)
    })
    worker.on('error', (cause) => {
      why = `they brought the validator down: ${cause instanceof Error ? cause.message : String(cause)}`
    })
    worker.on('exit', () => {
      if (this.#worker === worker) this.#worker = undefined
      const faults = [
        { where: 'policies', got: why, allowed: 'policies that can be checked', fix: 'make them smaller' },
      ]
      for (const [id, answered] of this.#waiting) answered({ id, faults })
      this.#waiting.clear()
    })
    return worker
  }
}
