/**
 * Entries in order from any number on, as far as a signed checkpoint covers them: what readers of the log may build upon. An
 * entry after the checkpoint can still be cut off again by a failed write. Single entries are found by their number.
 */
import { join } from 'node:path'
import { readIfThere } from '../../private-file.ts'
import { parseEntry } from '../entries/entry.ts'
import { files, type Line } from '../lines.ts'
import { openIfThere, type Text } from '../text.ts'
import { listSegments, prunedBefore, type Segment } from './segments.ts'

/** Where to go on: in front of entry `seq`. The offset saves the search; it is 0 when it is not known. */
export interface Place {
  readonly seq: number
  /** First entry of the segment that `offset` is in. */
  readonly segment: number
  /** Bytes of the segment's text, whatever form its file has by now. */
  readonly offset: number
}

export const START: Place = { seq: 0, segment: 0, offset: 0 }

export interface Stretch {
  /** Canonical bytes of consecutive entries, without line feeds. The first one is entry `from`. Valid until the next stretch is asked for. */
  readonly entries: readonly Buffer[]
  readonly from: number
  readonly next: Place
}

/** Entries that the published checkpoint covers; 0 without one. Its signature is for `verify` to check. */
export async function coveredBy(dir: string): Promise<number> {
  const note = await readIfThere(join(dir, files.checkpoint))
  const size = Number(note?.toString('utf8').split('\n', 2)[1])
  return Number.isSafeInteger(size) ? size : 0
}

/** Number of the oldest entry whose text is kept. */
export function firstKept(dir: string): Promise<number> {
  return prunedBefore(dir)
}

/**
 * What is covered now, from `place` on; ends there. Call again with `next` for what has come since.
 * @throws {Error} when an entry is not there any more because it was pruned (go on from `firstKept`), or is missing.
 */
export async function* readEntries(dir: string, place: Place = START): AsyncGenerator<Stretch> {
  const covered = await coveredBy(dir)
  const seq = yield* readTo(dir, place, covered)
  if (seq < covered) throw new Error(`${dir}: entry ${seq} is missing, though the checkpoint covers ${covered}.`)
}

/** The same to the end of what is written: entries that no checkpoint covers yet can be cut off again. */
export async function* readWritten(dir: string, seq: number): AsyncGenerator<Stretch> {
  yield* readTo(dir, { seq, segment: 0, offset: 0 }, Number.POSITIVE_INFINITY)
}

/** @returns number of the entry in front of which it ends. */
async function* readTo(dir: string, place: Place, end: number): AsyncGenerator<Stretch, number> {
  let at = place
  while (at.seq < end) {
    const from = at.seq
    for await (const stretch of withSegment(dir, from, (segment, text) => stretches({ segment, text, at, end }))) {
      at = stretch.next
      yield stretch
    }
    if (at.seq === from) break
  }
  return at.seq
}

/** The canonical bytes of one entry, or undefined when it is not there: not written yet, pruned, or missing. */
export async function entryAt(dir: string, seq: number): Promise<Buffer | undefined> {
  return (await entriesAt(dir, [seq]))[0]
}

/** The same for several, in the order in which they are asked for; those near each other cost one reading. */
export async function entriesAt(dir: string, seqs: readonly number[]): Promise<(Buffer | undefined)[]> {
  const found = new Map<number, Buffer>()
  const kept = await prunedBefore(dir)
  const wanted = [...new Set(seqs)].filter((seq) => seq >= kept).sort((a, b) => a - b)
  for (let i = 0; i < wanted.length; ) {
    const taken = i
    for await (const { seq, bytes } of withSegment(dir, wanted[i] as number, (s, text) => pick(s, text, wanted, i))) {
      i += 1
      if (bytes) found.set(seq, bytes)
    }
    if (i === taken) i += 1
  }
  return seqs.map((seq) => found.get(seq))
}

async function* pick(segment: Segment, text: Text, wanted: readonly number[], from: number) {
  const end = segment.first + (segment.count ?? Number.POSITIVE_INFINITY)
  for (const seq of wanted.slice(from)) {
    if (seq >= end) return
    const line = await text.find(seq)
    yield { seq, bytes: line && parseEntry(line.bytes)?.seq === seq ? line.bytes : undefined }
  }
}

async function* stretches(o: { segment: Segment; text: Text; at: Place; end: number }): AsyncGenerator<Stretch> {
  const { segment, text, at, end } = o
  const isKnown = at.segment === segment.first && at.offset > 0
  const start = isKnown || at.seq === segment.first ? undefined : await text.find(at.seq)
  let seq = at.seq
  for await (const lines of text.lines(start?.start ?? (isKnown ? at.offset : 0))) {
    const taken = lines.slice(0, end - seq).filter((line) => line.isWhole)
    const last = taken.at(-1)
    if (!last || (seq === at.seq && parseEntry((taken[0] as Line).bytes)?.seq !== seq)) return
    const from = seq
    seq += taken.length
    const offset = last.start + last.bytes.length + 1
    yield { entries: taken.map(({ bytes }) => bytes), from, next: { seq, segment: segment.first, offset } }
    if (seq >= end) return
  }
}

/** Ways a file can change between the listing and its opening: it is rotated, or compressed. */
const TRIES = 3

/** What `read` finds in the segment of entry `seq`. When that has just changed its name or form, it is looked for again. */
async function* withSegment<Found>(
  dir: string,
  seq: number,
  read: (segment: Segment, text: Text) => AsyncGenerator<Found>,
): AsyncGenerator<Found> {
  for (let left = TRIES; left > 0; left--) {
    const segment = (await listSegments(dir)).findLast(({ first }) => first <= seq)
    if (!segment) return
    if (segment.form === 'pruned')
      throw new Error(`${dir}: entry ${seq} was pruned; the text is kept from entry ${segment.count} on.`)
    const text = await openIfThere({ ...segment, form: segment.form })
    if (!text) continue
    let hasFound = false
    try {
      for await (const found of read(segment, text)) {
        hasFound = true
        yield found
      }
    } finally {
      await text.close()
    }
    if (hasFound) return
  }
}
