/**
 * One forwarded call from the first byte up to the last byte down: sends it, sends it again where that is safe, and ends
 * once, whichever side leaves first. Every way out gives the connection back or destroys it.
 */
import type { Grant } from '../protocol/grant.ts'
import { BodyHash } from '../protocol/keyed-hash.ts'
import type { AnswerHead, Outbound, Outcome, Rejection, Reply } from '../protocol/message.ts'
import type { GatewayError } from '../protocol/problem.ts'
import type { Service } from '../protocol/service.ts'
import type { Answer } from './answer.ts'
import { answering, type BodyHashes } from './answering.ts'
import { type Attempt, type AttemptOwner, type Body, isRejected } from './attempt.ts'
import { Http1Attempt } from './attempt-http1.ts'
import { Http2Attempt } from './attempt-http2.ts'
import { asFailure, isConnectionLoss, withLeaks } from './failure.ts'
import type { Lasting, LastingCalls } from './lasting.ts'
import type { Pool, PooledConnection, PooledSession } from './pool.ts'
import type { Searchers } from './searcher.ts'
import { Session } from './session.ts'
import { collect, lengthOf, MAX_REPLAY_BYTES, refusalOf, Upload } from './upload.ts'

export interface ExchangeParts {
  readonly pool: Pool
  readonly searchers: Searchers
  readonly hashes: BodyHashes
  readonly lasting: LastingCalls
  readonly flushSoon: (answer: Answer) => void
}

export interface Call {
  readonly outbound: Outbound
  readonly reply: Reply
  /** A better credential for the same request, after one that was not taken; null if there is none. */
  readonly reissue: (answer: AnswerHead) => Promise<Outbound | null>
  /** A credential came back, and was overwritten. Perhaps more than once. */
  readonly leaked: () => void
  readonly resolve: (outcome: Outcome) => void
  readonly reject: (cause: unknown) => void
}

/** Status recorded when the agent left before any answer (nginx's word for it). */
const CLIENT_CLOSED_REQUEST = 499

/** RFC 9110 §9.2.2. */
const IDEMPOTENT: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE'])

export class Exchange implements AttemptOwner, Lasting {
  readonly #parts: ExchangeParts
  readonly #call: Call
  place = -1
  unwatch: Lasting['unwatch']
  #outbound: Outbound
  #body: Body = null
  #attempt: Attempt | undefined
  #mayReissue: boolean
  #mayReconnect = true
  #isOver = false

  constructor(parts: ExchangeParts, call: Call) {
    this.#parts = parts
    this.#call = call
    this.#outbound = call.outbound
    this.#mayReissue = call.outbound.secrets.length > 0
  }

  get grant(): Grant {
    return this.#outbound.grant
  }

  get service(): Service {
    return this.#outbound.service
  }

  get standing(): Outbound['standing'] {
    return this.#outbound.standing
  }

