/**
 * The log at start: is it the one that was signed, and where does it go on. A tail that the last signed head does not cover
 * may be torn by a crash and is cut off, kept aside and reported; anything else that does not fit stops the start.
 */

import { hash } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import { type Anchor, origin, readAnchor, readCheckpoint, sizeOf } from './anchor.ts'
import type { Checkpoint } from './checkpoint.ts'
import { parseEntry, timeOf } from './entry.ts'
import { files, type Line, MAX_LINE_BYTES, readLines } from './lines.ts'
import { type Frontier, leafHash } from './merkle.ts'
import type { NoteVerifier } from './note.ts'

/** More than writes in flight can leave behind: 200 ms between two signed heads, 1 MiB a write. */
const MAX_TORN_BYTES = 16 * 1024 * 1024

export interface Cut {
  readonly bytes: number
  readonly sha256: string
  /** Name of the file in the log's directory that holds what was cut off. */
  readonly keptIn: string
}

export interface Recovered {
  readonly anchor: Anchor
  readonly cut: Cut | undefined
}

/**
 * Check the entries in `dir` against the last signed head and make file and anchor agree. `file` is the entries file, writable.
 * @throws {Error} naming file and index when entries that were signed are missing or changed.
 */
export async function recover(o: {
  dir: string
  verifier: NoteVerifier
  file: FileHandle
  nowMs: number
}): Promise<Recovered> {
  const path = join(o.dir, files.entries)
  const checkpoint = await readCheckpoint(o.dir, o.verifier)
  const stored = await readAnchor(o.dir, o.verifier)
  const heads = [checkpoint, stored?.head].filter((head) => head !== undefined)
  const leaves = await openForUpdate(join(o.dir, files.leaves))
  try {
    const canResume =
      stored &&
      (await sizeOf(join(o.dir, files.leaves))) >= stored.head.size * 32 &&
      (await endsThere(o.file, stored.anchor))
    const replay = new Replay(canResume ? stored.anchor : origin, heads, path)
    for await (const lines of readLines(path, replay.offset)) {
      const from = replay.frontier.size
      const hashes = replay.take(lines)
      if (hashes.length > 0) await leaves.write(Buffer.concat(hashes), 0, hashes.length * 32, from * 32)
      if (replay.isTorn) break
    }
    replay.finish()
    await leaves.truncate(replay.frontier.size * 32)
    const cut = await cutTail(o, replay.offset)
    return { anchor: { frontier: replay.frontier, offset: replay.offset, latestMs: replay.latestMs }, cut }
  } finally {
    await leaves.close()
  }
}

/** Walks the lines after the anchor; what the heads cover must hash to them, what comes after must at least be entries. */
class Replay {
  readonly frontier: Frontier
  offset: number
  latestMs: number
  isTorn = false
  readonly #heads: readonly Checkpoint[]
  readonly #path: string
  readonly #covered: number

  constructor(anchor: Anchor, heads: readonly Checkpoint[], path: string) {
    this.frontier = anchor.frontier.copy()
    this.offset = anchor.offset
    this.latestMs = anchor.latestMs
    this.#heads = heads
    this.#path = path
    this.#covered = Math.max(0, ...heads.map((head) => head.size))
  }

  /** @returns leaf hashes of the lines that belong to the log. */
  take(lines: readonly Line[]): Buffer[] {
    const hashes: Buffer[] = []
    for (const line of lines) {
      if (!this.#belongs(line)) {
        this.isTorn = true
        break
      }
      const leaf = leafHash(line.bytes)
      hashes.push(leaf)
      this.frontier.append(leaf)
      this.offset = line.start + line.bytes.length + 1
      this.latestMs = Math.max(this.latestMs, timeOf(line.bytes))
      this.#compare()
    }
    return hashes
  }

  /** @throws {Error} when signed entries are missing. */
  finish(): void {
    const { size } = this.frontier
    if (size >= this.#covered) return
    const what = this.isTorn
      ? `entry ${size} is damaged`
      : `entries ${size} to ${this.#covered - 1} are missing from its end`
    throw new Error(
      `${this.#path}: ${what}, but the signed checkpoint covers ${this.#covered} entries. The log is not opened. ${ADVICE}`,
    )
  }

  #belongs(line: Line): boolean {
    if (!line.isWhole) return false
    const index = this.frontier.size
    // Covered lines are proven by the root; parsing them would only cost time.
    if (index < this.#covered) return true
    const entry = parseEntry(line.bytes)
    if (entry?.seq !== index) return false
    // The first head is signed before the first call is served, so a call without any head means that heads were removed.
    if (this.#covered === 0 && !entry.kind.startsWith('log.')) {
      throw new Error(`${this.#path} holds calls, but its signed checkpoint is gone. The log is not opened. ${ADVICE}`)
    }
    return true
  }

  #compare(): void {
    for (const head of this.#heads) {
      if (head.size !== this.frontier.size || head.root.equals(this.frontier.root())) continue
      throw new Error(
        `${this.#path} does not match its signed checkpoint at size ${head.size}: an entry was changed. The log is not opened. ${ADVICE}`,
      )
    }
  }
}

const ADVICE =
  'Run "keyless log verify" to find the entry, keep the directory as evidence, and restore it from a copy or start a new log.'

/** For writing anywhere in it, and made if absent: Node's letters have no mode for both. */
function openForUpdate(path: string): Promise<FileHandle> {
  return open(path, constants.O_RDWR | constants.O_CREAT, 0o600)
}

/** Whether the last entry that the anchor covers really ends at its offset. */
async function endsThere(file: FileHandle, { frontier, offset }: Anchor): Promise<boolean> {
  if (frontier.size === 0) return offset === 0
  const length = Math.min(offset, MAX_LINE_BYTES + 1)
  const { bytesRead, buffer } = await file.read(Buffer.alloc(length), 0, length, offset - length)
  if (bytesRead < length || buffer[length - 1] !== 0x0a) return false
  const start = buffer.lastIndexOf(0x0a, length - 2) + 1
  return parseEntry(buffer.subarray(start, length - 1))?.seq === frontier.size - 1
}

/** Copy what follows `offset` aside, durably, and only then cut it off. */
async function cutTail(
  { dir, file, nowMs }: { dir: string; file: FileHandle; nowMs: number },
  offset: number,
): Promise<Cut | undefined> {
  const bytes = (await file.stat()).size - offset
  if (bytes === 0) return undefined
  const path = join(dir, files.entries)
  if (bytes > MAX_TORN_BYTES) {
    throw new Error(
      `${path}: ${bytes} bytes after offset ${offset} are not entries; a crash does not leave that much. The log is not opened. ${ADVICE}`,
    )
  }
  const { buffer } = await file.read(Buffer.alloc(bytes), 0, bytes, offset)
  const keptIn = `torn-${offset}-${nowMs}`
  const aside = await open(join(dir, keptIn), 'w', 0o600)
  try {
    await aside.writeFile(buffer)
    await aside.sync()
  } finally {
    await aside.close()
  }
  await file.truncate(offset)
  await file.sync()
  return { bytes, sha256: hash('sha256', buffer, 'hex'), keptIn }
}
