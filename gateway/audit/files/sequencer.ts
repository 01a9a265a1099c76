/**
 * Gives entries their place and makes them durable, by group commit: the next batch gathers while the last one is on its way
 * to the disk. A number is given when a batch is written, so a failed batch leaves no gap: the file is cut back, those who
 * wait are refused, and outcomes are kept for the next try.
 */
import type { Clock } from '../../protocol/clock.ts'
import type { Anchor } from '../anchor.ts'
import { type Draft, MAX_ENTRY_BYTES, writeEntry } from '../canonical.ts'
import { unavailable } from '../entries/cause.ts'
import { CLOCK_SKEW_MS, Notices } from '../entries/notices.ts'
import { type Frontier, leafHashIn } from '../tree/merkle.ts'
import type { Disk } from './disk.ts'

/** The file that is written, and when it gives way to the next one. */
export interface SequencedFile {
  readonly fd: number
  /** Whether the file, which ends at `offset`, is to be closed before the next batch. */
  isFull(offset: number): boolean
  /** Begin the file of entry `next` on. False: nothing has changed, and the old one goes on. Never rejects. */
  rotate(next: number, offset: number): Promise<boolean>
}

export interface SequencerParts {
  readonly origin: string
  readonly file: SequencedFile
  readonly disk: Disk
  readonly clock: Clock
  readonly isDurable: boolean
  /** Where the file ends. */
  readonly anchor: Anchor
  /** Told of every batch that is stored, before its callers are. */
  onStored(leaves: readonly Buffer[]): void
}

/** An outcome that no decision takes along waits this long for company: a call alone then costs one write, not two. */
const LINGER_MS = 5

const BATCH_BYTES = 1024 * 1024
/** How often a failing disk is tried when no call comes to try it. */
const RETRY_MS = 1000
/** A write that takes longer has everybody refused who comes after it. */
const PATIENCE_MS = 5000
const LOOK_MS = 1000
/** About 64 MB of outcomes; from there on no call is let in that would make another. */
const MAX_KEPT = 50_000

interface Waiting {
  readonly draft: Draft
  /** Absent for outcomes: nobody waits for them, and they are not given up. */
  readonly caller: { resolve(seq: number): void; reject(cause: Error): void } | undefined
}

interface Batch {
  /** Entries of the log itself in front of the others. */
  readonly notices: number
  readonly taken: readonly Waiting[]
  /** Where each entry ends in the buffer, of which the first byte is not written; a line feed follows. */
  readonly ends: readonly number[]
  readonly nowMs: number
  /** When its write began. */
  readonly elapsedMs: number
}

export class Sequencer {
  readonly #parts: SequencerParts
  readonly #notices: Notices
  /** Everything that is stored. Written only by `#stored`. */
  readonly #frontier: Frontier
  #segment: number
  #offset: number
  #latestMs: number
  readonly #buffer = Buffer.allocUnsafeSlow(BATCH_BYTES)
  #queue: Waiting[] = []
  #kept = 0
  /** A batch is scheduled or under way. */
  #isBusy = false
  /** The file may hold bytes after `#offset`. */
  #isTorn = false
  #isStopped = false
  /** The disk has had a batch for too long, and still has it. */
  #stall: NodeJS.ErrnoException | undefined
  #writingSinceMs: number | undefined
  readonly #watch: NodeJS.Timeout
  #retry: NodeJS.Timeout | undefined
  #linger: NodeJS.Timeout | undefined

  constructor(parts: SequencerParts) {
    this.#parts = parts
    this.#notices = new Notices(parts.origin)
    this.#frontier = parts.anchor.frontier
    this.#segment = parts.anchor.segment
    this.#offset = parts.anchor.offset
    this.#latestMs = parts.anchor.latestMs
    this.#watch = setInterval(() => this.#look(), LOOK_MS).unref()
  }

  get size(): number {
    return this.#frontier.size
  }

  get failure(): NodeJS.ErrnoException | undefined {
    return this.#stall ?? this.#notices.failure
  }

  /** Entries that wait for the disk without a caller. */
  get kept(): number {
    return this.#kept
  }

