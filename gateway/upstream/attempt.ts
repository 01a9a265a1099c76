/**
 * One request on one connection: undici's handler. It knows how far the exchange got, and holds a 401 back until it is
 * clear whether a better credential exists.
 */
import type { Dispatcher } from 'undici'
import type { Outbound } from '../protocol/message.ts'
import type { Answer, Source } from './answer.ts'
import type { Connection, Pool } from './pool.ts'
import type { Upload } from './upload.ts'

export type Body = Buffer | Upload | null

/** What an attempt tells the exchange it belongs to. */
export interface AttemptOwner {
  /** A 401 came. @returns whether a better credential is being asked for; `proceed` follows if there is none. */
  challenged(attempt: Attempt): boolean
  delivered(attempt: Attempt): void
  failed(attempt: Attempt, cause: unknown): void
}

interface Held {
  readonly status: number
  readonly statusText: string
  readonly raw: readonly Buffer[]
  readonly chunks: Buffer[]
  trailers: readonly Buffer[] | undefined
  failure: { readonly cause: unknown } | undefined
}

export class Attempt implements Dispatcher.DispatchHandler, Source {
  readonly connection: Connection
  readonly #owner: AttemptOwner
  readonly #pool: Pool
  readonly #answer: Answer
  #controller: Dispatcher.DispatchController | undefined
  #held: Held | undefined
  #isGivenBack = false
  #hasSpoken = false
  #status = 0
  #sentBytes = 0

  constructor(owner: AttemptOwner, pool: Pool, connection: Connection, answer: (source: Source) => Answer) {
    this.#owner = owner
    this.#pool = pool
    this.connection = connection
    this.#answer = answer(this)
  }

  get answer(): Answer {
    return this.#answer
  }

  /** Has the upstream sent any byte of an answer? */
  get hasSpoken(): boolean {
    return this.#hasSpoken
  }

  /** Status the upstream answered with; 0 before its head came. */
  get status(): number {
    return this.#status
  }

  get sentBytes(): number {
    return this.#sentBytes
  }

  send(outbound: Outbound, body: Body): void {
    const { path, method, headers } = outbound
    this.connection.client.dispatch({ path, method, headers: headers as string[], body }, this)
  }

  /** There is no better credential: pass on the 401 that was held back. */
  proceed(): void {
    const held = this.#held
    if (held === undefined) return
    this.#held = undefined
    try {
      this.#answer.start(held.status, held.statusText, held.raw)
    } catch (cause) {
      this.#owner.failed(this, cause)
      return
    }
    for (const chunk of held.chunks) this.#answer.data(chunk)
    if (held.failure !== undefined) this.#owner.failed(this, held.failure.cause)
    else if (held.trailers !== undefined) this.#answer.finish(held.trailers)
    else this.#controller?.resume()
  }

  /** Nobody wants this attempt's answer any more. */
  abandon(): void {
    this.#answer.abandon()
    if (!this.#isGivenBack) this.#pool.discard(this.connection)
    this.#isGivenBack = true
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller
  }

  onBodySent(chunk: Buffer): void {
    this.#sentBytes += chunk.length
  }

  onResponseStarted(): void {
    this.#hasSpoken = true
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number, _: unknown, statusText = ''): void {
    if (status < 200) return // 102, 103: hints for whoever caches; nobody here does
    this.#status = status
    const raw = controller.rawHeaders as readonly Buffer[]
    if (status === 401 && this.#owner.challenged(this)) {
      controller.pause()
      this.#held = { status, statusText, raw, chunks: [], trailers: undefined, failure: undefined }
      return
    }
    this.#answer.start(status, statusText, raw) // what it throws comes back as onResponseError
  }

  onResponseData(_: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#held === undefined) this.#answer.data(chunk)
    else this.#held.chunks.push(chunk)
  }

  onResponseEnd(controller: Dispatcher.DispatchController): void {
    // undici takes a reset for the end of an answer that only the closing of its connection ends.
    if (this.connection.isReset) {
      this.onResponseError(controller, new Error('reset'))
      return
    }
    if (!this.#isGivenBack) this.#pool.release(this.connection)
    this.#isGivenBack = true
    const trailers = (controller.rawTrailers ?? []) as readonly Buffer[]
    if (this.#held === undefined) this.#answer.finish(trailers)
    else this.#held.trailers = trailers
  }

  onResponseError(_: unknown, cause: unknown): void {
    if (!this.#isGivenBack) this.#pool.discard(this.connection)
    this.#isGivenBack = true
    if (this.#held === undefined) this.#owner.failed(this, cause)
    else this.#held.failure = { cause }
  }

  pause(): void {
    this.#controller?.pause()
  }

  resume(): void {
    this.#controller?.resume()
  }

  delivered(): void {
    this.#owner.delivered(this)
  }

  broken(cause: unknown): void {
    this.#owner.failed(this, cause)
  }
}
