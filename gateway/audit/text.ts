/**
 * The text of one segment of the log, whatever form its file has: forwards from any offset, backwards, or one entry. Offsets
 * count bytes of the text, so a place stays good when its segment is compressed.
 */
import { type FileHandle, open } from 'node:fs/promises'
import { parseEntry } from './entries/entry.ts'
import { type Frame, readAt, readFrame, readSeekTable } from './files/seekable.ts'
import { type Line, MAX_LINE_BYTES, readLines, split } from './lines.ts'

/** Entries in a frame, and in a C2SP entry bundle; frames begin at multiples. */
export const FRAME_ENTRIES = 256

export interface Text {
  /** Lines from offset `from` on, a block at a time, to offset `to` or the end. */
  lines(from: number, to?: number): AsyncGenerator<Line[]>
  /** The same blocks of whole lines from the end back: the last block first, in each the lines in order. */
  linesBack(): AsyncGenerator<Line[]>
  /** The line of entry `seq`, which must not be before the segment's first. */
  find(seq: number): Promise<Line | undefined>
  /** Offset behind the last line feed. */
  end(): Promise<number>
  close(): Promise<void>
}

const BLOCK_BYTES = 256 * 1024
const LF = 0x0a

/** @throws {Error} ENOENT when the file has just changed its form or name. */
export async function openText(o: { path: string; first: number; form: 'plain' | 'zstd' }): Promise<Text> {
  const file = await open(o.path, 'r')
  if (o.form === 'plain') return new PlainText(file)
  try {
    return new FramedText(file, await readSeekTable(file, o.path), o.first)
  } catch (cause) {
    await file.close()
    throw cause
  }
}

/** Undefined when the file has just changed its form or name: the next listing of the segments has the new one. */
export function openIfThere(o: Parameters<typeof openText>[0]): Promise<Text | undefined> {
  return openText(o).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== 'ENOENT') throw cause
    return undefined
  })
}

class PlainText implements Text {
  readonly #file: FileHandle

  constructor(file: FileHandle) {
    this.#file = file
  }

  lines(from: number, to?: number): AsyncGenerator<Line[]> {
    return readLines(this.#file, from, to)
  }

  async *linesBack(): AsyncGenerator<Line[]> {
    let end = await this.end()
    while (end > 0) {
      const from = Math.max(0, end - BLOCK_BYTES)
      const block = await readAt(this.#file, from, end - from)
      const first = from === 0 ? 0 : block.indexOf(LF) + 1
      // No line feed: one line is longer than a block, and that is no entry.
      if (first === 0 && from > 0) return
      yield split(block.subarray(first), from + first)
      end = from + first
    }
  }

  /** Entries are numbered in order: halve the bytes until few enough are left to read. */
  async find(seq: number): Promise<Line | undefined> {
    let [low, high] = [0, await this.end()]
    while (high - low > BLOCK_BYTES) {
      const middle = Math.floor((low + high) / 2)
      const probe = await this.#firstAfter(middle)
      if (!probe || probe.start >= high || probe.seq > seq) high = middle
      else low = probe.start
    }
    // The line that began before `high` may end after it.
    const lines = split(await readAt(this.#file, low, high - low + MAX_LINE_BYTES), low)
    const first = lines[0] && parseEntry(lines[0].bytes)?.seq
    return first === undefined ? undefined : lines[seq - first]
  }

  async end(): Promise<number> {
    const { size } = await this.#file.stat()
    const from = Math.max(0, size - MAX_LINE_BYTES)
    return from + (await readAt(this.#file, from, size - from)).lastIndexOf(LF) + 1
  }

  close(): Promise<void> {
    return this.#file.close()
  }

  async #firstAfter(offset: number): Promise<{ start: number; seq: number } | undefined> {
    for (const length of [2 ** 14, 2 * MAX_LINE_BYTES + 2]) {
      const bytes = await readAt(this.#file, offset, length)
      const start = bytes.indexOf(LF) + 1
      const end = start > 0 ? bytes.indexOf(LF, start) : -1
      const entry = end > 0 ? parseEntry(bytes.subarray(start, end)) : undefined
      if (entry) return { start: offset + start, seq: entry.seq }
    }
    return undefined
  }
}

class FramedText implements Text {
  readonly #file: FileHandle
  readonly #frames: readonly Frame[]
  readonly #first: number
  /** Neighbours are mostly asked for together. */
  #last: { frame: Frame; lines: Line[] } | undefined

  constructor(file: FileHandle, frames: readonly Frame[], first: number) {
    this.#file = file
    this.#frames = frames
    this.#first = first
  }

  async *lines(from: number, to = Number.POSITIVE_INFINITY): AsyncGenerator<Line[]> {
    for (const frame of this.#frames) {
      if (frame.textAt + frame.textBytes <= from || frame.textAt >= to) continue
      const lines = await this.#read(frame)
      const isWhole = frame.textAt >= from && frame.textAt + frame.textBytes <= to
      yield isWhole ? lines : lines.filter(({ start }) => start >= from && start < to)
    }
  }

  async *linesBack(): AsyncGenerator<Line[]> {
    for (const frame of this.#frames.toReversed()) yield await this.#read(frame)
  }

  async find(seq: number): Promise<Line | undefined> {
    const number = Math.floor(seq / FRAME_ENTRIES)
    const frame = this.#frames[number - Math.floor(this.#first / FRAME_ENTRIES)]
    return frame && (await this.#read(frame))[seq - Math.max(this.#first, number * FRAME_ENTRIES)]
  }

  end(): Promise<number> {
    const last = this.#frames.at(-1)
    return Promise.resolve(last ? last.textAt + last.textBytes : 0)
  }

  close(): Promise<void> {
    return this.#file.close()
  }

  async #read(frame: Frame): Promise<Line[]> {
    if (this.#last?.frame === frame) return this.#last.lines
    const text = await readFrame(this.#file, frame, FRAME_ENTRIES * (MAX_LINE_BYTES + 1))
    const lines = split(text, frame.textAt, FRAME_ENTRIES + 1)
    if (lines.length > FRAME_ENTRIES) throw new Error(`a frame holds more than ${FRAME_ENTRIES} entries`)
    this.#last = { frame, lines }
    return lines
  }
}
