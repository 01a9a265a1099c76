/**
 * Is this log what its key holder once signed: checked offline, from the directory and a public key, in bounded memory. Every
 * entry is read; the first one that is wrong is named.
 */
import { type FileHandle, open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { readIfThere } from '../private-file.ts'
import { readAnchor } from './anchor.ts'
import { type Checkpoint, openCheckpoint } from './checkpoint.ts'
import { files, readLines } from './lines.ts'
import { Frontier, leafHash } from './merkle.ts'
import { NoteRefused, type NoteVerifier, parseVerifier } from './note.ts'
import { Scrutiny } from './scrutiny.ts'

export interface Fault {
  /** Entry that is wrong; null when it cannot be told which. */
  readonly index: number | null
  readonly what: string
}

export interface Verdict {
  readonly ok: boolean
  /** Why the log cannot be judged at all: a file is absent or unreadable. Then `ok` is false and nothing else is known. */
  readonly unreadable: string | null
  readonly origin: string | null
  /** Whole entries in the file. */
  readonly entries: number
  /** Entries that the signed checkpoint covers. */
  readonly covered: number
  /** Entries after it: well formed, but not signed yet. */
  readonly uncovered: number
  /** Bytes after the last whole entry: a write under way, or one that a crash tore. */
  readonly torn_bytes: number
  readonly root: string | null
  /** Calls that were allowed and have no outcome: under way, or cut short by a crash. */
  readonly open_calls: number
  readonly first_bad: Fault | null
  readonly faults: readonly Fault[]
}

export interface VerifyOptions {
  /** Verifier key as in `log.pub`. Default: the one in the directory, which proves nothing against whoever can write there. */
  readonly publicKey?: string
}

const MAX_FAULTS = 20

/** Exit code of the command: 0 sound, 1 tampered, 2 cannot be read. */
export function exitCode(verdict: Verdict): 0 | 1 | 2 {
  return verdict.unreadable !== null ? 2 : verdict.ok ? 0 : 1
}

/** Never throws: what cannot be read is a verdict too. */
export async function verifyLog(dir: string, options: VerifyOptions = {}): Promise<Verdict> {
  const inquiry = new Inquiry(dir)
  try {
    return await inquiry.run(options)
  } catch (cause) {
    if (!(cause instanceof Error)) throw cause
    return inquiry.verdict(cause.message)
  }
}

class Inquiry {
  readonly #dir: string
  readonly #faults: Fault[] = []
  readonly #scrutiny = new Scrutiny()
  readonly #tree = new Frontier()
  #origin: string | null = null
  #covered = 0
  #tornBytes = 0
  /** First entry whose hash is not the one in the leaves file. */
  #firstChanged: number | undefined
  /** The tree of the stored leaf hashes: if it has the signed root, they tell which entry was changed. */
  readonly #witness = new Frontier()

  constructor(dir: string) {
    this.#dir = dir
  }

  async run({ publicKey }: VerifyOptions): Promise<Verdict> {
    const verifier = parseVerifier((publicKey ?? (await readFile(join(this.#dir, 'log.pub'), 'utf8'))).trim())
    this.#origin = verifier.name
    // Heads before entries: while the log is being written, entries only ever get more.
    const heads = await this.#heads(verifier)
    this.#covered = Math.max(0, ...heads.map((head) => head.size))
    const leaves = await openIfThere(join(this.#dir, files.leaves))
    try {
      await this.#walk(heads, leaves)
      if (this.#tree.size < this.#covered) await this.#missing(heads, leaves)
    } finally {
      await leaves?.close()
    }
    return this.verdict(null)
  }

  verdict(unreadable: string | null): Verdict {
    const faults = this.#faults.toSorted((a, b) => (a.index ?? -1) - (b.index ?? -1)).slice(0, MAX_FAULTS)
    const entries = this.#tree.size
    return {
      ok: unreadable === null && faults.length === 0,
      unreadable,
      origin: this.#origin,
      entries,
      covered: Math.min(this.#covered, entries),
      uncovered: Math.max(0, entries - this.#covered),
      torn_bytes: this.#tornBytes,
      root: unreadable === null ? this.#tree.root().toString('base64') : null,
      open_calls: this.#scrutiny.openCalls,
      first_bad: faults.find((fault) => fault.index !== null) ?? faults[0] ?? null,
      faults,
    }
  }

  /** The checkpoint, and the same in the frontier file, which can be newer by one. */
  async #heads(verifier: NoteVerifier): Promise<Checkpoint[]> {
    const heads: Checkpoint[] = []
    const note = await readIfThere(join(this.#dir, files.checkpoint))
    try {
      if (note) heads.push(openCheckpoint(note, verifier))
      else this.#fault(null, 'the checkpoint is missing')
    } catch (cause) {
      if (!(cause instanceof NoteRefused)) throw cause
      this.#fault(null, cause.message)
    }
    const stored = await readAnchor(this.#dir, verifier)
    if (stored) heads.push(stored.head)
    return heads
  }

  async #walk(heads: readonly Checkpoint[], leaves: FileHandle | undefined): Promise<void> {
    const path = join(this.#dir, files.entries)
    // Gone, though it was signed, is missing entries; gone, and never signed, is no log.
    if (this.#covered > 0 && !(await isThere(path))) return
    for await (const lines of readLines(path)) {
      const stored = leaves && (await readLeaves(leaves, this.#tree.size, lines.length))
      for (const [i, line] of lines.entries()) {
        if (!line.isWhole) {
          this.#tornBytes = line.bytes.length
          return
        }
        this.#take(line.bytes, stored?.[i])
        for (const head of heads) if (head.size === this.#tree.size) this.#compare(head)
      }
    }
  }

  #take(bytes: Buffer, stored: Buffer | undefined): void {
    const index = this.#tree.size
    const leaf = leafHash(bytes)
    this.#tree.append(leaf)
    if (stored) this.#witness.append(stored)
    if (stored && this.#firstChanged === undefined && !stored.equals(leaf)) this.#firstChanged = index
    const wrong = this.#scrutiny.examine(bytes, index)
    if (wrong !== undefined) this.#fault(index, wrong)
  }

  #compare(head: Checkpoint): void {
    if (head.root.equals(this.#tree.root())) return
    const index = this.#changed([head])
    if (index !== undefined) this.#fault(index, 'the entry is not the one that was signed')
    else
      this.#fault(
        null,
        `the first ${head.size} entries do not hash to the signed root: one was changed, removed or added`,
      )
  }

  /** The entries end too early. Where the trouble begins may be further up: the rest of the leaf hashes tells. */
  async #missing(heads: readonly Checkpoint[], leaves: FileHandle | undefined): Promise<void> {
    const { size } = this.#tree
    while (leaves && this.#witness.size < this.#covered) {
      const more = await readLeaves(leaves, this.#witness.size, Math.min(4096, this.#covered - this.#witness.size))
      if (more.length === 0) break
      for (const leaf of more) this.#witness.append(leaf)
    }
    const index = this.#changed(heads)
    if (index !== undefined) this.#fault(index, 'the entry is not the one that was signed')
    const what = this.#tornBytes > 0 ? 'is damaged' : `and all up to ${this.#covered - 1} are missing`
    this.#fault(size, `entry ${size} ${what}: the signed checkpoint covers ${this.#covered} entries`)
  }

  /** The first entry that differs from its leaf hash, if the leaf hashes are proven by a head. */
  #changed(heads: readonly Checkpoint[]): number | undefined {
    const isProven = heads.some(({ size, root }) => size === this.#witness.size && root.equals(this.#witness.root()))
    return isProven ? this.#firstChanged : undefined
  }

  #fault(index: number | null, what: string): void {
    // The scan goes on to the end for the totals; thousands of follow-up faults say nothing new.
    if (this.#faults.length >= MAX_FAULTS * 10) return
    // Two heads that do not fit, the checkpoint and the frontier, are one finding.
    if (!this.#faults.some((fault) => fault.index === index && fault.what === what)) this.#faults.push({ index, what })
  }
}

async function openIfThere(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, 'r')
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw cause
  }
}

async function isThere(path: string): Promise<boolean> {
  const file = await openIfThere(path)
  await file?.close()
  return file !== undefined
}

async function readLeaves(file: FileHandle, from: number, count: number): Promise<Buffer[]> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(count * 32), 0, count * 32, from * 32)
  return Array.from({ length: Math.floor(bytesRead / 32) }, (_, i) => buffer.subarray(i * 32, i * 32 + 32))
}
