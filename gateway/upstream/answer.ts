/**
 * Writes one upstream answer to the agent: head, scrubbed body with back-pressure, trailers. A head waits for bytes that
 * came with it, so that a small answer leaves in one write, and is sent at the end of the event loop's turn otherwise.
 */
import type { Leaks, Reply } from '../protocol/message.ts'
import type { Meter } from '../protocol/meter.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { Slot } from '../protocol/service.ts'
import { type Decoded, Decoder, isDecodable } from './decode.ts'
import { type Head, readHead, readTrailers } from './head.ts'
import { Scrubber } from './scrub.ts'
import type { Searcher } from './searcher.ts'

/** Where the answer comes from, and who wants to know how it went. */
export interface Source {
  pause(): void
  resume(): void
  /** Everything is on its way to the agent. */
  delivered(): void
  /** The answer cannot be passed on. */
  broken(cause: unknown): void
}

export interface AnswerParts {
  readonly reply: Reply
  readonly searcher: Searcher | null
  /** A credential went out with the request. */
  readonly isCredentialed: boolean
  readonly isHead: boolean
  /** Where the service takes credentials. */
  readonly slots: readonly Slot[]
  readonly meter: Meter | undefined
  /** Calls `flush` at the end of this turn of the event loop. */
  readonly flushSoon: (answer: Answer) => void
}

/** Up to this size a body is written as a string, which Node joins with the head into one write. */
const MAX_JOINED_BYTES = 16 * 1024
const EMPTY = Buffer.alloc(0)

export class Answer implements Decoded {
  readonly #parts: AnswerParts
  readonly #source: Source
  #head: Head | undefined
  #isSent = false
  #isOver = false
  #isListening = false
  /** Bytes that came with the head. */
  #first: Buffer | undefined
  #decoder: Decoder | undefined
  #scrubber: Scrubber | undefined
  #trailers: readonly Buffer[] = []
  #inHead = 0
  #inTrailers = 0
  #taken = 0
  #passed = 0

  constructor(parts: AnswerParts, source: Source) {
    this.#parts = parts
    this.#source = source
  }

  get isSent(): boolean {
    return this.#isSent
  }

  /** Bytes of body passed on. */
  get passed(): number {
    return this.#passed
  }

  /** Credentials overwritten in head, body and trailers. */
  get found(): number {
    return this.#inHead + this.#inTrailers + (this.#scrubber?.found ?? 0)
  }