  /** What is stored at this moment. */
  anchor(): Anchor {
    return {
      ...{ frontier: this.#frontier.copy(), latestMs: this.#latestMs },
      ...{ segment: this.#segment, offset: this.#offset },
    }
  }

  append(draft: Draft): Promise<number> {
    return new Promise((resolve, reject) => {
      if (this.#stall || this.#kept >= MAX_KEPT) {
        this.#notices.refused(1)
        return reject(unavailable(this.failure))
      }
      this.#queue.push({ draft, caller: { resolve, reject } })
      this.#wake()
    })
  }

  enqueue(draft: Draft): void {
    this.#kept += 1
    this.#queue.push({ draft, caller: undefined })
    // A crash in between leaves an allowed call without an outcome, which `verify` lists; it can happen at any other moment too.
    if (!this.#isBusy) this.#wait()
  }

  /** Nothing is written from now on: the file is about to be closed, and its number may soon name another. */
  stop(): void {
    this.#isStopped = true
    clearTimeout(this.#retry)
    clearTimeout(this.#linger)
    clearInterval(this.#watch)
  }

  #wait(): void {
    if (!this.#isStopped) this.#linger ??= setTimeout(() => this.#wake(), LINGER_MS)
  }

  #wake(): void {
    if (this.#isBusy || this.#isStopped) return
    this.#isBusy = true
    clearTimeout(this.#linger)
    this.#linger = undefined
    // After the sockets that are readable in this turn: their calls share the write.
    setImmediate(() => this.#next())
  }

  #next(): void {
    if (this.#isTorn) this.#mend()
    else this.#write()
  }

  #mend(): void {
    this.#parts.disk.cutBack(this.#parts.file.fd, this.#offset, (error) => {
      this.#isTorn = error !== null
      if (error) this.#failed(error, [])
      else this.#write()
    })
  }

  #write(): void {
    if (this.#parts.file.isFull(this.#offset)) void this.#rotate()
    else this.#store()
  }

  /** Between two batches. Calls wait for two names and a sync of the directory, once in `audit.segment_mb`. */
  async #rotate(): Promise<void> {
    this.#writingSinceMs = this.#parts.clock.elapsedMs()
    const hasBegun = await this.#parts.file.rotate(this.#frontier.size, this.#offset)
    this.#writingSinceMs = undefined
    this.#stall = undefined
    if (hasBegun) [this.#segment, this.#offset] = [this.#frontier.size, 0]
    this.#store()
  }

  #store(): void {
    const batch = this.#fill()
    const end = batch.ends.at(-1)
    if (end === undefined) {
      this.#isBusy = false
      return
    }
    const leaves = this.#hash(batch.ends)
    const bytes = this.#buffer.subarray(1, end + 1)
    const { file, disk, isDurable } = this.#parts
    this.#writingSinceMs = batch.elapsedMs
    disk.store({ fd: file.fd, bytes, position: this.#offset, isDurable }, (error) => {
      this.#writingSinceMs = undefined
      this.#stall = undefined
      if (error) this.#failed(error, batch.taken)
      else this.#stored(batch, bytes.length, leaves)
    })
  }

  /** Numbers and writes out as many entries as fit; those that are taken leave the queue. */
  #fill(): Batch {
    const nowMs = this.#parts.clock.nowMs()
    const ts = new Date(nowMs).toISOString()
    const ends: number[] = []
    let [seq, used] = [this.#frontier.size, 1]
    const put = (draft: Draft) => {
      used = writeEntry(this.#buffer, used, draft, { seq: seq++, ts })
      ends.push(used++)
    }
    const notices = this.#notices.before(nowMs, this.#latestMs)
    notices.forEach(put)
    let count = 0
    for (; count < this.#queue.length && used + MAX_ENTRY_BYTES < BATCH_BYTES; count++)
      put((this.#queue[count] as Waiting).draft)
    const taken = this.#queue
    this.#queue = count === taken.length ? [] : taken.splice(count)
    return { notices: notices.length, taken, ends, nowMs, elapsedMs: this.#parts.clock.elapsedMs() }
  }

  /** And ends each entry with its line feed: until then the byte between two of them is the prefix of the second. */
  #hash(ends: readonly number[]): Buffer[] {
    let start = 1
    const leaves = ends.map((end) => {
      const leaf = leafHashIn(this.#buffer, start, end)
      start = end + 1
      return leaf
    })
    for (const end of ends) this.#buffer[end] = 0x0a
    return leaves
  }

  #stored(batch: Batch, length: number, leaves: readonly Buffer[]): void {
    const first = this.#frontier.size + batch.notices
    for (const leaf of leaves) this.#frontier.append(leaf)
    this.#offset += length
    this.#latestMs = batch.nowMs < this.#latestMs - CLOCK_SKEW_MS ? batch.nowMs : Math.max(this.#latestMs, batch.nowMs)
    this.#notices.stored(batch.nowMs, this.#parts.clock.elapsedMs() - batch.elapsedMs)
    clearTimeout(this.#retry)
    this.#parts.onStored(leaves)
    batch.taken.forEach(({ caller }, i) => {
      if (caller) caller.resolve(first + i)
      else this.#kept -= 1
    })
    const callers = this.#queue.length - this.#kept
    if (callers > 0) this.#write()
    else this.#isBusy = false
    if (callers === 0 && this.#kept > 0) this.#wait()
  }

  /** Whether the bytes reached the file or not, they are cut off: an entry is in the log only if its caller was told so. */
  #failed(cause: NodeJS.ErrnoException, taken: readonly Waiting[]): void {
    this.#queue = [...taken, ...this.#queue]
    this.#notices.failed(cause, this.#parts.clock.nowMs())
    this.#isTorn = true
    this.#parts.disk.cutBack(this.#parts.file.fd, this.#offset, (error) => {
      this.#isTorn = error !== null
      this.#isBusy = false
      this.#refuse(cause)
      clearTimeout(this.#retry)
      if (!this.#isStopped) this.#retry = setTimeout(() => this.#wake(), RETRY_MS).unref()
    })
  }

  /** Those in the batch go on waiting: whether their entries are in the log is the disk's to say. */
  #look(): void {
    if (this.#stall || this.#writingSinceMs === undefined) return
    if (this.#parts.clock.elapsedMs() - this.#writingSinceMs < PATIENCE_MS) return
    const took = `a write has taken more than ${PATIENCE_MS / 1000} s`
    this.#stall = Object.assign(new Error(took), { code: 'ETIMEDOUT' })
    this.#refuse(this.#stall)
  }

  #refuse(cause: NodeJS.ErrnoException): void {
    const waiting = this.#queue
    this.#queue = waiting.filter(({ caller }) => !caller)
    this.#notices.refused(waiting.length - this.#queue.length)
    for (const { caller } of waiting) caller?.reject(unavailable(cause))
  }
}
