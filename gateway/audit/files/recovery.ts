/**
 * The log at start: is it the one that was signed, and where does it go on. The last few thousand entries are hashed onto the
 * stored hashes of those before, and must come to the signed root. A tail that the last signed head does not cover may be torn by a
 * crash and is cut off, kept aside and reported; anything else that does not fit stops the start.
 */
import { hash } from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import { type Anchor, readCheckpoint } from '../anchor.ts'
import type { JsonValue } from '../canonical.ts'
import { parseEntry, timeOf } from '../entries/entry.ts'
import { files } from '../lines.ts'
import { ADVICE, Replay } from '../replay.ts'
import { openText, type Text } from '../text.ts'
import type { Checkpoint } from '../tree/checkpoint.ts'
import { HashFiles, UNSYNCED } from '../tree/hash-files.ts'
import { Frontier } from '../tree/merkle.ts'
import type { NoteVerifier } from '../tree/note.ts'
import { HASH_BYTES, openHashes, TILE_WIDTH } from '../tree/proofs.ts'
import { entryAt } from './follow.ts'
import { undoHalfRotation } from './rotation.ts'
import { listSegments, prunedBefore, type Segment } from './segments.ts'

/** More than writes in flight can leave behind: 200 ms between two signed heads, 1 MiB a write. */
const MAX_TORN_BYTES = 16 * 1024 * 1024

export interface Cut {
  readonly bytes: number
  readonly sha256: string
  /** Name of the file in the log's directory that holds what was cut off. */
  readonly keptIn: string
}

/** As `log.recovered` says it. */
export function factsOf(cut: Cut): Record<string, JsonValue> {
  return { reason: 'torn_tail', cut_bytes: cut.bytes, cut_sha256: cut.sha256, kept_in: cut.keptIn }
}

export interface Recovered {
  readonly anchor: Anchor
  /** Time of the first entry in the file that is being written; undefined when it has none. */
  readonly beganMs: number | undefined
  readonly cut: Cut | undefined
}

interface Recovery {
  readonly dir: string
  readonly verifier: NoteVerifier
  /** The file that is being written. */
  readonly file: FileHandle
  readonly nowMs: number
}

/**
 * Check the entries in `dir` against the last signed head and make files and anchor agree. Only for the holder of the lock.
 * @throws {Error} naming file and index when entries that were signed are missing or changed.
 */
export async function recover(o: Recovery): Promise<Recovered> {
  await undoHalfRotation(o.dir)
  const head = await readCheckpoint(o.dir, o.verifier)
  const segments = await listSegments(o.dir)
  const hashes = await HashFiles.open(o.dir)
  try {
    const replay =
      (await fromTheEnd(o.dir, { head, segments, hashes })) ?? (await fromTheStart(o.dir, { head, segments, hashes }))
    const { frontier, offset, latestMs } = replay
    await hashes.cut(frontier.size)
    await hashes.sync()
    const cut = await cutTail(o, offset)
    const segment = segments.at(-1)?.first ?? 0
    const first = offset > 0 ? await firstTime(o.file) : undefined
    return { anchor: { frontier, segment, offset, latestMs }, beganMs: first, cut }
  } finally {
    await hashes.close()
  }
}

interface Found {
  readonly head: Checkpoint | undefined
  readonly segments: readonly Segment[]
  readonly hashes: HashFiles
}

/**
 * From the last hashes that are surely on the disk: all, where the log was closed in peace. Undefined when that is not possible, or
 * finds anything wrong: reading all then tells what.
 */
async function fromTheEnd(dir: string, found: Found): Promise<Replay | undefined> {
  const covered = found.head?.size ?? 0
  const last = await entryAt(dir, covered - 1).catch(() => undefined)
  const isSealed = last !== undefined && parseEntry(last)?.kind === 'log.sealed'
  const from = Math.max(await prunedBefore(dir), covered - (isSealed ? 0 : UNSYNCED) - TILE_WIDTH)
  if (from <= 0 || from >= covered) return undefined
  try {
    const stored = await openHashes(dir)
    const known = new Frontier(from, await stored.peaks(from).finally(() => stored.close()))
    await found.hashes.complete(from)
    return await replayed(dir, new Replay(known, found.head, join(dir, files.entries)), found)
  } catch {
    return undefined
  }
}

async function fromTheStart(dir: string, found: Found): Promise<Replay> {
  return replayed(dir, new Replay(new Frontier(), found.head, join(dir, files.entries)), found)
}

/** All segments from the replay's place on. */
async function replayed(dir: string, replay: Replay, { segments, hashes }: Found): Promise<Replay> {
  for (const segment of segments) {
    const end = segment.first + (segment.count ?? Number.POSITIVE_INFINITY)
    if (end <= replay.frontier.size) continue
    if (segment.form === 'pruned') await replayHashes(dir, replay, { end, hashes })
    else await replayText(replay, { ...segment, form: segment.form }, hashes)
    if (segment.count !== undefined) replay.mustStandAt(end)
  }
  replay.finish()
  return replay
}

async function replayText(
  replay: Replay,
  segment: Segment & { form: 'plain' | 'zstd' },
  hashes: HashFiles,
): Promise<void> {
  const text = await openText(segment)
  try {
    replay.offset = await startOf(text, replay.frontier.size, segment.first)
    for await (const lines of text.lines(replay.offset)) {
      replay.take(lines)
      await replay.store(hashes)
      if (replay.isTorn) return
    }
  } finally {
    await text.close()
  }
}

async function startOf(text: Text, seq: number, first: number): Promise<number> {
  if (seq <= first) return 0
  const line = await text.find(seq)
  if (line && parseEntry(line.bytes)?.seq === seq) return line.start
  throw new Error(`entry ${seq} is not where it should be`)
}

/** Entries whose text is gone: their leaf hashes stand for them, and the signed root for those. */
async function replayHashes(dir: string, replay: Replay, o: { end: number; hashes: HashFiles }): Promise<void> {
  const stored = await openHashes(dir)
  try {
    while (replay.frontier.size < o.end) {
      const from = replay.frontier.size
      const n = Math.floor(from / TILE_WIDTH)
      const width = Math.min(TILE_WIDTH, o.end - n * TILE_WIDTH)
      const tile = await stored.tile(0, n, width)
      for (let i = from - n * TILE_WIDTH; i < width; i++)
        replay.add(tile.subarray(i * HASH_BYTES, (i + 1) * HASH_BYTES))
      await replay.store(o.hashes)
    }
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause
    throw new Error(
      `${join(dir, files.leaves)} lacks hashes of entries whose text was pruned. The log is not opened. Restore it from a copy.`,
      { cause },
    )
  } finally {
    await stored.close()
  }
}

async function firstTime(file: FileHandle): Promise<number | undefined> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(64 * 1024), 0, 64 * 1024, 0)
  return timeOf(buffer.subarray(0, Math.max(0, buffer.subarray(0, bytesRead).indexOf(0x0a)))) || undefined
}

/** Copy what follows `offset` aside, durably, and only then cut it off. */
async function cutTail({ dir, file, nowMs }: Recovery, offset: number): Promise<Cut | undefined> {
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
