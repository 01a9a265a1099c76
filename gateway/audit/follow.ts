/**
 * Entries in order from any number on, as far as a signed checkpoint covers them: what readers of the log may build upon. An
 * entry after the checkpoint can still be cut off again by a failed write.
 */
import { join } from 'node:path'
import { readIfThere } from '../private-file.ts'
import { files, type Line, readLines } from './lines.ts'

/** Where to go on: in front of entry `seq`. The offset saves the search; it is 0 when it is not known. */
export interface Place {
  readonly seq: number
  /** First entry of the file that `offset` is in. */
  readonly segment: number
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

/**
 * What is covered now, from `place` on; ends there. Call again with `next` for what has come since.
 * @throws {Error} when an entry is not there any more because it was pruned: go on from `firstKept`.
 */
export async function* readEntries(dir: string, place: Place = START): AsyncGenerator<Stretch> {
  const covered = await coveredBy(dir)
  if (place.seq >= covered) return
  let seq = place.offset === 0 ? 0 : place.seq
  for await (const lines of readLines(join(dir, files.entries), place.offset)) {
    const whole = lines.filter((line) => line.isWhole)
    const skipped = Math.max(0, Math.min(place.seq - seq, whole.length))
    const taken = whole.slice(skipped, covered - seq)
    const last = taken.at(-1)
    seq += skipped
    if (last) yield { entries: taken.map(({ bytes }) => bytes), from: seq, next: behind(last, seq + taken.length) }
    seq += taken.length
    if (seq >= covered || whole.length < lines.length) return
  }
}

function behind(last: Line, seq: number): Place {
  return { seq, segment: 0, offset: last.start + last.bytes.length + 1 }
}

/** Number of the oldest entry whose text is kept. */
export async function firstKept(_dir: string): Promise<number> {
  return 0
}
