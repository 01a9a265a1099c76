/** One log under examination: its keys, the heads it is held to, its entries in order, and what was found. */
import { join } from 'node:path'
import { readIfThere } from '../../private-file.ts'
import { files } from '../lines.ts'
import { formatVerifier, type NoteVerifier } from '../tree/note.ts'
import type { Block } from './block.ts'
import type { Crew } from './crew.ts'
import { type Piece, pieces } from './entries.ts'
import { type Head, opened, ownHeads } from './heads.ts'
import { followedKey, signedTooLate, type Trust, trustedKey } from './keys.ts'
import { openRemembered, type Remembered, rememberedHead } from './remember.ts'
import { Scrutiny } from './scrutiny.ts'
import type { Conduct } from './scrutiny-conduct.ts'
import type { Fact } from './scrutiny-facts.ts'
import { Tree } from './tree.ts'
import { Unsigned } from './unsigned.ts'
import { Findings, type Verdict } from './verdict.ts'
import { type Quorum, type Witnessed, witnessedHead } from './witness.ts'

export interface InquiryOptions extends Trust {
  readonly crew: Crew
  readonly quorum: Quorum | undefined
  readonly isWhole: boolean
  readonly openMs: number
  readonly maxAgeMs: number | undefined
  readonly nowMs: number
}

export interface Seen {
  readonly fact: Fact
  readonly index: number
}

export class Inquiry {
  readonly dir: string
  readonly findings = new Findings()
  readonly #o: InquiryOptions
  #scrutiny: Scrutiny | undefined
  #tree: Tree | undefined
  #verifier: NoteVerifier | undefined
  #witnessed: Witnessed | undefined
  #known: Remembered | undefined
  #note: Buffer | undefined
  #covered = 0
  #pruned = 0
  #tornBytes = 0
  #newestMs: number | undefined
  readonly #unsigned: Unsigned
  #unreadable: string | null = null
  #heads: readonly Head[] = []
  #keyChanges = 0
  #prunedOnRecord = 0
  #grants = 0
  #leases = 0

  constructor(dir: string, o: InquiryOptions) {
    this.dir = dir
    this.#o = o
    this.#unsigned = new Unsigned(o.nowMs)
  }

  /** Name of the log, once it is known. */
  get origin(): string | undefined {
    return this.#verifier?.name
  }

  /** The signed heads. Before entries: while the log is being written, entries only ever get more. */
  async prepare(): Promise<readonly Head[]> {
    try {
      this.#heads = await this.#findHeads()
    } catch (cause) {
      this.#unreadable = (cause as Error).message
    }
    return this.#heads
  }