  /** The same by place. */
  get leaks(): Leaks {
    const body = this.#scrubber?.found ?? 0
    return {
      ...(this.#inHead > 0 && { head: this.#inHead }),
      ...(body > 0 && { body }),
      ...(this.#inTrailers > 0 && { trailer: this.#inTrailers }),
    }
  }

  /** @throws {GatewayError} `upstream_encoding`, `upstream_broken`. */
  start(status: number, statusText: string, raw: readonly Buffer[]): void {
    const { searcher, isCredentialed, isHead, slots, flushSoon } = this.#parts
    if (status === 407)
      throw new GatewayError('upstream_broken', 'The upstream asked for proxy credentials, which only a proxy may.')
    const hasBody = !isHead && status !== 204 && status !== 304
    const head = readHead({ status, statusText, raw, isCredentialed, searcher, hasBody, slots })
    this.#head = head
    this.#inHead += head.found
    if (searcher !== null && hasBody) this.#scrubber = new Scrubber(searcher)
    if (head.coding !== undefined) {
      if (!isDecodable(head.coding)) {
        throw new GatewayError(
          'upstream_encoding',
          `The answer is coded as ${head.coding} although identity was asked for.`,
        )
      }
      this.#decoder = new Decoder(head.coding, this)
    }
    flushSoon(this)
  }

  data(chunk: Buffer): void {
    if (this.#isOver) return
    this.#taken += chunk.length
    if (this.#decoder === undefined) this.bytes(chunk)
    else if (!this.#decoder.write(chunk)) this.#source.pause()
  }

  /** The upstream has sent everything. */
  finish(trailers: readonly Buffer[]): void {
    if (this.#isOver) return
    this.#trailers = trailers
    if (this.#decoder === undefined) this.end()
    else this.#decoder.end()
  }

  /** Send the head, and what came with it, if that has not happened yet. */
  flush(): void {
    if (this.#isOver || this.#isSent || this.#head === undefined) return
    try {
      this.#sendHead(this.#head)
    } catch (cause) {
      this.failed(cause)
      return
    }
    if (this.#first === undefined) this.#parts.reply.flushHeaders()
    else this.#write(this.#first)
  }

  /** Nobody waits for the rest. */
  abandon(): void {
    this.#isOver = true
    this.#decoder?.destroy()
  }

  bytes(chunk: Buffer): void {
    if (this.#isOver) return
    const isLast = this.#decoder === undefined && this.#taken === this.#head?.contentLength
    const bytes = this.#scrubber === undefined ? chunk : this.#scrubber.push(chunk, isLast)
    if (bytes.length === 0 || !this.#pass(bytes.length)) return
    if (!this.#isSent && this.#first === undefined) {
      this.#first = bytes
      return
    }
    this.flush()
    if (!this.#isOver) this.#write(bytes)
  }

  end(): void {
    if (this.#isOver || this.#head === undefined) return
    const { reply, searcher } = this.#parts
    const held = this.#scrubber?.push(EMPTY, true) ?? EMPTY
    if (held.length > 0 || this.#trailers.length > 0) this.flush()
    if (this.#isOver) return
    if (held.length > 0) {
      if (!this.#pass(held.length)) return
      this.#write(held)
    }
    if (this.#trailers.length > 0) {
      const { pairs, found } = readTrailers(this.#trailers, searcher)
      this.#inTrailers += found
      reply.addTrailers(pairs)
    }
    if (this.#isSent) reply.end()
    else if (!this.#sendWhole(this.#head)) return
    this.#isOver = true
    this.#source.delivered()
  }

  failed(cause: unknown): void {
    if (this.#isOver) return
    this.#source.broken(cause)
  }

  drained(): void {
    this.#source.resume()
  }

  #pass(bytes: number): boolean {
    const { meter } = this.#parts
    if (meter !== undefined && !meter.receive(bytes)) {
      this.failed(meter.exceeded())
      return false
    }
    this.#passed += bytes
    return true
  }

  #sendWhole(head: Head): boolean {
    const { reply } = this.#parts
    try {
      this.#sendHead(head)
    } catch (cause) {
      this.failed(cause)
      return false
    }
    const body = this.#first
    if (body === undefined) reply.end()
    else if (body.length <= MAX_JOINED_BYTES) reply.end(body.toString('latin1'), 'latin1')
    else reply.end(body)
    return true
  }

  #sendHead(head: Head): void {
    const { reply } = this.#parts
    try {
      reply.writeHead(head.status, head.statusText, head.headers)
    } catch (cause) {
      // Node refuses to announce trailers to an HTTP/1.0 agent, which gets no chunks.
      if ((cause as NodeJS.ErrnoException).code !== 'ERR_HTTP_TRAILER_INVALID') throw unwritable(cause)
      reply.writeHead(head.status, head.statusText, withoutField(head.headers, 'trailer'))
    }
    this.#isSent = true
  }

  #write(bytes: Buffer): void {
    const { reply } = this.#parts
    if (reply.write(bytes)) return
    if (this.#decoder === undefined) this.#source.pause()
    else this.#decoder.pause()
    if (this.#isListening) return
    this.#isListening = true
    reply.on('drain', () => {
      if (this.#decoder === undefined) this.#source.resume()
      else this.#decoder.resume()
    })
  }
}

function withoutField(headers: readonly string[], name: string): string[] {
  return headers.filter((_, i) => headers[i - (i % 2)]?.toLowerCase() !== name)
}

function unwritable(cause: unknown): GatewayError {
  return new GatewayError('upstream_broken', 'The head of the answer cannot be passed on.', { cause })
}
