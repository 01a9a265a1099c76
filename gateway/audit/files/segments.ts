/**
 * The files that hold the entries of a log, in order. One is being written, `entries.jsonl`; the others are closed and named by
 * their first entry: plain, compressed, or pruned down to their hashes.
 */
import { open, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { readIfThere } from '../../private-file.ts'
import { parseEntry } from '../entries/entry.ts'
import { files, MAX_LINE_BYTES } from '../lines.ts'
import { openText } from '../text.ts'
import { readAt } from './seekable.ts'

export interface Segment {
  /** Number of its first entry. */
  readonly first: number
  /** Undefined for the one that is being written. */
  readonly count: number | undefined
  readonly path: string
  /** `pruned`: the text is gone, the leaf hashes remain. There is at most one such, the first. */
  readonly form: 'plain' | 'zstd' | 'pruned'
  /** Length of the file. */
  readonly bytes: number
}

/** Says how many entries from the first on have lost their text: `{"before":N}`. */
export const PRUNED = 'pruned.json'

const CLOSED = /^entries-(\d{12,})\.jsonl(\.zst)?$/
/** A listing that a rotation runs through is made again; two in a row are years apart. */
const TRIES = 5

export function closedName(first: number): string {
  return `entries-${String(first).padStart(12, '0')}.jsonl`
}

/**
 * All segments, oldest first; the last one is being written, and absent only if its file is. The counts are those that the names
 * say: that every entry is there is for `verify` to find out. A path can be outdated at once: the next listing has the new one.
 */
export async function listSegments(dir: string): Promise<Segment[]> {
  for (let left = TRIES; ; left--) {
    const path = join(dir, files.entries)
    const before = await inode(path)
    const active = before && (await firstIn(path))
    const closed = await listClosed(dir)
    const isSteady = (await inode(path))?.ino === before?.ino
    if (isSteady || left === 0) return joined(closed, before && { path, bytes: before.size, first: active })
  }
}

/** How many entries, from the first on, have lost their text. */
export async function prunedBefore(dir: string): Promise<number> {
  const text = await readIfThere(join(dir, PRUNED))
  if (!text) return 0
  const { before } = JSON.parse(text.toString('utf8')) as { before: number }
  if (!Number.isSafeInteger(before) || before < 0) throw new Error(`${join(dir, PRUNED)} is damaged.`)
  return before
}

type Closed = Pick<Segment, 'first' | 'path' | 'bytes'> & { readonly form: 'plain' | 'zstd' }

/** What is closed and kept, oldest first, one form of each: the plain one as long as it is there, for it is the original. */
async function listClosed(dir: string): Promise<(Closed | (Segment & { form: 'pruned' }))[]> {
  const kept = await prunedBefore(dir)
  const names = new Map<number, string>()
  for (const name of (await readdir(dir)).sort()) {
    const first = Number(CLOSED.exec(name)?.[1] ?? -1)
    // What is before `kept` was left behind by a crash while it was being removed.
    if (first >= kept && !names.has(first)) names.set(first, name)
  }
  const found = await Promise.all(
    [...names].map(async ([first, name]): Promise<Closed | undefined> => {
      const path = join(dir, name)
      const bytes = (await inode(path))?.size
      return bytes === undefined ? undefined : { first, path, bytes, form: name.endsWith('.zst') ? 'zstd' : 'plain' }
    }),
  )
  const closed = found.filter((segment) => segment !== undefined).sort((a, b) => a.first - b.first)
  const pruned = { first: 0, count: kept, path: join(dir, PRUNED), form: 'pruned', bytes: 0 } as const
  return kept > 0 ? [pruned, ...closed] : closed
}

async function joined(
  closed: Awaited<ReturnType<typeof listClosed>>,
  active: { path: string; bytes: number; first: number | undefined } | undefined,
): Promise<Segment[]> {
  const begins = active?.first
  // A crash in the middle of a rotation leaves two names of the file that is being written.
  const older = begins === undefined ? closed : closed.filter(({ first }) => first < begins)
  const last = older.at(-1)
  const end = begins ?? (last ? await endOf(last) : 0)
  const segments: Segment[] = older.map((segment, i) => ({
    ...segment,
    count: (older[i + 1]?.first ?? end) - segment.first,
  }))
  if (active) segments.push({ ...active, first: end, count: undefined, form: 'plain' })
  return segments
}

/** Number behind the last entry of a closed segment, which is read for it: the file after it is empty. */
async function endOf(segment: Closed | (Segment & { form: 'pruned' })): Promise<number> {
  if (segment.form === 'pruned') return segment.count ?? 0
  const text = await openText({ ...segment, form: segment.form })
  try {
    for await (const lines of text.linesBack()) {
      const last = lines.at(-1)
      const entry = last && parseEntry(last.bytes)
      if (entry) return entry.seq + 1
      break
    }
    return segment.first
  } finally {
    await text.close()
  }
}

/** Number of the first entry in the file, undefined when it has none yet. */
async function firstIn(path: string): Promise<number | undefined> {
  const file = await open(path, 'r').catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === 'ENOENT') return undefined
    throw cause
  })
  if (!file) return undefined
  try {
    for (const length of [8192, MAX_LINE_BYTES]) {
      const bytes = await readAt(file, 0, length)
      const end = bytes.indexOf(0x0a)
      if (end >= 0) return parseEntry(bytes.subarray(0, end))?.seq
      if (bytes.length < length) return undefined
    }
    return undefined
  } finally {
    await file.close()
  }
}

async function inode(path: string): Promise<{ ino: number; size: number } | undefined> {
  try {
    return await stat(path)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw cause
  }
}
