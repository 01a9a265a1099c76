/**
 * One request on one upstream connection, whichever protocol carries it: how far the exchange got, and an answer that does not take the credential held back
 * until it is clear whether a better credential exists.
 */
import type { BodyHash } from '../protocol/keyed-hash.ts'
import type { AnswerHead, Outbound, Rejection } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { Answer, Source } from './answer.ts'
import type { Upload } from './upload.ts'

export type Body = Buffer | Upload | null

/** What an attempt tells the exchange it belongs to. */
export interface AttemptOwner {
  /**
   * A 4xx came. @returns whether a better credential is being asked for; `proceed` follows if there is none. `body`: to be asked again
   * with the body.
   */
  challenged(attempt: Attempt, answer: AnswerHead): Rejection
  delivered(attempt: Attempt): void
  failed(attempt: Attempt, cause: unknown): void
  /** For the body of one attempt. */
  newHash(): BodyHash
}

/** Whether this answer says that the credential in the request is not taken. */
export function isRejected({ isRejection }: Outbound, answer: AnswerHead): Rejection {
  return isRejection === undefined ? answer.status === 401 : isRejection(answer)
}

interface Held {
  readonly status: number
  readonly statusText: string
  readonly raw: readonly Buffer[]
  readonly chunks: Buffer[]
  /** Bytes that may still come of a body that is waited for; 0: it is not. */
  awaited: number
  trailers: readonly Buffer[] | undefined
  failure: { readonly cause: unknown } | undefined
}

/** Interim answers (1xx) before a final one. Real upstreams send one or two. */
const MAX_INTERIM = 100
/** Bytes of a body that may say that the credential is not taken. S3 repeats the session token there; a longer one is passed on unread. */
const MAX_AWAITED_BYTES = 16 * 1024

export abstract class Attempt implements Source {
  readonly #owner: AttemptOwner
  readonly #answer: Answer
  #held: Held | undefined
  #status = 0
  #interim = 0
  /** Has the upstream sent any byte of an answer? */
  hasSpoken = false
  /** Bytes of body sent, and their hash. */
  sentBytes = 0
  readonly sentHash: BodyHash

  constructor(owner: AttemptOwner, answer: (source: Source) => Answer) {
    this.#owner = owner
    this.#answer = answer(this)
    this.sentHash = owner.newHash()
  }

  get answer(): Answer {
    return this.#answer
  }

  /** Status the upstream answered with; 0 before its head came. */
  get status(): number {
    return this.#status
  }

  /** Address that was dialled. */
  abstract get address(): string | undefined
  /** Is its connection one that has not served before? A failure on an older one may be a race with its closing. */
  abstract get isFresh(): boolean
  /** Did the upstream say that it has not looked at the request? Then any request may be sent again. */
  abstract get isUnprocessed(): boolean

  abstract send(outbound: Outbound, body: Body): void
  abstract pause(): void
  abstract resume(): void
  /** Stop the upstream, if it is still sending or being sent to. */
  protected abstract cancel(): void

  /** There is no better credential: pass on the answer that was held back. */
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
    else this.resume()
  }

  /** Nobody wants this attempt's answer any more. */
  abandon(): void {
    this.#held = undefined
    this.#answer.abandon()
    this.cancel()
  }

  delivered(): void {
    this.#owner.delivered(this)
  }

  broken(cause: unknown): void {
    this.#owner.failed(this, cause)
  }

  /** This went up. */
  protected sent(bytes: Buffer): void {
    this.sentBytes += bytes.length
    this.sentHash.add(bytes)
  }

  /**
   * A head came, interim (1xx) or final.
   * @throws {GatewayError} `upstream_encoding`, `upstream_broken`.
   */
  protected head(status: number, statusText: string, raw: readonly Buffer[]): void {
    if (status < 200) {
      this.#skip() // 102, 103: hints for whoever caches; nobody here does
      return
    }
    this.#status = status
    const rejection = status >= 400 && status < 500 && this.#owner.challenged(this, { status, raw })
    if (rejection === false) {
      this.#answer.start(status, statusText, raw)
      return
    }
    const awaited = rejection === 'body' ? MAX_AWAITED_BYTES : 0
    if (awaited === 0) this.pause()
    this.#held = { status, statusText, raw, chunks: [], awaited, trailers: undefined, failure: undefined }
  }

  protected data(chunk: Buffer): void {
    const held = this.#held
    if (held === undefined) {
      this.#answer.data(chunk)
      return
    }
    held.chunks.push(chunk)
    if (held.awaited === 0) return
    held.awaited -= chunk.length
    if (held.awaited <= 0) this.proceed()
  }

  protected finish(trailers: readonly Buffer[]): void {
    const held = this.#held
    if (held === undefined) {
      this.#answer.finish(trailers)
      return
    }
    held.trailers = trailers
    if (held.awaited === 0) return
    held.awaited = 0
    const { status, raw, chunks } = held
    if (this.#owner.challenged(this, { status, raw, body: Buffer.concat(chunks) }) !== true) this.proceed()
  }

  protected fail(cause: unknown): void {
    if (this.#held === undefined) {
      this.#owner.failed(this, cause)
      return
    }
    this.#held.failure = { cause }
    if (this.#held.awaited > 0) this.proceed()
  }

  #skip(): void {
    this.#interim += 1
    if (this.#interim > MAX_INTERIM)
      throw new GatewayError('upstream_broken', `The upstream sent more than ${MAX_INTERIM} interim answers.`)
  }
}