  start(): void {
    const { reply } = this.#call
    if (reply.destroyed) {
      this.#leave()
      return
    }
    reply.on('close', () => this.#leave())
    this.#parts.lasting.add(this)
    const source = this.#outbound.body
    if (source === null) {
      this.#send()
      return
    }
    if (Buffer.isBuffer(source)) {
      this.#collected(source)
      return
    }
    const length = lengthOf(this.#outbound.headers)
    if (length !== undefined && length <= MAX_REPLAY_BYTES) {
      collect(source, length, (bytes) => this.#collected(bytes))
      return
    }
    this.#body = new Upload(source, this.#outbound)
    this.#send()
  }

  newHash(): BodyHash {
    return new BodyHash(this.#parts.hashes.requests, this.grant.tenant)
  }

  challenged(attempt: Attempt, answer: AnswerHead): Rejection {
    const rejection = this.#mayReissue && !this.#isOver && isRejected(this.#outbound, answer)
    if (rejection !== true) return rejection
    this.#mayReissue = false
    this.#call.reissue(answer).then(
      (better) => this.#reissued(attempt, better),
      (cause) => this.#fail(attempt, cause),
    )
    return true
  }

  delivered(attempt: Attempt): void {
    this.#settle(attempt, undefined)
  }

  failed(attempt: Attempt, cause: unknown): void {
    if (this.#isOver || attempt !== this.#attempt) return
    if (this.#mayReconnect && this.#isUntouched(attempt, cause)) {
      this.#mayReconnect = false
      this.#attempt = undefined
      this.#send(true)
      return
    }
    // The body broke off before the reply noticed: it is the agent who left.
    if (this.#body instanceof Upload && this.#body.isBroken) this.#leave()
    else this.#fail(attempt, cause)
  }

  cut(why: GatewayError): void {
    this.#fail(this.#attempt, why)
  }

  #collected(bytes: Buffer | null): void {
    if (this.#isOver) return
    if (bytes === null) {
      this.#leave()
      return
    }
    const refusal = refusalOf(bytes, this.#outbound)
    if (refusal !== undefined) {
      this.#fail(undefined, refusal)
      return
    }
    this.#body = bytes.length === 0 ? null : bytes
    this.#send()
  }

  /** @param isRetry on a connection of its own: an older one lost or refused the request. */
  #send(isRetry = false): void {
    const { pool } = this.#parts
    if (this.#outbound.isHttp2 !== true) {
      this.#sendOver(isRetry ? pool.takeFresh(this.#outbound) : pool.take(this.#outbound))
      return
    }
    pool.reach(this.#outbound, isRetry).then(
      (carrier) => this.#reached(carrier),
      (cause) => this.#fail(undefined, cause),
    )
  }

  #reached(carrier: PooledSession | PooledConnection): void {
    const { pool } = this.#parts
    if (!this.#isOver) this.#sendOver(carrier)
    else if (carrier instanceof Session) pool.leave(carrier)
    else pool.discard(carrier)
  }

  #sendOver(carrier: PooledSession | PooledConnection): void {
    const { pool } = this.#parts
    const answer = answering(this.#parts, this.#outbound, this.#call)
    const attempt =
      carrier instanceof Session
        ? new Http2Attempt(this, answer, pool, carrier)
        : new Http1Attempt(this, answer, pool, carrier)
    this.#attempt = attempt
    attempt.send(this.#outbound, this.#body)
  }

  #reissued(attempt: Attempt, better: Outbound | null): void {
    if (this.#isOver) return
    if (better === null || this.#body instanceof Upload) {
      attempt.proceed()
      return
    }
    attempt.abandon()
    this.#attempt = undefined
    this.#outbound = better
    if (Buffer.isBuffer(better.body)) this.#body = better.body // what signs or fills in a body made another one
    this.#send()
  }

  /**
   * Did the upstream not process the request? It says so (RFC 9113 §8.7), or it closed an idle connection in the moment that
   * was used again.
   */
  #isUntouched(attempt: Attempt, cause: unknown): boolean {
    if (attempt.hasSpoken || this.#body instanceof Upload) return false
    if (attempt.isUnprocessed) return true
    return !attempt.isFresh && IDEMPOTENT.has(this.#outbound.method) && isConnectionLoss(cause)
  }

  /** After the head only cutting the reply tells the agent that something is missing. */
  #fail(attempt: Attempt | undefined, cause: unknown): void {
    if (this.#isOver) return
    const { host, port } = this.#outbound
    const failure = asFailure(cause, `${host}:${port}`)
    if (attempt?.answer.isSent) {
      this.#settle(attempt, failure.code)
      this.#call.reply.destroy()
      return
    }
    this.#end()
    this.#dispose()
    this.#call.reject(attempt === undefined ? failure : withLeaks(failure, attempt.answer.overwritten))
  }

  /** The agent is gone: stop the upstream, which may be costing money. */
  #leave(): void {
    if (this.#isOver) return
    this.#settle(this.#attempt, 'client_left')
  }

  #settle(attempt: Attempt | undefined, error: string | undefined): void {
    if (this.#isOver) return
    this.#end()
    if (error !== undefined) this.#dispose()
    const answer = attempt?.answer
    const scrubbed = answer?.overwritten.found ?? 0
    const outcome: Outcome = {
      status: answer?.isSent && attempt ? attempt.status : CLIENT_CLOSED_REQUEST,
      sentBytes: attempt?.sentBytes ?? 0,
      receivedBytes: answer?.passed ?? 0,
      sentHash: attempt?.sentHash.take(),
      receivedHash: answer?.hash.take(),
      scrubbed,
      address: attempt?.address,
      error,
    }
    this.#call.resolve(
      answer === undefined || scrubbed === 0 ? outcome : { ...outcome, leaks: answer.overwritten.leaks },
    )
  }

  #end(): void {
    this.#isOver = true
    this.#parts.lasting.delete(this)
  }

  #dispose(): void {
    this.#attempt?.abandon()
    if (this.#body instanceof Upload) this.#body.destroy()
  }
}
