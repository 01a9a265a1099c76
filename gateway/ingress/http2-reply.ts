/**
 * A reply as one HTTP/2 stream. Written over the raw stream, because Node's compatibility layer sends no trailers without
 * a body. The head waits for what follows it, so that an answer without content is one frame, as gRPC clients need it
 * (trailers-only), and a cut answer never looks whole: END_STREAM is sent by `end` alone.
 */
import { constants, type ServerHttp2Stream } from 'node:http2'
import type { Reply } from '../protocol/message.ts'

/** RFC 9113 §8.2.2: what belongs to a connection makes the whole answer malformed. */
const CONNECTION_SPECIFIC: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
  'te',
])

export class StreamReply implements Reply {
  readonly mayAnswerEarly = true
  readonly #stream: ServerHttp2Stream
  #head: string[] = []
  #isBodiless: boolean
  #headersSent = false
  #trailers: [string, string][] = []
  #isEnded = false
  #isCut = false

  constructor(stream: ServerHttp2Stream, isHead: boolean) {
    this.#stream = stream
    this.#isBodiless = isHead
  }

  get headersSent(): boolean {
    return this.#headersSent
  }

  get writableEnded(): boolean {
    return this.#isEnded
  }

  /** Nothing more is owed: the answer is complete, or we cut it ourselves. */
  get isOver(): boolean {
    return this.#isEnded || this.#isCut
  }

  get writableNeedDrain(): boolean {
    return this.#stream.writableNeedDrain
  }

  get destroyed(): boolean {
    return this.#isCut || this.#stream.closed || this.#stream.destroyed
  }

  /** @throws {RangeError} for a status that HTTP/2 streams of Node cannot carry. */
  writeHead(status: number, reasonOrHeaders: string | string[], headers?: string[]): this {
    if (status < 200 || status > 599) throw new RangeError(`no stream carries the status ${status}`)
    const given = headers ?? (reasonOrHeaders as string[]) // there is no reason phrase (RFC 9113 §8.3.2)
    const head = [':status', String(status)]
    for (let i = 0; i + 1 < given.length; i += 2) {
      const name = (given[i] as string).toLowerCase()
      if (!CONNECTION_SPECIFIC.has(name)) head.push(name, given[i + 1] as string)
    }
    this.#head = head
    this.#isBodiless ||= status === 204 || status === 205 || status === 304
    return this
  }

  flushHeaders(): void {
    if (!this.#headersSent && !this.destroyed) this.#respond(!this.#isBodiless)
  }

  write(bytes: Buffer | string): boolean {
    if (this.destroyed) return true
    this.flushHeaders()
    return this.#isBodiless || this.#stream.write(bytes)
  }

  addTrailers(pairs: [string, string][]): void {
    this.#trailers.push(...pairs)
  }

  end(bytes?: Buffer | string, encoding: BufferEncoding = 'utf8'): void {
    if (this.#isEnded || this.destroyed) return
    this.#isEnded = true
    const hasMore = !this.#isBodiless && (this.#trailers.length > 0 || (bytes !== undefined && bytes.length > 0))
    if (!this.#headersSent) this.#respond(hasMore)
    if (this.#isBodiless || this.#stream.writableEnded) this.#stopRequest()
    else this.#stream.end(bytes, encoding)
  }

  destroy(): void {
    if (this.destroyed) return
    this.#isCut = true
    this.#stream.close(constants.NGHTTP2_INTERNAL_ERROR)
  }

  on(event: string, listener: () => void): this {
    this.#stream.on(event, listener)
    return this
  }

  once(event: string, listener: () => void): this {
    this.#stream.once(event, listener)
    return this
  }

  off(event: string, listener: () => void): this {
    this.#stream.off(event, listener)
    return this
  }

  /**
   * With more to follow, the end is left to `wantTrailers`, which Node asks for only after `end`. Without that, Node ends a
   * stream that is closed for any reason, and half an answer would look whole.
   */
  #respond(hasMore: boolean): void {
    this.#headersSent = true
    const stream = this.#stream
    if (hasMore) stream.once('wantTrailers', () => this.#sendTrailers())
    this.#orCut(() => stream.respond(this.#head, hasMore ? { waitForTrailers: true } : { endStream: true }))
  }

  #sendTrailers(): void {
    if (!this.#isEnded || this.destroyed) return
    const trailers: Record<string, string[]> = Object.create(null)
    for (const [name, value] of this.#trailers) {
      const field = name.toLowerCase()
      if (CONNECTION_SPECIFIC.has(field)) continue
      trailers[field] ??= []
      trailers[field].push(value)
    }
    this.#orCut(() => this.#stream.sendTrailers(trailers))
    this.#stopRequest()
  }

  /** Fields that Node refuses to send leave nothing that could be answered. */
  #orCut(send: () => void): void {
    try {
      send()
    } catch {
      this.destroy()
    }
  }

  /** RFC 9113 §8.1: the answer is complete, so the client need not send the rest of the request. */
  #stopRequest(): void {
    if (this.#stream.endAfterHeaders) return
    setImmediate(() => this.#stream.close(constants.NGHTTP2_NO_ERROR)) // after the trailers, which Node sends in an immediate too
  }
}
