/**
 * Writes one upstream answer to the agent: head, scrubbed body with back-pressure, trailers. A head waits for bytes that
 * came with it, so that a small answer leaves in one write, and is sent at the end of the event loop's turn otherwise.
 */
import type { BodyHash } from '../protocol/keyed-hash.ts'
import type { Reply } from '../protocol/message.ts'
import type { Meter } from '../protocol/meter.ts'
import { GatewayError } from '../protocol/problem.ts'
import { readFields } from './answer-fields.ts'
import { captureAnswer, MAX_CAPTURED_BYTES, tooLarge } from './capture.ts'
import { type Decoded, Decoder, isDecodable } from './decode.ts'
import { type Head, type HeadTerms, isGathered, readHead, readTrailers } from './head.ts'
import { endWith, Outlet, writeHead } from './outlet.ts'
import { Overwritten } from './overwritten.ts'
import { redactAnswer, tooLarge as redactTooLarge } from './redact.ts'
import { Scrubber } from './scrub.ts'

/** Where the answer comes from, and who wants to know how it went. */
export interface Source {
  pause(): void
  resume(): void
  /** Everything is on its way to the agent. */
  delivered(): void
  /** The answer cannot be passed on. */
  broken(cause: unknown): void
}

/** Whom the answer is for, and what may be in it. */
export interface AnswerParts extends HeadTerms {
  readonly reply: Reply
  readonly isHead: boolean
  readonly meter: Meter | undefined
  /** A credential was overwritten, in head, body or trailers. Perhaps more than once; the answer may go on for long. */
  readonly leaked: () => void
  /** Calls `flush` at the end of this turn of the event loop. */
  readonly flushSoon: (answer: Answer) => void
}

const EMPTY = Buffer.alloc(0)

export class Answer implements Decoded {
  readonly #parts: AnswerParts
  readonly #source: Source
  /** Of the body as the upstream sends it, before anything is decoded or overwritten. */
  readonly hash: BodyHash
  readonly overwritten: Overwritten
  #head: Head | undefined
  #isSent = false
  #isOver = false
  #isWhole = false
  #outlet: Outlet | undefined
  /** What is captured, so far. */
  readonly #gathered: Buffer[] = []
  /** Bytes that came with the head. */
  #first: Buffer | undefined
  #decoder: Decoder | undefined
  #trailers: readonly Buffer[] = []
  #taken = 0
  #passed = 0

  constructor(parts: AnswerParts, source: Source, hash: BodyHash) {
    this.#parts = parts
    this.#source = source
    this.hash = hash
    this.overwritten = new Overwritten(parts.leaked)
  }

  get isSent(): boolean {
    return this.#isSent
  }

  /** Bytes of body passed on. */
  get passed(): number {
    return this.#passed
  }

