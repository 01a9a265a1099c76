/** Finds entries in a log without reading all of it: from the end, by number, by call. Proves nothing; `verify.ts` does. */
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { type Entry, parseEntry } from '../entries/entry.ts'
import type { Makers } from '../entries/lineage.ts'
import { files } from '../lines.ts'
import { openIfThere, type Text } from '../text.ts'
import { entryAt, readWritten } from './follow.ts'
import { listSegments, prunedBefore } from './segments.ts'

const POLL_MS = 200

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
  await (await open(join(dir, files.entries), 'r')).close()
  return {
    tail: (count, signal) => tail(dir, count, signal),
    bySeq: (seq) => bySeq(dir, seq),
    byReq: (req) => byReq(dir, req),
    makers: (entry) => makers(dir, entry?.lineage?.flatMap(({ grant }) => grant ?? []) ?? []),
    close: () => Promise.resolve(),
  }
}

async function* tail(dir: string, count: number, signal: AbortSignal | undefined): AsyncGenerator<Entry> {
  let next = Math.max(await prunedBefore(dir), (await endOf(dir)) - count)
  for (;;) {
    for await (const { entries, from } of readWritten(dir, next)) {
      for (const bytes of entries) {
        const entry = parseEntry(bytes)
        if (entry) yield entry
      }
      next = from + entries.length
    }
    if (!signal || signal.aborted) return
    // Polled: file events are lost on network volumes and across containers.
    await new Promise((resolve) => setTimeout(resolve, POLL_MS))
    // A batch that failed is cut off again; then there is less than there was.
    next = Math.min(next, await endOf(dir))
  }
}

async function bySeq(dir: string, seq: number): Promise<Entry | undefined> {
  const bytes = await entryAt(dir, seq)
  return bytes && parseEntry(bytes)
}

/** What is asked about has mostly just happened. The entry that began the call ends the search. */
async function byReq(dir: string, req: string): Promise<Entry[]> {
  const needle = Buffer.from(`"req":${JSON.stringify(req)},"seq":`)
  const found: Entry[] = []
  await backwards(dir, (line) => {
    const entry = line.includes(needle) ? parseEntry(line) : undefined
    if (entry?.req !== req) return false
    found.unshift(entry)
    return entry.kind !== 'call.outcome'
  })
  return found
}

const MAKING: ReadonlySet<string> = new Set(['grant.issued', 'grant.delegated', 'grant.replaced'])

async function makers(dir: string, grants: readonly string[]): Promise<Makers> {
  const wanted = new Set(grants)
  const found = new Map<string, Entry>()
  await backwards(dir, (line) => {
    const entry = wanted.size > 0 && line.includes('"kind":"grant.') ? parseEntry(line) : undefined
    if (entry?.grant !== undefined && MAKING.has(entry.kind) && wanted.delete(entry.grant.id))
      found.set(entry.grant.id, entry)
    return wanted.size === 0
  })
  return found
}

/** Every whole line whose text is kept, from the last one back, until `visit` has seen enough. */
async function backwards(dir: string, visit: (line: Buffer) => boolean): Promise<void> {
  let before: number | undefined = Number.POSITIVE_INFINITY
  while (before !== undefined && before > 0) {
    const end: number = before
    const segment = (await listSegments(dir)).findLast(({ first }) => first < end)
    if (!segment || segment.form === 'pruned') return
    const text = await openIfThere({ ...segment, form: segment.form })
    // Without a text, its file has just got another name or form.
    if (text) before = await visitBack(text, visit, segment.first).finally(() => text.close())
  }
}

/** @returns number of the first entry that was read, undefined when `visit` has seen enough. */
async function visitBack(text: Text, visit: (line: Buffer) => boolean, first: number): Promise<number | undefined> {
  let oldest: Buffer | undefined
  for await (const lines of text.linesBack()) {
    for (const { bytes } of lines.toReversed()) if (visit(bytes)) return undefined
    oldest = lines[0]?.bytes ?? oldest
  }
  // The file that is written may have been closed in between: then the next one was read, and this one comes now.
  return (oldest && parseEntry(oldest)?.seq) ?? first
}

/** Number behind the last whole entry. */
async function endOf(dir: string): Promise<number> {
  const last = (await listSegments(dir)).at(-1)
  const text = last && (await openIfThere({ ...last, form: 'plain' }))
  if (!text) return last?.first ?? 0
  try {
    for await (const lines of text.linesBack())
      return (parseEntry(lines.at(-1)?.bytes ?? Buffer.alloc(0))?.seq ?? -1) + 1
    return last.first
  } finally {
    await text.close()
  }
}
