/** The entries of a log as a verifier reads them: from all its files in order, as far as they can be read, saying what is not there. */
import { parseEntry } from '../entries/entry.ts'
import { listSegments, type Segment } from '../files/segments.ts'
import type { Line } from '../lines.ts'
import { openText } from '../text.ts'

export type Piece =
  /** Whole lines, each with its line feed. A copy: nobody else holds it. */
  | { readonly kind: 'text'; readonly bytes: Buffer; readonly count: number }
  /** Entries of which at best the hashes are left. `why` is undefined where retention removed them. */
  | { readonly kind: 'gone'; readonly count: number; readonly why: string | undefined }
  /** What stands behind the last whole entry. `isLast`: where a write may be under way. */
  | { readonly kind: 'torn'; readonly bytes: number; readonly isLast: boolean }

/** Length of all files of entries, and 0 if there is none. */
export async function bytesOf(dir: string): Promise<number> {
  return (await listSegments(dir)).reduce((sum, { bytes }) => sum + bytes, 0)
}

export async function* pieces(dir: string): AsyncGenerator<Piece> {
  let at = 0
  for (const listed of await listSegments(dir)) {
    const segment = await current(dir, listed, at)
    if (segment.first > at) {
      const count = segment.first - at
      const why =
        segment.form === 'pruned' ? undefined : `the file that held the entries up to ${segment.first - 1} is missing`
      yield { kind: 'gone', count, why }
      at += count
    }
    if (segment.form === 'pruned') {
      yield { kind: 'gone', count: segment.count ?? 0, why: undefined }
      at += segment.count ?? 0
      continue
    }
    for await (const piece of textOf(segment, segment.form)) {
      yield piece
      if (piece.kind !== 'torn') at += piece.count
      else if (!piece.isLast) break
    }
  }
}

async function* textOf(segment: Segment, form: 'plain' | 'zstd'): AsyncGenerator<Piece> {
  const isLast = segment.count === undefined
  let read = 0
  try {
    const text = await openText({ ...segment, form })
    try {
      for await (const lines of text.lines(0)) {
        const whole = lines.filter(({ isWhole }) => isWhole)
        if (whole.length > 0) yield { kind: 'text', bytes: copyOf(whole), count: whole.length }
        read += whole.length
        const torn = lines.at(-1)
        if (torn && !torn.isWhole) yield { kind: 'torn', bytes: torn.bytes.length, isLast }
      }
    } finally {
      await text.close()
    }
  } catch (cause) {
    if (isLast) throw cause
    yield { kind: 'gone', count: Math.max(0, (segment.count ?? 0) - read), why: (cause as Error).message }
  }
}

/** Lines of one block stand one behind the other, with line feeds between. */
function copyOf(lines: readonly Line[]): Buffer {
  const [first, last] = [lines[0] as Line, lines.at(-1) as Line]
  const from = first.bytes.byteOffset
  const length = last.bytes.byteOffset + last.bytes.length + 1 - from
  const copy = Buffer.allocUnsafeSlow(length)
  copy.set(new Uint8Array(first.bytes.buffer, from, length))
  return copy
}

/** The segment as it is by now: since it was listed it may have been closed, compressed or pruned. */
async function current(dir: string, listed: Segment, at: number): Promise<Segment> {
  if (listed.form === 'pruned') return listed
  const isThere = await begins(listed)
  if (isThere === at || (isThere !== undefined && listed.first !== at)) return listed
  const again = (await listSegments(dir)).find(({ first }) => first === at)
  return again ?? listed
}

/** Number of the first entry in the file; undefined when it is gone, damaged, or has none. */
async function begins(segment: Segment): Promise<number | undefined> {
  if (segment.form === 'pruned') return undefined
  try {
    const text = await openText({ ...segment, form: segment.form })
    try {
      for await (const [line] of text.lines(0)) return line && parseEntry(line.bytes)?.seq
      return undefined
    } finally {
      await text.close()
    }
  } catch {
    return undefined
  }
}
