/**
 * WebSocket frames (RFC 6455 §5) of one direction: cut out of bytes however those arrive, and held to the rules. Payloads go
 * on as they come, so no frame is too large for memory; only control frames, 125 bytes at most, are gathered. Pure.
 */

/** Who sent the bytes: agents mask, upstreams do not (§5.1). */
export type Sender = 'agent' | 'upstream'

export interface FrameLimits {
  /** Payload of one frame. */
  readonly maxFrameBytes: number
  /** Payloads of all frames of one message. */
  readonly maxMessageBytes: number
}

/** Gets what a reader cuts out. Bytes are as they came, masked if they were. */
export interface FrameSink {
  /** A data frame begins. */
  header(bytes: Buffer): void
  /** @param isLast the message is complete with these, which may be none. */
  payload(bytes: Buffer, isLast: boolean): void
  control(frame: ControlFrame): void
}

export interface ControlFrame {
  readonly opcode: number
  /** All of it. */
  readonly bytes: Buffer
  /** Where the payload begins. */
  readonly start: number
}

/** The peer broke the protocol. */
export class FrameError extends Error {
  /** RFC 6455 §7.4.1. */
  readonly status: 1002 | 1009

  constructor(status: 1002 | 1009, what: string) {
    super(what)
    this.name = 'FrameError'
    this.status = status
  }
}

export const CONTINUATION = 0x0
export const CLOSE = 0x8
const TEXT = 0x1
const BINARY = 0x2
const OPCODES: ReadonlySet<number> = new Set([CONTINUATION, TEXT, BINARY, CLOSE, 0x9, 0xa])
const MAX_CONTROL_BYTES = 125
const MAX_HEADER_BYTES = 14
const EMPTY = Buffer.alloc(0)

export class FrameReader {
  readonly #isMasked: boolean
  readonly #limits: FrameLimits
  readonly #sink: FrameSink
  /** The header that is being read. */
  readonly #header = Buffer.alloc(MAX_HEADER_BYTES)
  #have = 0
  #need = 2
  #opcode = CONTINUATION
  #isFinal = true
  /** Payload of the current frame that has not come yet. */
  #left = 0
  /** Of a control frame: what has come of it. */
  #gathered: Buffer[] | undefined
  /** Payload of the message that is under way; undefined between messages. */
  #message: number | undefined
  #isClosed = false

  constructor(sender: Sender, limits: FrameLimits, sink: FrameSink) {
    this.#isMasked = sender === 'agent'
    this.#limits = limits
    this.#sink = sink
  }

  /** Whether everything that was passed on is whole frames. */
  get isBetweenFrames(): boolean {
    return this.#left === 0
  }

