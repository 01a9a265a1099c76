/**
 * The content of one HTTP/2 request. Complete only with END_STREAM: a stream of Node ends for its reader also when the
 * client has reset it, and what it sent until then must not pass for all of it.
 */
import type { ServerHttp2Stream } from 'node:http2'
import { Readable } from 'node:stream'

export class StreamBody extends Readable {
  readonly #stream: ServerHttp2Stream
  readonly #asksFirst: boolean
  #isReading = false
  #isWhole = false

  /** @param asksFirst the client waits for `100 Continue`, which is sent when somebody wants the content. */
  constructor(stream: ServerHttp2Stream, asksFirst: boolean) {
    super({ highWaterMark: 64 * 1024 })
    this.#stream = stream
    this.#asksFirst = asksFirst
    this.on('error', () => {}) // whoever reads hears of it as well
    stream.once('close', () => this.#broken())
  }

  override _read(): void {
    if (!this.#isReading) this.#start()
    this.#stream.resume()
  }

  #start(): void {
    this.#isReading = true
    const stream = this.#stream
    stream.on('data', (chunk: Buffer) => {
      if (!this.push(chunk)) stream.pause()
    })
    stream.once('end', () => {
      this.#isWhole = !stream.aborted
      if (this.#isWhole) this.push(null)
      else this.#broken()
    })
    if (this.#asksFirst && !stream.headersSent && !stream.closed) stream.additionalHeaders({ ':status': 100 })
  }

  #broken(): void {
    if (!this.#isWhole) this.destroy(new Error('the stream was reset'))
  }
}
