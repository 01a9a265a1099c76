/** A file of the log as a stream of lines, in bounded memory. One line is one entry. */
import { createReadStream } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'

/** Names in the directory of a log. `segments.ts` names the files of entries that are closed, `proofs.ts` the hashes above `leaves`. */
export const files = {
  /** One canonical entry per line: the segment that is being written. Segments are the truth; all but them and the checkpoint can be made again. */
  entries: 'entries.jsonl',
  /** Signed head of the tree. */
  checkpoint: 'checkpoint',
  /** The newest one that witnesses have cosigned. */
  witnessed: 'checkpoint.witnessed',
  /** Leaf hashes, 32 bytes each: C2SP level-0 tiles end to end. */
  leaves: 'leaves',
  lock: 'lock',
} as const

export interface Line {
  /** Without the line feed. Valid until the next chunk is asked for. */
  readonly bytes: Buffer
  /** Offset of the first byte in the file. */
  readonly start: number
  /** False for the last line of a file that does not end in a line feed, and for one too long to be an entry. */
  readonly isWhole: boolean
}

/** Longer than any entry can be: reading further would only fill the memory. */
export const MAX_LINE_BYTES = 64 * 1024

const CHUNK_BYTES = 1024 * 1024
const LF = 0x0a

/**
 * Lines from offset `from` on, a chunk's worth at a time. Ends after a line that is not whole. A file handle stays open.
 * @throws what the file system throws.
 */
export async function* readLines(
  source: string | FileHandle,
  from = 0,
  to = Number.POSITIVE_INFINITY,
): AsyncGenerator<Line[]> {
  if (to <= from) return
  let rest: Buffer = Buffer.alloc(0)
  let start = from
  const span = { start: from, ...(Number.isFinite(to) ? { end: to - 1 } : {}), highWaterMark: CHUNK_BYTES }
  const stream =
    typeof source === 'string' ? createReadStream(source, span) : source.createReadStream({ ...span, autoClose: false })
  for await (const chunk of stream) {
    const bytes: Buffer = rest.length > 0 ? Buffer.concat([rest, chunk as Buffer]) : (chunk as Buffer)
    const lines = split(bytes, start)
    const last = lines.at(-1)
    const used = last ? last.start + last.bytes.length + 1 - start : 0
    rest = bytes.subarray(used)
    start += used
    if (rest.length > MAX_LINE_BYTES) lines.push({ bytes: rest.subarray(0, MAX_LINE_BYTES), start, isWhole: false })
    if (lines.length > 0) yield lines
    if (rest.length > MAX_LINE_BYTES) return
  }
  if (rest.length > 0) yield [{ bytes: rest, start, isWhole: false }]
}

/** The whole lines in `bytes`, and no more than `most`; `start` is where `bytes` begins in the file. */
export function split(bytes: Buffer, start: number, most = Number.POSITIVE_INFINITY): Line[] {
  const lines: Line[] = []
  let from = 0
  for (let at = bytes.indexOf(LF); at >= 0 && lines.length < most; at = bytes.indexOf(LF, from)) {
    lines.push({ bytes: bytes.subarray(from, at), start: start + from, isWhole: true })
    from = at + 1
  }
  return lines
}