  /** @throws {FrameError} once: nothing may be pushed after it. */
  push(chunk: Buffer): void {
    let at = 0
    while (at < chunk.length && !this.#isClosed) {
      if (this.#left > 0) {
        const piece = chunk.subarray(at, at + this.#left)
        at += piece.length
        this.#payload(piece)
      } else {
        this.#header[this.#have] = chunk[at] as number
        this.#have += 1
        at += 1
        if (this.#have === 2) this.#begin()
        if (this.#have === this.#need) this.#finishHeader()
      }
    }
  }

  /** The first two bytes are there: everything but lengths is settled by them. */
  #begin(): void {
    const first = this.#header[0] as number
    const second = this.#header[1] as number
    this.#isFinal = (first & 0x80) !== 0
    this.#opcode = first & 0x0f
    const short = second & 0x7f
    if ((first & 0x70) !== 0) throw new FrameError(1002, 'reserved bits are set, and no extension was agreed on')
    if (!OPCODES.has(this.#opcode)) throw new FrameError(1002, `opcode ${this.#opcode} is reserved`)
    if (((second & 0x80) !== 0) !== this.#isMasked)
      throw new FrameError(1002, this.#isMasked ? 'a frame is not masked' : 'a frame is masked')
    if (this.#isControl) {
      if (!this.#isFinal) throw new FrameError(1002, 'a control frame is fragmented')
      if (short > MAX_CONTROL_BYTES) throw new FrameError(1002, 'a control frame is longer than 125 bytes')
    } else if ((this.#opcode === CONTINUATION) !== (this.#message !== undefined)) {
      const isStray = this.#opcode === CONTINUATION
      throw new FrameError(1002, isStray ? 'a continuation without a message' : 'a message inside another one')
    }
    this.#need = 2 + (short === 127 ? 8 : short === 126 ? 2 : 0) + (this.#isMasked ? 4 : 0)
  }

  #finishHeader(): void {
    const bytes = Buffer.from(this.#header.subarray(0, this.#have))
    const length = lengthIn(bytes)
    this.#have = 0
    this.#need = 2
    if (this.#isControl) {
      this.#left = length
      this.#gathered = [bytes]
      if (length === 0) this.#finishControl()
      return
    }
    const message = (this.#message ?? 0) + length
    if (length > this.#limits.maxFrameBytes)
      throw new FrameError(1009, `a frame is larger than ${this.#limits.maxFrameBytes} bytes`)
    if (message > this.#limits.maxMessageBytes)
      throw new FrameError(1009, `a message is larger than ${this.#limits.maxMessageBytes} bytes`)
    this.#left = length
    this.#message = this.#isFinal ? undefined : message
    this.#sink.header(bytes)
    if (length === 0 && this.#isFinal) this.#sink.payload(EMPTY, true)
  }

  #payload(piece: Buffer): void {
    this.#left -= piece.length
    if (this.#gathered === undefined) {
      this.#sink.payload(piece, this.#left === 0 && this.#isFinal)
      return
    }
    this.#gathered.push(piece)
    if (this.#left === 0) this.#finishControl()
  }

  #finishControl(): void {
    const bytes = Buffer.concat(this.#gathered ?? [])
    this.#gathered = undefined
    const frame = { opcode: this.#opcode, bytes, start: this.#isMasked ? 6 : 2 }
    if (this.#opcode === CLOSE) {
      checkClose(frame, this.#isMasked)
      this.#isClosed = true // §5.5.1: nothing follows; what does is not looked at
    }
    this.#sink.control(frame)
  }

  get #isControl(): boolean {
    return this.#opcode >= CLOSE
  }
}

/** §5.2: the shortest form there is, and no sign bit. */
function lengthIn(header: Buffer): number {
  const short = (header[1] as number) & 0x7f
  if (short < 126) return short
  if (short === 126) {
    const length = header.readUInt16BE(2)
    if (length < 126) throw new FrameError(1002, 'a length is not written in its shortest form')
    return length
  }
  const length = header.readUInt32BE(2) * 2 ** 32 + header.readUInt32BE(6)
  if (length < 2 ** 16) throw new FrameError(1002, 'a length is not written in its shortest form')
  if (length >= 2 ** 63) throw new FrameError(1002, 'a length has its first bit set')
  return length
}

/** §7.4: a code of those that may be sent, or none at all. */
function checkClose({ bytes, start }: ControlFrame, isMasked: boolean): void {
  const length = bytes.length - start
  if (length === 0) return
  if (length === 1) throw new FrameError(1002, 'a close frame has half a code')
  const mask = isMasked ? bytes.readUInt16BE(2) : 0
  const code = bytes.readUInt16BE(start) ^ mask
  const isSendable =
    (code >= 1000 && code <= 1014 && code !== 1004 && code !== 1005 && code !== 1006) || (code >= 3000 && code <= 4999)
  if (!isSendable) throw new FrameError(1002, `a close frame has the code ${code}`)
}

/**
 * A close frame.
 * @param reason cut to the 123 bytes that fit. @param mask four bytes, in the direction in which frames are masked
 */
export function closeFrame(code: number, reason: string, mask?: Buffer): Buffer {
  const text = Buffer.from(reason).subarray(0, MAX_CONTROL_BYTES - 2)
  const payload = Buffer.concat([Buffer.from([code >> 8, code & 0xff]), text])
  if (mask === undefined) return Buffer.concat([Buffer.from([0x80 | CLOSE, payload.length]), payload])
  const masked = payload.map((byte, i) => byte ^ (mask[i % 4] as number))
  return Buffer.concat([Buffer.from([0x80 | CLOSE, 0x80 | payload.length]), mask, masked])
}
