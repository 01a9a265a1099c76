/**
 * Reads a log into the index, from where it was left: in batches, each one transaction together with the place behind it, so
 * that a crash loses nothing and repeats nothing. Several processes may do it at once; the slower one starts over.
 */
import { coveredBy, entryAt, firstKept, type Place, readEntries, START } from '../audit/files/follow.ts'
import { leafHash } from '../audit/tree/merkle.ts'
import type { Clock } from '../protocol/clock.ts'
import { Batch, parsed } from './batch.ts'
import { Calls } from './calls.ts'
import type { Database, Writer } from './database.ts'
import type { Lag } from './query.ts'
import { storeBatch } from './storing.ts'

/** Entries of a transaction. Behind by many, larger ones are cheaper; near the end, queries do not have to wait long. */
const BATCH = { near: 1024, far: 8192 } as const
const FAR = 20_000

export interface Indexer {
  /** Read what the log has by now. @returns how many entries were read. One call at a time. */
  catchUp(signal?: AbortSignal): Promise<number>
  /** Entries that are in the log and not in the index. */
  lag(): Promise<Lag>
  /** The same without asking the database, which is away: as far as it was known to have come. */
  lagMeanwhile(): Promise<Lag>
}

export interface IndexerOptions {
  /** Directory of the log. */
  readonly dir: string
  /** Name of the log: its C2SP origin. */
  readonly origin: string
  readonly database: Database
  readonly clock: Clock
  /** Told after every batch. */
  readonly onProgress?: ((next: number, covered: number) => void) | undefined
  /** Waits between batches, told how long the last one took, ms. Default: only for queries that came meanwhile. */
  readonly rest?: ((workedMs: number) => Promise<void>) | undefined
}

interface Progress {
  /** As the index has it; undefined: nothing of this log is in it. */
  readonly next: number | undefined
  readonly place: Place
  /** Of the entry in front of it. */
  readonly leaf: string
  readonly ts: number
}

/** Somebody else stored this batch: what was read is there already. */
class Overtaken extends Error {}

export function createIndexer(o: IndexerOptions): Indexer {
  let next: number | undefined
  const calls = new Calls(o.origin)
  return {
    async catchUp(signal) {
      for (;;) {
        try {
          const from = await resume(o)
          next = from.place.seq
          const more = await readOn({ ...o, calls }, from, signal)
          next = from.place.seq + more
          return more
        } catch (cause) {
          if (!(cause instanceof Overtaken)) throw cause
        }
      }
    },
    async lag() {
      next = (await progressOf(o))?.place.seq
      return lagBehind(o, next)
    },
    lagMeanwhile: () => lagBehind(o, next),
  }
}

async function readOn(
  o: IndexerOptions & { readonly calls: Calls },
  from: Progress,
  signal: AbortSignal | undefined,
): Promise<number> {
  let at = from
  let batch = new Batch(o.origin, o.calls)
  let startedMs = performance.now()
  const covered = await coveredBy(o.dir)
  for await (const { entries, next } of readEntries(o.dir, from.place)) {
    if (signal?.aborted) break
    const last = entries.at(-1)
    for (const bytes of entries) batch.read(bytes)
    if (!last) continue
    const behind = { place: next, leaf: leafHash(last).toString('base64url'), ts: parsed(last).ts }
    const size = covered - next.seq > FAR ? BATCH.far : BATCH.near
    if (batch.size < size && next.seq < covered) continue
    const to = { ...behind, next: next.seq, ts: Date.parse(behind.ts) }
    await store(o, batch, { from: at, to })
    at = to
    batch = new Batch(o.origin, o.calls)
    o.onProgress?.(next.seq, covered)
    await (o.rest ?? queriesFirst)(performance.now() - startedMs)
    startedMs = performance.now()
  }
  return at.place.seq - from.place.seq
}

function queriesFirst(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

async function store(o: IndexerOptions, batch: Batch, way: { from: Progress; to: Progress }): Promise<void> {
  const gathered = await batch.gathered(o.database)
  await o.database.transaction(async (writer) => {
    await advance(writer, o.origin, way)
    await storeBatch(writer, o.database.dialect, gathered)
  })
}

/** First in the transaction: whoever comes second waits here, and then sees that it was overtaken. */
async function advance(writer: Writer, log: string, { from, to }: { from: Progress; to: Progress }): Promise<void> {
  const { seq, segment, offset } = to.place
  const values = [seq, segment, offset, to.ts, to.leaf, log]
  const changed =
    from.next === undefined
      ? await writer.run(
          'INSERT INTO progress (next, segment, "offset", ts, leaf, log) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING',
          values,
        )
      : await writer.run(
          'UPDATE progress SET next = ?, segment = ?, "offset" = ?, ts = ?, leaf = ? WHERE log = ? AND next = ?',
          [...values, from.next],
        )
  if (changed === 0) throw new Overtaken()
}

async function progressOf({ database, origin }: IndexerOptions): Promise<Progress | undefined> {
  const [row] = await database.all<{ next: number; segment: number; offset: number; ts: number; leaf: string }>(
    'SELECT next, segment, "offset", ts, leaf FROM progress WHERE log = ?',
    [origin],
  )
  if (!row) return undefined
  const { next, segment, offset, leaf, ts } = row
  return { next, place: { seq: next, segment, offset }, leaf, ts }
}

async function resume(o: IndexerOptions): Promise<Progress> {
  const [known, kept] = await Promise.all([progressOf(o), firstKept(o.dir)])
  if (known && known.place.seq >= kept) return known
  // Pruned before it was read: what is gone cannot be found any more.
  const place = kept === 0 ? START : { seq: kept, segment: 0, offset: 0 }
  return { next: known?.next, place, leaf: known?.leaf ?? '', ts: known?.ts ?? 0 }
}

/** Whether what is in the index was read from this log: the entry in front of the place is the one that was read. */
export async function isOfThisLog(o: IndexerOptions): Promise<boolean> {
  const known = await progressOf(o)
  if (!known || known.place.seq < (await firstKept(o.dir))) return true
  const last = known.place.seq <= (await coveredBy(o.dir)) ? await entryAt(o.dir, known.place.seq - 1) : undefined
  if (last === undefined) return (await firstKept(o.dir)) >= known.place.seq // just pruned
  return leafHash(last).toString('base64url') === known.leaf
}

/** @param known number of the first entry that is not in the index. Default: none is in it. */
export async function lagBehind({ dir, clock }: Pick<IndexerOptions, 'dir' | 'clock'>, known = 0): Promise<Lag> {
  const [covered, kept] = await Promise.all([coveredBy(dir), firstKept(dir)])
  const next = Math.max(known, kept)
  if (next >= covered) return { entries: 0, seconds: 0 }
  const oldest = await entryAt(dir, next)
  const ageMs = oldest === undefined ? 0 : clock.nowMs() - Date.parse(parsed(oldest).ts)
  return { entries: covered - next, seconds: Math.max(0, ageMs / 1000) }
}
