/**
 * The tree over the entries as they are read, held to every signed head on the way. Beside it grows the tree of the stored leaf
 * hashes: where that one has a signed root, it tells which entry was changed.
 */
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import { readAt } from '../files/seekable.ts'
import { files } from '../lines.ts'
import { Frontier } from '../tree/merkle.ts'
import type { Head } from './heads.ts'
import type { Findings } from './verdict.ts'

const HASH_BYTES = 32
const STEP = 4096

export class Tree {
  readonly #entries = new Frontier()
  readonly #stored = new Frontier()
  readonly #heads: readonly Head[]
  readonly #findings: Findings
  readonly #leaves: FileHandle | undefined
  /** First entry whose hash is not the stored one. */
  #firstChanged: number | undefined

  private constructor(heads: readonly Head[], findings: Findings, leaves: FileHandle | undefined) {
    this.#heads = heads
    this.#findings = findings
    this.#leaves = leaves
  }

  static async open(dir: string, heads: readonly Head[], findings: Findings): Promise<Tree> {
    const leaves = await open(join(dir, files.leaves), 'r').catch((cause: NodeJS.ErrnoException) => {
      if (cause.code === 'ENOENT') return undefined
      throw cause
    })
    const tree = new Tree(heads, findings, leaves)
    tree.#compare()
    return tree
  }

  get size(): number {
    return this.#entries.size
  }

  root(): Buffer {
    return this.#entries.root()
  }

  async add(leaves: Uint8Array): Promise<void> {
    const count = leaves.length / HASH_BYTES
    const stored = await this.#storedAt(this.size, count)
    for (let i = 0; i < count; i++) {
      const leaf = Buffer.from(leaves.buffer, leaves.byteOffset + i * HASH_BYTES, HASH_BYTES)
      const known = stored[i]
      if (known && this.#stored.size === this.size) this.#stored.append(known)
      if (known && this.#firstChanged === undefined && !known.equals(leaf)) this.#firstChanged = this.size
      this.#entries.append(Buffer.from(leaf))
      this.#compare()
    }
  }

  /** Entries without text: the stored hashes stand for them. @returns how many there were. */
  async addStored(count: number): Promise<number> {
    let left = count
    while (left > 0) {
      const stored = await this.#storedAt(this.size, Math.min(left, STEP))
      if (stored.length === 0) break
      await this.add(Buffer.concat(stored))
      left -= stored.length
    }
    return count - left
  }

  /** After the last entry: what is missing behind it, and what its stored hashes say. @param tornBytes behind the last whole entry. */
  async finish(tornBytes: number): Promise<void> {
    const missing = this.#heads.filter(({ size }) => size > this.size)
    const covered = Math.max(0, ...missing.map(({ size }) => size))
    await this.#readOn(covered)
    if (missing.length > 0) this.#missing(missing, covered, tornBytes)
    else if (this.#firstChanged !== undefined && this.#findings.isSound)
      this.#findings.warn(
        'hash',
        this.#firstChanged,
        `the stored hash of the entry in the file ${files.leaves} is damaged; the gateway makes it again when it starts`,
      )
    await this.#leaves?.close()
  }

  /** What the log once was, and is not any more. Where the trouble begins may be further up: the rest of the stored hashes tells. */
  #missing(missing: readonly Head[], covered: number, tornBytes: number): void {
    const index = this.#changed(missing)
    if (index !== undefined) this.#findings.fault('hash', index, 'the entry is not the one that was signed')
    const { size } = this
    const what = tornBytes > 0 ? 'is damaged' : `and all up to ${covered - 1} are missing`
    for (const check of new Set(missing.map((head) => head.check))) {
      const by = WHO[check] ?? 'the signed checkpoint covers'
      const most = Math.max(...missing.filter((head) => head.check === check).map((head) => head.size))
      this.#findings.fault(check, size, `entry ${size} ${what}: ${by} ${most} entries`)
    }
  }

  async #readOn(covered: number): Promise<void> {
    while (this.#stored.size < covered) {
      const more = await this.#storedAt(this.#stored.size, Math.min(STEP, covered - this.#stored.size))
      if (more.length === 0) return
      for (const leaf of more) this.#stored.append(leaf)
    }
  }

  #compare(): void {
    for (const head of this.#heads) {
      if (head.size !== this.size || head.root.equals(this.root())) continue
      const index = this.#changed([head])
      if (index !== undefined) this.#findings.fault(head.check, index, 'the entry is not the one that was signed')
      else this.#findings.fault(head.check, null, head.otherwise)
    }
  }

  /** The first entry that differs from its stored hash, if the stored hashes are proven by a head. */
  #changed(heads: readonly Head[]): number | undefined {
    const isProven = heads.some(({ size, root }) => size === this.#stored.size && root.equals(this.#stored.root()))
    return isProven ? this.#firstChanged : undefined
  }

  async #storedAt(from: number, count: number): Promise<Buffer[]> {
    if (!this.#leaves || count === 0) return []
    const bytes = await readAt(this.#leaves, from * HASH_BYTES, count * HASH_BYTES)
    return Array.from({ length: Math.floor(bytes.length / HASH_BYTES) }, (_, i) =>
      bytes.subarray(i * HASH_BYTES, (i + 1) * HASH_BYTES),
    )
  }
}

const WHO: Readonly<Record<string, string>> = {
  witness: 'witnesses have cosigned',
  remembered: 'an earlier verification saw',
}
