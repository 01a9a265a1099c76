/**
 * What becomes of closed segments while the log goes on: they are compressed in a thread of their own, and after `keepDays` they lose
 * their text. The hashes stay, so every proof stays. Calls never wait for it, and what fails is tried again later.
 */
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { replace, syncDirectory } from '../../private-file.ts'
import type { Clock } from '../../protocol/clock.ts'
import type { JsonValue } from '../canonical.ts'
import { timeOf } from '../entries/entry.ts'
import { openText } from '../text.ts'
import { ArchiveThread } from './archive-thread.ts'
import { listSegments, PRUNED, prunedBefore, type Segment } from './segments.ts'

export interface ArchiveOptions {
  readonly dir: string
  readonly clock: Clock
  /** Days that text is kept; undefined: for ever. */
  readonly keepDays: number | undefined
  /** Writes an entry, and resolves when a signed checkpoint covers it. */
  record(kind: string, facts: Readonly<Record<string, JsonValue>>): Promise<void>
}

const DAY_MS = 86_400_000
/** How often it is looked for text that has grown old. */
const EVERY_MS = 3_600_000

type Closed = Segment & { readonly count: number; readonly form: 'plain' | 'zstd' }

export class Archive {
  readonly #o: ArchiveOptions
  /** Entries before this one are in closed segments, and covered by a checkpoint. */
  #closedBefore = 0
  #running: Promise<void> | undefined
  #isDue = false
  #isClosed = false
  readonly #thread = new ArchiveThread()
  readonly #timer: NodeJS.Timeout | undefined
  /** Segments that were found damaged, by first entry: each is put on record once. */
  readonly #damaged = new Set<number>()

  constructor(o: ArchiveOptions) {
    this.#o = o
    if (o.keepDays !== undefined) this.#timer = setInterval(() => this.#wake(), EVERY_MS).unref()
  }

  /** A checkpoint covers all entries before the segment that begins with `first`. */
  covered(first: number): void {
    if (first === this.#closedBefore) return
    this.#closedBefore = first
    this.#wake()
  }

  /** A compression that is under way is given up; the next start begins it again. */
  async close(): Promise<void> {
    this.#isClosed = true
    clearInterval(this.#timer)
    await this.#thread.end()
    await this.#running
  }

  #wake(): void {
    this.#isDue = true
    this.#running ??= this.#work()
  }

  async #work(): Promise<void> {
    while (this.#isDue && !this.#isClosed) {
      this.#isDue = false
      try {
        await this.#tidy()
        await this.#prune()
        const closed = await this.#closed()
        await this.#compress(closed.filter(({ form, first }) => form === 'plain' && !this.#damaged.has(first)))
      } catch {
        // A full disk, or a log that cannot be written: the next segment, or the next hour, tries again.
      }
    }
    // In the same turn in which it was seen that nothing is due.
    this.#running = undefined
  }

  /** What a crash left: half of a compressed file, and text that was on record as pruned. */
  async #tidy(): Promise<void> {
    const { dir } = this.#o
    const kept = await prunedBefore(dir)
    for (const name of await readdir(dir)) {
      const [, first, rest] = /^entries-(\d{12,})\.jsonl(.*)$/.exec(name) ?? []
      const isLeft = first !== undefined && (Number(first) < kept || rest === '.zst.new')
      if (isLeft) await rm(join(dir, name), { force: true })
    }
  }

  async #closed(): Promise<Closed[]> {
    const segments = await listSegments(this.#o.dir)
    return segments.filter(
      (segment): segment is Closed =>
        segment.form !== 'pruned' && segment.count !== undefined && segment.first + segment.count <= this.#closedBefore,
    )
  }

  async #compress(segments: readonly Closed[]): Promise<void> {
    if (this.#isClosed || segments.length === 0) return
    const { dir, record } = this.#o
    const failures = await this.#thread.compress(segments.map(({ first, count }) => ({ dir, first, count })))
    for (const { first, message, code } of failures) {
      if (code !== undefined) continue
      this.#damaged.add(first)
      await record('log.segment_damaged', { first, error: message })
    }
  }

  async #prune(): Promise<void> {
    const { dir, clock, keepDays } = this.#o
    if (keepDays === undefined) return
    const kept = await prunedBefore(dir)
    const old: Closed[] = []
    for (const segment of await this.#closed()) {
      if ((await lastTime(segment)) >= clock.nowMs() - keepDays * DAY_MS) break
      old.push(segment)
    }
    const before = old.reduce((end, { first, count }) => Math.max(end, first + count), kept)
    if (before === kept) return
    // First on record, then marked, then gone: a crash in between leaves text that is on record as pruned, and the next look removes it.
    await this.#o.record('admin.bodies_pruned', { first: kept, count: before - kept, keep_days: keepDays })
    await replace(join(dir, PRUNED), `${JSON.stringify({ before })}\n`)
    for (const { path } of old) await rm(path, { force: true })
    await syncDirectory(dir)
  }
}

/** Milliseconds since the epoch of the last entry. */
async function lastTime(segment: Closed): Promise<number> {
  const text = await openText(segment)
  try {
    for await (const lines of text.linesBack()) return timeOf(lines.at(-1)?.bytes ?? Buffer.alloc(0))
    return 0
  } finally {
    await text.close()
  }
}
