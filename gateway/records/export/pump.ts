/**
 * One export: reads what the log has, delivers it in order, and moves its cursor when the receiver has confirmed. Tries for ever;
 * an entry that the receiver will not have is set aside by name, and never without a word.
 */

import { timeOf } from '../../audit/entries/entry.ts'
import { coveredBy, entriesAt, firstKept, type Place, readEntries, type Stretch } from '../../audit/files/follow.ts'
import type { Cursor, Mark } from './cursor.ts'
import { type Exported, entryFilter, type Item, type Items } from './item.ts'
import { createOffer, type Refused } from './offer.ts'
import { type Sink, Unavailable } from './sink.ts'

export interface PumpState {
  /** Entries of the log that have not been delivered. */
  readonly entries: number
  /** When the oldest of them was written, milliseconds since the epoch; undefined when there is none. */
  readonly sinceMs: number | undefined
  /** Why nothing is delivered at the moment. */
  readonly failure: string | undefined
  /** Entries set aside since the start. */
  readonly refused: number
}

export interface PumpOptions {
  readonly log: string
  /** Directory of the log. */
  readonly dir: string
  readonly cursor: Cursor
  readonly items: Items
  readonly sink: Sink
  readonly kinds?: readonly string[] | undefined
  /** Obligations to notify: what was decided with one of them is wanted too. */
  readonly notify?: readonly string[] | undefined
  /** Every change of state. */
  report(state: PumpState): void
  /** What somebody should know. */
  warn(text: string): void
  /** Resolves early when there is an end. */
  sleep(ms: number): Promise<void>
  /** From 0 to less than 1. */
  random(): number
}

/** How often the log is looked at. */
const IDLE_MS = 500
const FIRST_RETRY_MS = 1_000
const LAST_RETRY_MS = 60_000

/** @returns when `stop` is aborted: after one more look, so that what is there leaves before the end. */
export async function runPump(o: PumpOptions, stop: AbortSignal): Promise<void> {
  const pump = new Pump(o)
  for (let failures = 0; ; ) {
    const isLast = stop.aborted
    try {
      await pump.drain()
      failures = 0
    } catch (cause) {
      failures += 1
      pump.failed(cause as Error)
      if (!isLast && !stop.aborted) await o.sleep(backoffMs(failures, cause, o.random()))
    }
    if (isLast) return
    if (failures === 0 && !stop.aborted) await o.sleep(IDLE_MS)
  }
}

/** Doubles up to a minute, half of it left to chance so that replicas do not come back together; or as long as the receiver asks. */
function backoffMs(failures: number, cause: unknown, random: number): number {
  const asked = cause instanceof Unavailable ? cause.retryAfterMs : undefined
  const own = Math.min(FIRST_RETRY_MS * 2 ** Math.min(failures - 1, 16), LAST_RETRY_MS)
  return Math.max(asked ?? 0, own * (0.5 + random / 2))
}

class Pump {
  readonly #o: PumpOptions
  readonly #wants: (entry: Exported) => boolean
  readonly #offer: (items: readonly Item[]) => Promise<Refused[]>
  #place: Place | undefined // undefined until the cursor has been read
  #isSaved = true
  #failure: string | undefined
  #refused = 0

  constructor(o: PumpOptions) {
    this.#o = o
    this.#wants = entryFilter(o)
    this.#offer = createOffer(o.sink, o.random)
  }

  async drain(): Promise<void> {
    const { dir } = this.#o
    this.#place ??= await this.#start(await this.#o.cursor.read())
    if (!this.#isSaved) await this.#save(this.#place)
    const covered = await coveredBy(dir)
    if (this.#place.seq > covered)
      throw new Error(`the log ends at entry ${covered}, but ${this.#place.seq} were exported: it was cut or put back`)
    await this.#skipPruned()
    for await (const stretch of readEntries(dir, this.#place)) {
      this.#tell(covered, stretch)
      await this.#pass(stretch)
    }
    if (this.#failure !== undefined) this.#o.warn('works again')
    this.#failure = undefined
    this.#tell(covered, undefined)
  }

  failed({ message }: Error): void {
    if (this.#failure === undefined || this.#failure !== message) this.#o.warn(`waits and tries again: ${message}`)
    this.#failure = message
  }

  async #start({ place, open }: Mark): Promise<Place> {
    const { dir, items, log } = this.#o
    // Their outcomes are still to come, and are told with the target that only the decision knows.
    for (const bytes of await entriesAt(dir, open)) if (bytes) items.read(bytes, log)
    return place
  }

  async #skipPruned(): Promise<void> {
    const [place, kept] = [this.#place, await firstKept(this.#o.dir)]
    if (place === undefined || kept <= place.seq) return
    this.#o.warn(`entries ${place.seq} to ${kept - 1} were pruned before they were exported`)
    this.#place = { seq: kept, segment: kept, offset: 0 }
  }

  async #pass({ entries, from, next }: Stretch): Promise<void> {
    const { items, log, warn } = this.#o
    const read = entries.map((bytes, i) => {
      const item = items.read(bytes, log)
      if (!item) warn(`entry ${from + i} is no entry; it is passed over. "keyless log verify" says what is wrong.`)
      return item
    })
    const wanted = read.filter((item) => item !== undefined).filter(({ entry }) => this.#wants(entry))
    const refused = wanted.length > 0 ? await this.#offer(wanted) : []
    if (refused.length > 0) await this.#setAside(refused)
    // Confirmed. A crash before the cursor is written sends these entries once more: they have the same ids.
    this.#place = next
    await this.#save(next)
  }

  async #setAside(refused: readonly Refused[]): Promise<void> {
    const { cursor, log, warn } = this.#o
    await cursor.setAside(
      refused.map(({ item: { entry }, reason }) => ({
        log: entry.log ?? log,
        seq: entry.seq,
        kind: entry.kind,
        reason,
      })),
    )
    this.#refused += refused.length
    const { item, reason } = refused[0] as Refused
    const others = refused.length > 1 ? ` and ${refused.length - 1} others` : ''
    warn(`the receiver does not take entry ${item.entry.seq}${others} (${reason}); set aside in ${cursor.asidePath}`)
  }

  async #save(place: Place): Promise<void> {
    this.#isSaved = false
    await this.#o.cursor.write({ log: this.#o.log, place, open: this.#o.items.open() })
    this.#isSaved = true
  }

  #tell(covered: number, pending: Stretch | undefined): void {
    const [first] = pending?.entries ?? []
    this.#o.report({
      entries: Math.max(0, covered - (pending?.from ?? this.#place?.seq ?? 0)),
      sinceMs: first && timeOf(first),
      failure: this.#failure,
      refused: this.#refused,
    })
  }
}
