/**
 * Zstandard files that can be read from the middle: frames one after the other, and behind them a skippable frame that says how
 * long each is (Zstandard Seekable Format 0.1.0). `zstd -d` reads them like any other.
 */
import type { FileHandle } from 'node:fs/promises'
import { promisify } from 'node:util'
import { zstdDecompress } from 'node:zlib'

export interface Frame {
  /** Offset and length in the file. */
  readonly at: number
  readonly bytes: number
  /** Offset and length in the text. */
  readonly textAt: number
  readonly textBytes: number
}

const SKIPPABLE_MAGIC = 0x184d2a5e
const SEEKABLE_MAGIC = 0x8f92eab1
const HEAD_BYTES = 8
const ROW_BYTES = 8
const FOOT_BYTES = 9
const inflate = promisify(zstdDecompress)

/** What stands behind the last frame. */
export function seekTable(frames: readonly Pick<Frame, 'bytes' | 'textBytes'>[]): Buffer {
  const rows = frames.length * ROW_BYTES
  const table = Buffer.alloc(HEAD_BYTES + rows + FOOT_BYTES)
  table.writeUInt32LE(SKIPPABLE_MAGIC, 0)
  table.writeUInt32LE(rows + FOOT_BYTES, 4)
  for (const [i, { bytes, textBytes }] of frames.entries()) {
    table.writeUInt32LE(bytes, HEAD_BYTES + i * ROW_BYTES)
    table.writeUInt32LE(textBytes, HEAD_BYTES + i * ROW_BYTES + 4)
  }
  table.writeUInt32LE(frames.length, HEAD_BYTES + rows)
  // Descriptor 0: no checksums of its own. The leaf hashes prove more.
  table.writeUInt32LE(SEEKABLE_MAGIC, HEAD_BYTES + rows + 5)
  return table
}

/** @throws {Error} when the file does not end in a seek table that accounts for all of it. */
export async function readSeekTable(file: FileHandle, path: string): Promise<Frame[]> {
  const { size } = await file.stat()
  const foot = await readAt(file, Math.max(0, size - FOOT_BYTES), FOOT_BYTES)
  const isMarked = foot.length === FOOT_BYTES && foot.readUInt32LE(5) === SEEKABLE_MAGIC && foot[4] === 0
  const count = isMarked ? foot.readUInt32LE(0) : 0
  const length = HEAD_BYTES + count * ROW_BYTES + FOOT_BYTES
  if (!isMarked || length > size) throw new Error(`${path} does not end in a seek table: it is damaged.`)
  const table = await readAt(file, size - length, length)
  const frames: Frame[] = []
  let [at, textAt] = [0, 0]
  for (let i = HEAD_BYTES; i < HEAD_BYTES + count * ROW_BYTES; i += ROW_BYTES) {
    const frame = { at, bytes: table.readUInt32LE(i), textAt, textBytes: table.readUInt32LE(i + 4) }
    frames.push(frame)
    at += frame.bytes
    textAt += frame.textBytes
  }
  if (at !== size - length) throw new Error(`${path} has a seek table that does not fit its frames: it is damaged.`)
  return frames
}

/** The least that Node allows. */
const MIN_CHUNK_BYTES = 64

/** @param most bytes of text that it may have: a few of a file can stand for all of memory. @throws {Error} when the frame does not hold the text that the table says. */
export async function readFrame(file: FileHandle, frame: Frame, most: number): Promise<Buffer> {
  if (frame.textBytes > most) throw new Error(`a frame holds ${frame.textBytes} bytes, more than its entries can have`)
  // In one piece, and not in pieces of 16 KiB that are joined.
  const room = { maxOutputLength: frame.textBytes + 1, chunkSize: Math.max(MIN_CHUNK_BYTES, frame.textBytes + 1) }
  const text = await inflate(await readAt(file, frame.at, frame.bytes), room)
  if (text.length !== frame.textBytes)
    throw new Error(`a frame holds ${text.length} bytes instead of ${frame.textBytes}`)
  return text
}

/** Up to `length` bytes; fewer at the end of the file. */
export async function readAt(file: FileHandle, position: number, length: number): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(length), 0, length, position)
  return buffer.subarray(0, bytesRead)
}
