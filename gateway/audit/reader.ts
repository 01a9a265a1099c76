/** Finds entries in a log without reading all of it: from the end, by number, by call. Proves nothing; `verify.ts` does. */
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import { type Entry, parseEntry } from './entry.ts'
import type { Makers } from './lineage.ts'
import { files, MAX_LINE_BYTES, readLines, split } from './lines.ts'

const BLOCK_BYTES = 256 * 1024
const POLL_MS = 200
const LF = 0x0a

export interface LogReader {
  /** The last `count` whole entries, oldest first; with `signal`, goes on with what is written until it aborts. */
  tail(count: number, signal?: AbortSignal): AsyncGenerator<Entry>
  bySeq(seq: number): Promise<Entry | undefined>
  /** All entries of one call or instruction, oldest first. */
  byReq(req: string): Promise<Entry[]>
  /** How the grants in this entry's lineage came to be; what this log does not have is left out. Reads back to the oldest. */
  makers(entry: Entry | undefined): Promise<Makers>
  close(): Promise<void>
}

/** @throws {Error} ENOENT when there is no log in `dir`. */
export async function openReader(dir: string): Promise<LogReader> {
  const path = join(dir, files.entries)
  const file = await open(path, 'r')
  return {
    tail: (count, signal) => tail(path, file, { count, signal }),
    bySeq: (seq) => bySeq(file, seq),
    byReq: (req) => byReq(file, req),
    makers: (entry) => makers(file, entry?.lineage?.flatMap(({ grant }) => grant ?? []) ?? []),
    close: () => file.close(),
  }
}

async function* tail(
  path: string,
  file: FileHandle,
  { count, signal }: { count: number; signal: AbortSignal | undefined },
): AsyncGenerator<Entry> {
  let at = await startOfLast(file, count)
  for (;;) {
    const end = await endOfWhole(file)
    for await (const lines of readLines(path, at, end)) {
      for (const line of lines) {
        const entry = parseEntry(line.bytes)
        if (entry) yield entry
      }
    }
    // A batch that failed is cut off again; then there is less than there was.
    at = end
    if (!signal || signal.aborted) return
    // Polled: file events are lost on network volumes and across containers.
    await new Promise((resolve) => setTimeout(resolve, POLL_MS))
  }
}

async function bySeq(file: FileHandle, seq: number): Promise<Entry | undefined> {
  let [low, high] = [0, await endOfWhole(file)]
  // Entries are numbered in order: halve the bytes until few enough are left to read.
  while (high - low > BLOCK_BYTES) {
    const middle = Math.floor((low + high) / 2)
    const probe = await firstAfter(file, middle)
    if (!probe || probe.start >= high || probe.entry.seq > seq) high = middle
    else low = probe.start
  }
  // The line that began before `high` may end after it.
  const bytes = await readAt(file, low, high - low + MAX_LINE_BYTES)
  for (const line of split(bytes, low)) {
    const entry = parseEntry(line.bytes)
    if (entry?.seq === seq) return entry
  }
  return undefined
}

/** What is asked about has mostly just happened. The entry that began the call ends the search. */
async function byReq(file: FileHandle, req: string): Promise<Entry[]> {
  const needle = Buffer.from(`"req":${JSON.stringify(req)},"seq":`)
  const found: Entry[] = []
  await backwards(file, (line) => {
    const entry = line.includes(needle) ? parseEntry(line) : undefined
    if (entry?.req !== req) return false
    found.unshift(entry)
    return entry.kind !== 'call.outcome'
  })
  return found
}

const MAKING: ReadonlySet<string> = new Set(['grant.issued', 'grant.delegated', 'grant.replaced'])

async function makers(file: FileHandle, grants: readonly string[]): Promise<Makers> {
  const wanted = new Set(grants)
  const found = new Map<string, Entry>()
  await backwards(file, (line) => {
    const entry = wanted.size > 0 && line.includes('"kind":"grant.') ? parseEntry(line) : undefined
    if (entry?.grant !== undefined && MAKING.has(entry.kind) && wanted.delete(entry.grant.id))
      found.set(entry.grant.id, entry)
    return wanted.size === 0
  })
  return found
}

/** Every whole line from the last one back, until `visit` has seen enough. */
async function backwards(file: FileHandle, visit: (line: Buffer) => boolean): Promise<void> {
  let end = await endOfWhole(file)
  while (end > 0) {
    const from = Math.max(0, end - BLOCK_BYTES)
    const block = await readAt(file, from, end - from)
    const first = from === 0 ? 0 : block.indexOf(LF) + 1
    // No line feed: one line is longer than a block, and that is no entry.
    if (first === 0 && from > 0) return
    for (const { bytes } of split(block.subarray(first), from + first).reverse()) if (visit(bytes)) return
    end = from + first
  }
}

async function firstAfter(file: FileHandle, offset: number): Promise<{ start: number; entry: Entry } | undefined> {
  const bytes = await readAt(file, offset, 2 * MAX_LINE_BYTES + 2)
  const lf = bytes.indexOf(LF)
  const [line] = lf < 0 ? [] : split(bytes.subarray(lf + 1), offset + lf + 1)
  const entry = line && parseEntry(line.bytes)
  return line && entry ? { start: line.start, entry } : undefined
}

async function startOfLast(file: FileHandle, count: number): Promise<number> {
  let end = await endOfWhole(file)
  let left = count
  while (end > 0) {
    const from = Math.max(0, end - BLOCK_BYTES)
    const block = await readAt(file, from, end - from)
    for (let at = block.lastIndexOf(LF); at >= 0; at = at === 0 ? -1 : block.lastIndexOf(LF, at - 1)) {
      if (left-- === 0) return from + at + 1
    }
    end = from
  }
  return 0
}

/** Offset behind the last line feed. */
async function endOfWhole(file: FileHandle): Promise<number> {
  const { size } = await file.stat()
  const from = Math.max(0, size - MAX_LINE_BYTES)
  return from + (await readAt(file, from, size - from)).lastIndexOf(LF) + 1
}

async function readAt(file: FileHandle, position: number, length: number): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, position)
  return buffer.subarray(0, bytesRead)
}