  /** Another directory has the same log: of two histories with one name one is forged. */
  compareWith(dir: string, heads: readonly Head[]): void {
    const otherwise = `${dir} has another history of the same log: this is a fork`
    const shorter = heads.filter(({ size }) => size <= this.#covered)
    this.#heads = [...this.#heads, ...shorter.map((head) => ({ ...head, check: 'checkpoint' as const, otherwise }))]
  }

  /** What was read, in batches; the caller shows each to `take` before it asks for more. */
  async *run(): AsyncGenerator<readonly Seen[]> {
    if (this.#unreadable !== null) return
    try {
      const tree = await Tree.open(this.dir, this.#heads, this.findings)
      this.#tree = tree
      for await (const piece of this.#examined()) yield await this.#add(piece, tree)
      await tree.finish(this.#tornBytes)
      this.#scrutiny?.finish()
      this.#age()
      this.#unsigned.finish(this.findings)
      this.#retention()
    } catch (cause) {
      if (!(cause instanceof Error)) throw cause
      this.#unreadable = cause.message
    }
  }

  take({ fact, index }: Seen, conduct: Conduct | undefined): void {
    const { findings } = this
    const scrutiny = this.#scrutiny as Scrutiny
    const { crashes, aliveMs } = scrutiny
    const decidedMs = scrutiny.take(fact, index)
    if (index < this.#covered) this.#newestMs = fact.ms
    else this.#unsigned.take(fact.ms, index)
    const late = this.#verifier && signedTooLate(fact, { index, covered: this.#covered }, this.#verifier)
    if (late !== undefined) findings.fault('key', index, late)
    if (fact.pruned !== undefined) this.#prunedOnRecord = Math.max(this.#prunedOnRecord, fact.pruned)
    if (fact.made) this.#grants += 1
    if (fact.lease) this.#leases += 1
    if (!conduct) return
    const ledger = { findings, scrutiny }
    if (scrutiny.crashes > crashes) conduct.crashed(ledger, aliveMs)
    conduct.take(fact, index, ledger, decidedMs)
  }

  /** What a later verification is held to; nothing for a log that has no signed head. */
  remembering(at: string): [string, Remembered][] {
    const verifier = this.#verifier
    const own = this.#note && verifier && opened(this.#note, verifier, () => {})
    if (!own || !verifier || own.size < (this.#known ? openRemembered(this.#known).head.size : 0)) return []
    return [[verifier.name, { key: formatVerifier(verifier), checkpoint: String(this.#note), at }]]
  }

  verdict(): Verdict {
    const entries = this.#tree?.size ?? 0
    const isReadable = this.#unreadable === null
    const known = this.#known
    return {
      ok: isReadable && this.findings.isSound,
      unreadable: this.#unreadable,
      dir: this.dir,
      origin: this.#verifier?.name ?? null,
      key: this.#verifier ? formatVerifier(this.#verifier) : null,
      key_changes: this.#keyChanges,
      entries,
      covered: Math.min(this.#covered, entries),
      uncovered: Math.max(0, entries - this.#covered),
      pruned: this.#pruned,
      torn_bytes: this.#tornBytes,
      root: isReadable && this.#tree ? this.#tree.root().toString('base64') : null,
      newest: this.#newestMs === undefined ? null : new Date(this.#newestMs).toISOString(),
      witnessed: this.#witnessed?.told ?? null,
      remembered: known === undefined ? null : { size: openRemembered(known).head.size, at: known.at },
      calls: this.#scrutiny?.calls ?? 0,
      grants: this.#grants,
      leases: this.#leases,
      open_calls: this.#scrutiny?.openCalls ?? 0,
      ...this.findings.summary(),
    }
  }

  async #findHeads(): Promise<Head[]> {
    const { findings, dir } = this
    const { quorum, isWhole, openMs } = this.#o
    const { verifier, heads: earlier } = await followedKey(dir, await trustedKey(dir, this.#o), findings)
    this.#verifier = verifier
    this.#keyChanges = earlier.length
    this.#scrutiny = new Scrutiny({ origin: verifier.name, findings, openMs, isWhole })
    this.#note = await readIfThere(join(dir, files.checkpoint))
    const own = await ownHeads(dir, verifier, findings)
    this.#covered = Math.max(0, ...own.map((head) => head.size))
    this.#witnessed = await witnessedHead(dir, verifier, quorum, findings)
    const known = this.#o.memory.get(verifier.name)
    this.#known = known
    if (!known && this.#o.memory.size > 0)
      findings.warn(
        'remembered',
        null,
        `the log ${verifier.name} was not verified before; remembered is ${[...this.#o.memory.keys()].join(', ')}`,
      )
    const witness = this.#witnessed.head
    return [...own, ...earlier, ...(witness ? [witness] : []), ...(known ? [rememberedHead(known)] : [])]
  }

  /** Blocks in order, several under way at once. */
  async *#examined(): AsyncGenerator<Piece | Block> {
    const under: (Promise<Block> | Piece)[] = []
    for await (const piece of pieces(this.dir)) {
      under.push(piece.kind === 'text' ? this.#o.crew.examine(piece.bytes) : piece)
      while (under.length >= this.#o.crew.width) yield await (under.shift() as Promise<Block>)
    }
    for (const one of under) yield await one
  }

  async #add(piece: Piece | Block, tree: Tree): Promise<Seen[]> {
    if (!('kind' in piece)) return this.#addBlock(piece, tree)
    if (piece.kind === 'torn') {
      if (piece.isLast) this.#tornBytes = piece.bytes
      else this.findings.fault('file', tree.size, 'the line does not end, in a file that was closed')
    } else if (piece.kind === 'gone') await this.#gone(piece, tree)
    return []
  }

  async #addBlock({ leaves, facts, wrong }: Block, tree: Tree): Promise<Seen[]> {
    const base = tree.size
    for (const { at, what, isFault } of wrong)
      if (isFault) this.findings.fault('form', base + at, what)
      else this.findings.warn('form', base + at, what)
    await tree.add(leaves)
    return facts.flatMap((fact, i) => (fact ? [{ fact, index: base + i }] : []))
  }

  async #gone({ count, why }: Extract<Piece, { kind: 'gone' }>, tree: Tree): Promise<void> {
    const from = tree.size
    const found = await tree.addStored(count)
    if (why !== undefined) this.findings.fault('file', from, why)
    else this.#pruned += found
    if (found < count)
      this.findings.fault('file', from + found, `of ${count - found} entries neither text nor hash is left`)
  }

  /** Text that is gone was removed by retention, and retention says so. */
  #retention(): void {
    if (this.#pruned <= this.#prunedOnRecord) return
    const what = `the text of all entries up to ${this.#pruned - 1} is gone, and the log says that ${this.#prunedOnRecord} were removed by retention`
    this.findings.fault('file', this.#prunedOnRecord, what)
  }

  #age(): void {
    const { maxAgeMs, nowMs, quorum } = this.#o
    if (maxAgeMs === undefined) return
    const atMs = quorum ? this.#witnessed?.atMs : this.#newestMs
    const what = quorum ? 'the newest cosignature' : 'the newest signed entry'
    const ageS = Math.round((nowMs - (atMs ?? 0)) / 1000)
    if (atMs === undefined) this.findings.fault('age', null, `${what} is missing, so nothing says how old the log is`)
    else if (ageS * 1000 > maxAgeMs)
      this.findings.fault(
        'age',
        null,
        `${what} is ${ageS} s old, and ${maxAgeMs / 1000} s are allowed: the log stands still, or its end is kept back`,
      )
  }
}
