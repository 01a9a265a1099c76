/** An attempt over HTTP/2: one stream of a session that carries other exchanges of the same grant. */
import { STATUS_CODES } from 'node:http'
import { type ClientHttp2Stream, constants, type IncomingHttpHeaders } from 'node:http2'
import { errors } from 'undici'
import type { Outbound } from '../protocol/message.ts'
import type { Answer, Source } from './answer.ts'
import { Attempt, type AttemptOwner, type Body } from './attempt.ts'
import { answerFields, requestFields } from './http2-fields.ts'
import type { Pool, PooledSession } from './pool.ts'
import { Upload } from './upload.ts'

const { NGHTTP2_CANCEL, NGHTTP2_ENHANCE_YOUR_CALM, NGHTTP2_FLAG_END_STREAM, NGHTTP2_NO_ERROR, NGHTTP2_REFUSED_STREAM } =
  constants

export class Http2Attempt extends Attempt {
  readonly #pool: Pool
  readonly #session: PooledSession
  readonly isFresh: boolean
  #stream: ClientHttp2Stream | undefined
  #body: Body = null
  #isPaused = false
  /** END_STREAM came. */
  #hasEnded = false
  /** Nothing more is passed on: all of it was, or the stream broke off. */
  #isOver = false
  #trailers: readonly Buffer[] = []

  /** @param session with a place taken in it, which is given back when the stream is closed. */
  constructor(owner: AttemptOwner, answer: (source: Source) => Answer, pool: Pool, session: PooledSession) {
    super(owner, answer)
    this.#pool = pool
    this.#session = session
    this.isFresh = !session.hasAnswered
  }

  get address(): string {
    return this.#session.address
  }

  get isUnprocessed(): boolean {
    return this.#stream?.rstCode === NGHTTP2_REFUSED_STREAM || this.#session.isBeyond(this.#stream?.id)
  }

  send(outbound: Outbound, body: Body): void {
    this.#body = body
    try {
      this.#stream = this.#session.client.request(requestFields(outbound), {
        endStream: body === null,
        // Node ends a stream before it resets it, and half an upload would look whole; it does not while trailers may follow.
        waitForTrailers: body instanceof Upload,
      })
    } catch (cause) {
      this.#pool.leave(this.#session)
      this.#break(cause)
      return
    }
    this.#listen(this.#stream)
    if (body instanceof Upload) {
      body.on('data', (chunk: Buffer) => this.sent(chunk))
      body.on('error', (cause) => this.#break(cause))
      body.pipe(this.#stream)
    } else if (body !== null) {
      this.sent(body)
      this.#stream.end(body)
    }
  }

  pause(): void {
    this.#isPaused = true
    this.#stream?.pause()
  }

  resume(): void {
    this.#isPaused = false
    this.#wait(this.#pool.options.bodyTimeoutMs)
    this.#stream?.resume()
  }

  protected cancel(): void {
    this.#isOver = true
    const stream = this.#stream
    if (stream === undefined || stream.destroyed) return
    stream.close(NGHTTP2_CANCEL)
    stream.destroy() // or it would wait for a peer that may never read
  }

  #listen(stream: ClientHttp2Stream): void {
    // Node ends a stream that was reset without an error as if END_STREAM had come; only here the two can be told apart.
    const push = stream.push
    stream.push = (chunk, encoding) => {
      if (chunk === null && !stream.closed) this.#hasEnded = true
      return push.call(stream, chunk, encoding)
    }
    this.#wait(this.#pool.options.headersTimeoutMs)
    stream
      .on('headers', (headers) => this.#answered(headers, []))
      .on('response', (headers: IncomingHttpHeaders, flags: number, raw: string[]) =>
        this.#respond(headers, flags, raw),
      )
      .on('trailers', (_headers: unknown, _flags: number, raw: string[]) => this.#trailed(raw))
      .on('data', (chunk: Buffer) => {
        if (!this.#isOver) this.data(chunk)
      })
      .on('end', () => {
        if (this.#hasEnded) this.#complete()
      })
      .on('timeout', () => this.#late())
      .on('error', (cause: Error) => this.#break(cause))
      .on('close', () => {
        if (stream.rstCode === NGHTTP2_ENHANCE_YOUR_CALM) this.#pool.retire(this.#session)
        this.#pool.leave(this.#session)
        this.#break(this.#lossOf(stream))
      })
  }

  #respond(headers: IncomingHttpHeaders, flags: number, raw: readonly string[]): void {
    this.#session.hasAnswered = true
    this.#wait(this.#pool.options.bodyTimeoutMs)
    this.#answered(headers, raw)
    // gRPC's answers without a message are one frame: passed on at once, they stay one frame.
    if ((flags & NGHTTP2_FLAG_END_STREAM) !== 0) this.#complete()
  }

  #answered(headers: IncomingHttpHeaders, raw: readonly string[]): void {
    if (this.#isOver) return
    this.hasSpoken = true
    const status = Number(headers[':status'])
    try {
      this.head(status, STATUS_CODES[status] ?? '', answerFields(raw))
    } catch (cause) {
      this.#break(cause)
    }
  }

  #trailed(raw: readonly string[]): void {
    try {
      this.#trailers = answerFields(raw)
    } catch (cause) {
      this.#break(cause)
    }
  }

  #complete(): void {
    if (this.#isOver) return
    this.#isOver = true
    // RFC 9113 §8.1: a complete answer may come before the request is; the rest of it is for nobody.
    if (this.#body instanceof Upload && !this.#body.readableEnded) {
      this.#body.destroy()
      this.#stream?.close(NGHTTP2_NO_ERROR)
    }
    this.finish(this.#trailers)
  }

  #break(cause: unknown): void {
    if (this.#isOver) return
    this.cancel()
    this.fail(cause)
  }

  #late(): void {
    if (this.#isPaused) return // it is the agent who is slow
    this.#break(this.status === 0 ? new errors.HeadersTimeoutError() : new errors.BodyTimeoutError())
  }

  /** Of silence on the stream. */
  #wait(timeoutMs: number): void {
    if (!this.#stream?.closed) this.#stream?.setTimeout(timeoutMs)
  }

  #lossOf(stream: ClientHttp2Stream): Error {
    const code = this.#session.client.destroyed ? 'ECONNRESET' : 'ERR_HTTP2_STREAM_ERROR'
    return Object.assign(new Error(`stream closed with code ${stream.rstCode}`), { code })
  }
}