  /** @throws {GatewayError} `upstream_encoding`, `upstream_broken`. */
  start(status: number, statusText: string, raw: readonly Buffer[]): void {
    const { searcher, isHead, flushSoon, leaked } = this.#parts
    const { texts: fields, found } = readFields(raw, searcher)
    this.overwritten.in('head', found) // before anything can go wrong with it
    if (status === 407)
      throw new GatewayError('upstream_broken', 'The upstream asked for proxy credentials, which only a proxy may.')
    const hasBody = !isHead && status !== 204 && status !== 304
    const head = readHead({ status, statusText, fields, hasBody }, this.#parts)
    this.#head = head
    this.overwritten.in('head', head.found)
    if (searcher !== null && hasBody) this.overwritten.body = new Scrubber(searcher, leaked)
    if (head.coding !== undefined) {
      if (!isDecodable(head.coding)) {
        throw new GatewayError(
          'upstream_encoding',
          `The answer is coded as ${head.coding} although identity was asked for.`,
        )
      }
      this.#decoder = new Decoder(head.coding, this)
      if (head.isCodedAgain) this.#outlet = this.#newOutlet(head.coding)
    }
    if (!isGathered(this.#parts)) flushSoon(this)
  }

  data(chunk: Buffer): void {
    if (this.#isOver) return
    this.#taken += chunk.length
    this.hash.add(chunk)
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
    if (this.#isWhole) {
      if (this.#sendWhole(this.#head, this.#first)) this.#close()
      return
    }
    try {
      writeHead(this.#parts.reply, this.#head)
      this.#isSent = true
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
    this.#outlet?.destroy()
  }

  bytes(chunk: Buffer): void {
    if (this.#isOver) return
    const isLast = this.#decoder === undefined && this.#taken === this.#head?.contentLength
    const bytes = this.overwritten.body === undefined ? chunk : this.overwritten.body.push(chunk, isLast)
    if (bytes.length === 0 || !this.#pass(bytes.length)) return
    if (isGathered(this.#parts)) {
      if (this.#passed > MAX_CAPTURED_BYTES) this.failed(this.#tooLarge())
      else this.#gathered.push(bytes)
      return
    }
    if (!this.#isSent && this.#first === undefined) {
      this.#first = bytes
      return
    }
    this.flush()
    if (!this.#isOver) this.#write(bytes)
  }

  end(): void {
    if (this.#isOver || this.#head === undefined) return
    const held = this.overwritten.body?.push(EMPTY, true) ?? EMPTY
    if (held.length > 0 && !this.#pass(held.length)) return
    if (isGathered(this.#parts)) {
      void this.#sendGathered(this.#head, Buffer.concat([...this.#gathered, held]))
      return
    }
    if (held.length > 0 || this.#trailers.length > 0 || this.#outlet !== undefined) this.flush()
    if (this.#isOver) return
    if (held.length > 0) this.#write(held)
    if (!this.#isSent) {
      this.#isWhole = true
      return
    }
    if (this.#outlet === undefined) this.#close()
    else this.#outlet.end(() => this.#close())
  }

  /** Everything is with the reply but what follows the body. */
  #close(): void {
    if (this.#isOver) return
    const { reply, searcher } = this.#parts
    if (this.#trailers.length > 0) {
      const { pairs, found } = readTrailers(this.#trailers, searcher)
      this.overwritten.in('trailer', found)
      reply.addTrailers(pairs)
    }
    if (!reply.writableEnded) reply.end()
    this.#isOver = true
    this.#source.delivered()
  }

  #tooLarge(): GatewayError {
    return this.#parts.capture === undefined ? redactTooLarge(MAX_CAPTURED_BYTES) : tooLarge()
  }

  /** An answer of which something stays here goes out whole, with what stands for that, or not at all. */
  async #sendGathered(head: Head, gathered: Buffer): Promise<void> {
    const { capture, redact } = this.#parts
    try {
      let shown = { headers: head.headers, body: gathered }
      if (capture !== undefined) shown = await captureAnswer(head, gathered, capture)
      if (redact !== undefined) shown = redactAnswer({ ...head, headers: shown.headers }, shown.body, redact)
      const { headers, body } = shown
      if (this.#isOver || !this.#sendWhole({ ...head, headers }, body.length === 0 ? undefined : body)) return
      this.#isOver = true
      this.#source.delivered()
    } catch (cause) {
      this.failed(cause)
    }
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

  #sendWhole(head: Head, body: Buffer | undefined): boolean {
    try {
      writeHead(this.#parts.reply, head)
      this.#isSent = true
    } catch (cause) {
      this.failed(cause)
      return false
    }
    endWith(this.#parts.reply, body)
    return true
  }

  #write(bytes: Buffer): void {
    this.#outlet ??= this.#newOutlet(undefined)
    if (!this.#outlet.write(bytes)) this.#flow.pause()
  }

  /** What to hold up when the agent reads slowly. */
  get #flow(): Pick<Source, 'pause' | 'resume'> {
    return this.#decoder ?? this.#source
  }

  #newOutlet(coding: string | undefined): Outlet {
    return new Outlet(this.#parts.reply, coding, () => this.#flow.resume())
  }
}
