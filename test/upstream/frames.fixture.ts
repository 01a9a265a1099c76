/** Frames put together and taken apart by the letter of RFC 6455 §5.2, for tests of whoever does it for real. */
import type { Sender } from '../../gateway/upstream/frames.ts'

export interface Frame {
  readonly opcode: number
  readonly isFinal: boolean
  /** Unmasked. */
  readonly payload: Buffer
  readonly isMasked?: boolean
}

const MASK = Buffer.from([0x37, 0xfa, 0x21, 0x3d])

export function frameBytes({ opcode, isFinal, payload }: Frame, sender: Sender): Buffer {
  const isMasked = sender === 'agent'
  const { length } = payload
  const extended = length > 65_535 ? Buffer.alloc(8) : length > 125 ? Buffer.alloc(2) : Buffer.alloc(0)
  if (extended.length === 8) extended.writeBigUInt64BE(BigInt(length))
  if (extended.length === 2) extended.writeUInt16BE(length)
  const short = extended.length === 8 ? 127 : extended.length === 2 ? 126 : length
  const head = Buffer.from([(isFinal ? 0x80 : 0) | opcode, (isMasked ? 0x80 : 0) | short])
  if (!isMasked) return Buffer.concat([head, extended, payload])
  return Buffer.concat([head, extended, MASK, payload.map((byte, i) => byte ^ (MASK[i % 4] as number))])
}

/** Whole frames at the beginning of `bytes`. */
export function readFrames(bytes: Buffer): Frame[] {
  const frames: Frame[] = []
  for (let at = 0; at + 2 <= bytes.length; ) {
    const place = placeOf(bytes, at)
    if (place === undefined) break
    const { start, length, isMasked } = place
    const mask = bytes.subarray(start - 4, start)
    const raw = bytes.subarray(start, start + length)
    const payload = isMasked ? Buffer.from(raw.map((byte, i) => byte ^ (mask[i % 4] as number))) : Buffer.from(raw)
    const first = bytes[at] as number
    frames.push({ opcode: first & 0x0f, isFinal: (first & 0x80) !== 0, payload, isMasked })
    at = start + length
  }
  return frames
}

/** Where the payload of the frame at `at` is; undefined when it is not all there. */
function placeOf(bytes: Buffer, at: number) {
  const isMasked = ((bytes[at + 1] as number) & 0x80) !== 0
  const short = (bytes[at + 1] as number) & 0x7f
  const extended = short === 127 ? 8 : short === 126 ? 2 : 0
  const start = at + 2 + extended + (isMasked ? 4 : 0)
  if (start > bytes.length) return undefined
  const length = extended === 0 ? short : Number(`0x${bytes.toString('hex', at + 2, at + 2 + extended)}`)
  return start + length > bytes.length ? undefined : { start, length, isMasked }
}

/** The bytes, cut at these places. */
export function inPieces(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const places = [...new Set([0, ...cuts.filter((cut) => cut < bytes.length), bytes.length])].sort((a, b) => a - b)
  return places
    .slice(0, Math.max(1, places.length - 1))
    .map((from, i) => Buffer.from(bytes.subarray(from, places[i + 1])))
}
