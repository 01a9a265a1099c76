/**
 * Are these logs what their key holders once signed, and is what they tell possible: checked offline, from the directories and
 * public keys, in bounded memory. Every entry is read; the first one that is wrong is named.
 */
import type { Authority } from '../protocol/grant.ts'
import { parseWitnessKey } from './cosignature.ts'
import { parseVerifier } from './note.ts'
import { Conduct } from './scrutiny-conduct.ts'
import { openCrew } from './verify-crew.ts'
import { bytesOf } from './verify-entries.ts'
import { Inquiry, type Seen } from './verify-inquiry.ts'
import { type Memory, readMemory, writeMemory } from './verify-remember.ts'
import type { Verdict } from './verify-verdict.ts'

export { exitCode, type Fault, type Verdict } from './verify-verdict.ts'

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
  const memory = options.remember === undefined ? new Map() : await readMemory(options.remember)
  const keys = [...(options.publicKeys ?? []), ...(options.publicKey === undefined ? [] : [options.publicKey])]
  const witnesses = (options.witnessKeys ?? []).map((key) => parseWitnessKey(key.trim()))
  const quorum = witnesses.length === 0 ? undefined : { witnesses, least: options.minWitnesses ?? witnesses.length }
  const conduct = new Conduct({
    boundMs: 1000 * (options.boundS ?? 2),
    isFleet: dirs.length > 1,
    excess: (parent, child) => options.excess?.(parent, child) ?? [],
  })
  const sizes = await Promise.all(dirs.map((dir) => bytesOf(dir).catch(() => 0)))
  const crew = openCrew(Math.max(0, ...sizes), options.threads)
  const inquiries = dirs.map(
    (dir) =>
      new Inquiry(dir, {
        crew,
        memory,
        quorum,
        keys: keys.map((key) => parseVerifier(key.trim())),
        isAlone: dirs.length === 1,
        isWhole: options.checks !== 'integrity',
        openMs: 1000 * (options.openS ?? 3600),
        maxAgeMs: options.maxAgeS === undefined ? undefined : 1000 * options.maxAgeS,
        nowMs: options.nowMs ?? Date.now(),
      }),
  )
  try {
    await judge(inquiries, options.checks === 'integrity' ? undefined : conduct)
  } finally {
    await crew.close()
  }
  conduct.finish()
  const verdicts = inquiries.map((inquiry) => inquiry.verdict())
  if (options.remember !== undefined && verdicts.every(({ ok }) => ok))
    await writeMemory(options.remember, remembering(memory, inquiries, options.nowMs ?? Date.now()))
  return verdicts
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
