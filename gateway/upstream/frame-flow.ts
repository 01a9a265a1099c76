/**
 * Frames on their way in one direction: checked, and rid of credentials where they go to the agent. A credential may lie
 * across the frames of one message; what hides it keeps its length, so every header stays true.
 */
import type { Censor } from '../protocol/message.ts'
import {
  CLOSE,
  type ControlFrame,
  FrameError,
  type FrameLimits,
  FrameReader,
  type FrameSink,
  type Sender,
} from './frames.ts'
import { Scrubber } from './scrub.ts'
import type { Searcher } from './searcher.ts'

export interface FlowParts {
  readonly sender: Sender
  readonly limits: FrameLimits
  /** Null when nothing is searched for in this direction. */
  readonly searcher: Searcher | null
  /** Called once, when the first credential is overwritten. */
  readonly leaked?: () => void
  /** Looks at payload before it goes on. */
  readonly censor?: Censor | undefined
  /** What may go on. */
  write(bytes: Buffer): void
}

/** Empty fragments and control frames that wait behind the beginning of what could be a credential: honest peers send a few. */
const MAX_WAITING = 1_000

/** What has to wait until the payload before it may go on. */
interface Waiting {
  /** Bytes of payload that go first. */
  after: number
  readonly bytes: Buffer
}

export class FrameFlow implements FrameSink {
  readonly #parts: FlowParts
  readonly #reader: FrameReader
  #scrubber: Scrubber | undefined
  #found = 0
  /** Payload that the scrubber holds back. */
  #held = 0
  readonly #waiting: Waiting[] = []
  #hasClosed = false
  /** Mask of the data frame that is under way, and how far it is. */
  #mask: Buffer | undefined
  #at = 0

  constructor(parts: FlowParts) {
    this.#parts = parts
    this.#reader = new FrameReader(parts.sender, parts.limits, this)
  }

  /** Credentials overwritten. */
  get found(): number {
    return this.#found + (this.#scrubber?.found ?? 0)
  }

  /** The sender has said that it closes. */
  get hasClosed(): boolean {
    return this.#hasClosed
  }

  /** Whether a frame of our own may follow what has gone on. */
  get isBetweenFrames(): boolean {
    return this.#held === 0 && this.#reader.isBetweenFrames
  }

  /** @param chunk given away: credentials in it are overwritten. @throws {FrameError} @throws {GatewayError} of the censor */
  push(chunk: Buffer): void {
    this.#reader.push(chunk)
  }

  header(bytes: Buffer): void {
    this.#mask = this.#parts.sender === 'agent' ? bytes.subarray(-4) : undefined
    this.#at = 0
    this.#inTurn(bytes)
  }

  payload(bytes: Buffer, isLast: boolean): void {
    const { searcher, censor, write, leaked } = this.#parts
    const refusal = censor?.look(this.#unmasked(bytes), isLast)
    if (refusal !== undefined) throw refusal
    if (searcher === null) {
      if (bytes.length > 0) write(bytes)
      return
    }
    this.#scrubber ??= new Scrubber(searcher, this.#found === 0 ? leaked : undefined)
    const released = this.#scrubber.push(bytes, isLast)
    this.#held += bytes.length - released.length
    this.#release(released)
    if (!isLast) return
    this.#found += this.#scrubber.found
    this.#scrubber = undefined // a credential cannot go on in the next message
  }

  control(frame: ControlFrame): void {
    const { searcher, censor } = this.#parts
    const refusal = censor?.lookAlone(saidIn(frame))
    if (refusal !== undefined) throw refusal
    const isFirst = this.found === 0
    if (searcher !== null) this.#found += searcher.mask(frame.bytes.subarray(frame.start))
    if (isFirst && this.found > 0) this.#parts.leaked?.()
    if (frame.opcode === CLOSE) this.#hasClosed = true
    this.#inTurn(frame.bytes)
  }

  /** As it is meant. */
  #unmasked(bytes: Buffer): Buffer {
    const mask = this.#mask
    if (mask === undefined) return bytes
    const plain = xored(bytes, mask, this.#at)
    this.#at = (this.#at + plain.length) & 3
    return plain
  }

  #inTurn(bytes: Buffer): void {
    if (this.#held === 0) this.#parts.write(bytes)
    else if (this.#waiting.push({ after: this.#held, bytes }) > MAX_WAITING)
      throw new FrameError(1009, `more than ${MAX_WAITING} frames come before the rest of a message`)
  }

  /** Payload in order, with what waited for it in between. */
  #release(payload: Buffer): void {
    let at = 0
    for (let next = this.#waiting[0]; next !== undefined && next.after <= payload.length; next = this.#waiting[0]) {
      if (next.after > at) this.#parts.write(payload.subarray(at, next.after))
      at = Math.max(at, next.after)
      this.#parts.write(next.bytes)
      this.#waiting.shift()
    }
    for (const waiting of this.#waiting) waiting.after -= payload.length
    if (at < payload.length) this.#parts.write(payload.subarray(at))
  }
}

/** What an agent says in a control frame, as it is meant; of a close the reason, without its code. */
function saidIn({ opcode, bytes, start }: ControlFrame): Buffer {
  const payload = xored(bytes.subarray(start), bytes.subarray(start - 4, start), 0)
  return opcode === CLOSE ? payload.subarray(2) : payload
}

/** RFC 6455 §5.3. @param at how far into the payload `bytes` begin. @returns a copy: what goes on stays masked. */
function xored(bytes: Buffer, mask: Buffer, at: number): Buffer {
  const plain = Buffer.from(bytes)
  for (let i = 0; i < plain.length; i += 1) plain[i] = (plain[i] as number) ^ (mask[(at + i) & 3] as number)
  return plain
}
