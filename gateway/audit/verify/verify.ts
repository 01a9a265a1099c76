/**
 * Are these logs what their key holders once signed, and is what they tell possible: checked offline, from the directories and
 * public keys, in bounded memory. Every entry is read; the first one that is wrong is named.
 */
import type { Authority } from '../../protocol/grant.ts'
import { parseVerifier } from '../tree/note.ts'
import { parseWitnessKey } from '../witness/cosignature.ts'
import { openCrew } from './crew.ts'
import { bytesOf } from './entries.ts'
import { Inquiry, type Seen } from './inquiry.ts'
import { type Memory, readMemory, writeMemory } from './remember.ts'
import { Conduct } from './scrutiny-conduct.ts'
import type { Verdict } from './verdict.ts'

export { exitCode, type Fault, type Verdict } from './verdict.ts'

export interface VerifyOptions {
  /** Verifier keys as in `log.pub`, one for each log by its name. Default: the one in the directory, which proves nothing against whoever can write there. */
  readonly publicKeys?: readonly string[]
  /** The same, for one log. */
  readonly publicKey?: string
  /** File of what was verified before. Made if absent; updated when all logs are sound. */
  readonly remember?: string
  /** Verifier keys of witnesses. */
  readonly witnessKeys?: readonly string[]
  /** How many of them must have cosigned. Default all. */
  readonly minWitnesses?: number
  /** Seconds that the newest cosignature, or without witnesses the newest entry, may be old. Default: any. */
  readonly maxAgeS?: number
  /** Seconds that the end of a grant may take to reach every replica. Default 2. */
  readonly boundS?: number
  /** Seconds after which an allowed call without outcome is listed. Default 3600. */
  readonly openS?: number
  /** `integrity`: only that nothing was changed, removed or added. Default all. */
  readonly checks?: 'integrity' | 'all'
  /** In what a child's authority is wider than its parent's: `excessOf` of grant/attenuate.ts. Default: not looked at. */
  excess?(parent: readonly Authority[], child: readonly Authority[]): readonly string[]
  /** Default: as many as there are processors. */
  readonly threads?: number
  /** Milliseconds since the epoch. Default now. */
  readonly nowMs?: number
}

/** One log. Never throws but for options that are wrong: what cannot be read is a verdict too. */
export async function verifyLog(dir: string, options: VerifyOptions = {}): Promise<Verdict> {
  const [verdict] = await verifyLogs([dir], options)
  return verdict as Verdict
}

/**
 * The logs of one fleet, together: what one refers to may be in another. Of one directory alone nothing is missing that another
 * replica may have.
 * @returns a verdict for each directory, in order.
 * @throws {Error} when a key in the options or the file to remember with is damaged.
 */
export async function verifyLogs(dirs: readonly string[], options: VerifyOptions = {}): Promise<Verdict[]> {
  const { remember, nowMs = Date.now(), checks } = options
  const memory = remember === undefined ? new Map() : await readMemory(remember)
  const sizes = await Promise.all(dirs.map((dir) => bytesOf(dir).catch(() => 0)))
  const crew = openCrew(Math.max(0, ...sizes), checks !== 'integrity', options.threads)
  const terms = { ...termsOf(options), crew, memory, nowMs, isAlone: dirs.length === 1 }
  const inquiries = dirs.map((dir) => new Inquiry(dir, terms))
  try {
    await compareForks(inquiries)
    const conduct = checks === 'integrity' ? undefined : conductOf(dirs, options)
    await judge(inquiries, conduct)
    conduct?.finish()
  } finally {
    await crew.close()
  }
  const verdicts = inquiries.map((inquiry) => inquiry.verdict())
  const isSound = verdicts.every(({ ok }) => ok)
  if (remember !== undefined && isSound) await writeMemory(remember, remembering(memory, inquiries, nowMs))
  return verdicts
}

function termsOf({ publicKeys = [], publicKey, witnessKeys = [], ...o }: VerifyOptions) {
  const witnesses = witnessKeys.map((key) => parseWitnessKey(key.trim()))
  const keys = publicKey === undefined ? publicKeys : [...publicKeys, publicKey]
  return {
    keys: keys.map((key) => parseVerifier(key.trim())),
    quorum: witnesses.length === 0 ? undefined : { witnesses, least: o.minWitnesses ?? witnesses.length },
    isWhole: o.checks !== 'integrity',
    openMs: 1000 * (o.openS ?? 3600),
    maxAgeMs: o.maxAgeS === undefined ? undefined : 1000 * o.maxAgeS,
  }
}

function conductOf(dirs: readonly string[], { boundS = 2, excess }: VerifyOptions): Conduct {
  return new Conduct({
    boundMs: 1000 * boundS,
    isFleet: dirs.length > 1,
    excess: (parent, child) => excess?.(parent, child) ?? [],
  })
}

/** Directories with the same log hold it to one another's heads. */
async function compareForks(inquiries: readonly Inquiry[]): Promise<void> {
  const heads = await Promise.all(inquiries.map((inquiry) => inquiry.prepare()))
  for (const one of inquiries)
    for (const [i, other] of inquiries.entries())
      if (one !== other && one.origin !== undefined && one.origin === other.origin)
        one.compareWith(other.dir, heads[i] ?? [])
}

/** Every entry of all logs, by time; each log keeps its own order. */
async function judge(inquiries: readonly Inquiry[], conduct: Conduct | undefined): Promise<void> {
  const open = inquiries.map((inquiry) => new Cursor(inquiry))
  for (const cursor of open) await cursor.more()
  for (;;) {
    const next = earliest(open)
    if (!next) return
    next.take(conduct)
    if (next.isEmpty) await next.more()
  }
}

function earliest(cursors: readonly Cursor[]): Cursor | undefined {
  let found: Cursor | undefined
  for (const cursor of cursors) if (!cursor.isEmpty && !(found && found.ms <= cursor.ms)) found = cursor
  return found
}

/** A log, and the next of its entries. */
class Cursor {
  readonly #inquiry: Inquiry
  readonly #batches: AsyncGenerator<readonly Seen[]>
  #batch: readonly Seen[] = []
  #at = 0

  constructor(inquiry: Inquiry) {
    this.#inquiry = inquiry
    this.#batches = inquiry.run()
  }

  /** After `more`: nothing is left. */
  get isEmpty(): boolean {
    return this.#at >= this.#batch.length
  }

  get ms(): number {
    return this.#batch[this.#at]?.fact.ms ?? Number.POSITIVE_INFINITY
  }

  take(conduct: Conduct | undefined): void {
    this.#inquiry.take(this.#batch[this.#at++] as Seen, conduct)
  }

  async more(): Promise<void> {
    for (this.#at = 0, this.#batch = []; this.isEmpty; ) {
      const { done, value } = await this.#batches.next()
      if (done) return
      this.#batch = value
    }
  }
}

function remembering(memory: Memory, inquiries: readonly Inquiry[], nowMs: number): Memory {
  const at = new Date(nowMs).toISOString()
  const seen = inquiries.flatMap((inquiry) => inquiry.remembering(at))
  return new Map([...memory, ...seen])
}
