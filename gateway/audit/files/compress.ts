/**
 * Compresses a closed segment into frames of 256 entries, and removes the plain file when the compressed one has been read back and
 * every entry in it has the hash that was logged. Whenever it is cut short, one whole file of the segment is there.
 */
import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { constants, zstdCompressSync } from 'node:zlib'
import { syncDirectory } from '../../private-file.ts'
import { files, MAX_LINE_BYTES } from '../lines.ts'
import { FRAME_ENTRIES, openText } from '../text.ts'
import { leafHash } from '../tree/merkle.ts'
import { HASH_BYTES } from '../tree/proofs.ts'
import { readAt, seekTable } from './seekable.ts'
import { closedName } from './segments.ts'

export interface ClosedSegment {
  readonly dir: string
  /** Number of its first entry. */
  readonly first: number
  readonly count: number
}

/** 6 would be a fifth smaller on entries of 1 KiB, for twice the time: processors are dearer than disks. */
const LEVEL = 3
const LF = 0x0a
/** Of the plain file, read at once. */
const BLOCK_BYTES = 1024 * 1024
const MAX_FRAME_BYTES = FRAME_ENTRIES * (MAX_LINE_BYTES + 1)

/** @throws {Error} when the text of the segment is not what was logged: then the file stays as it is, as evidence. */
export async function compressSegment(segment: ClosedSegment): Promise<void> {
  const plain = join(segment.dir, closedName(segment.first))
  const compressed = `${plain}.zst`
  const fresh = `${compressed}.new`
  if (!(await isSound(segment, compressed))) {
    await writeFrames(segment, plain, fresh)
    if (!(await isSound(segment, fresh))) {
      await rm(fresh)
      throw new Error(`${plain} does not hold the entries that were logged.`)
    }
    await rename(fresh, compressed)
    await syncDirectory(dirname(compressed))
  }
  await rm(plain)
  await syncDirectory(dirname(plain))
}

async function writeFrames({ first }: ClosedSegment, from: string, to: string): Promise<void> {
  const text = await open(from, 'r')
  const file = await open(to, 'w', 0o600)
  try {
    const frames: { bytes: number; textBytes: number }[] = []
    for await (const plain of framesOf(text, first)) {
      const frame = zstdCompressSync(plain, { params: { [constants.ZSTD_c_compressionLevel]: LEVEL } })
      await file.writeFile(frame)
      frames.push({ bytes: frame.length, textBytes: plain.length })
    }
    await file.writeFile(seekTable(frames))
    await file.sync()
  } finally {
    await file.close()
    await text.close()
  }
}

/** The text in pieces that end where a number divisible by 256 comes. Each is valid until the next one is asked for. */
async function* framesOf(file: FileHandle, first: number): AsyncGenerator<Buffer> {
  let block = Buffer.allocUnsafeSlow(BLOCK_BYTES)
  let at = 0
  let wanted = FRAME_ENTRIES - (first % FRAME_ENTRIES)
  for (;;) {
    const { bytesRead } = await file.read(block, 0, block.length, at)
    const text = block.subarray(0, bytesRead)
    let used = 0
    for (let end = endOf(text, used, wanted); end > 0; end = endOf(text, used, wanted)) {
      yield text.subarray(used, end)
      used = end
      wanted = FRAME_ENTRIES
    }
    at += used
    if (bytesRead < block.length) {
      if (used < bytesRead) yield text.subarray(used)
      return
    }
    if (used > 0) continue
    if (block.length > MAX_FRAME_BYTES)
      throw new Error(`the text at byte ${at} holds lines that are too long for entries.`)
    block = Buffer.allocUnsafeSlow(2 * block.length)
  }
}

/** Offset behind the line feed of the `count`th line from `from` on; 0 when the text ends before. */
function endOf(text: Buffer, from: number, count: number): number {
  let end = from
  for (let i = 0; i < count; i++) {
    end = text.indexOf(LF, end) + 1
    if (end === 0) return 0
  }
  return end
}

/** Whether the compressed file is there, and holds exactly the entries of which the hashes were logged. */
async function isSound({ dir, first, count }: ClosedSegment, path: string): Promise<boolean> {
  const leaves = await leavesOf(dir, first, count)
  let seq = 0
  try {
    const text = await openText({ path, first, form: 'zstd' })
    try {
      for await (const lines of text.lines(0)) {
        for (const { bytes } of lines) {
          if (seq >= count || leafHash(bytes).compare(leaves, seq * HASH_BYTES, (seq + 1) * HASH_BYTES) !== 0)
            return false
          seq += 1
        }
      }
    } finally {
      await text.close()
    }
  } catch {
    // Absent, or damaged: it is made again from the plain file.
    return false
  }
  return seq === count
}

async function leavesOf(dir: string, first: number, count: number): Promise<Buffer> {
  let file: FileHandle | undefined
  try {
    file = await open(join(dir, files.leaves), 'r')
    return await readAt(file, first * HASH_BYTES, count * HASH_BYTES)
  } finally {
    await file?.close()
  }
}
