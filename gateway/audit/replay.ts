/** Walks the entries of a log from a known tree on: what the signed head covers must hash to it, what comes after must at least be entries. */

import { parseEntry, timeOf } from './entries/entry.ts'
import type { Line } from './lines.ts'
import type { Checkpoint } from './tree/checkpoint.ts'
import { type HashFiles, noNodes } from './tree/hash-files.ts'
import { Frontier, leafHash } from './tree/merkle.ts'

export const ADVICE =
  'Run "keyless log verify" to find the entry, keep the directory as evidence, and restore it from a copy or start a new log.'

/** An entry that sets the clock back makes what was later before it meaningless. */
const SET_BACK = Buffer.from('"kind":"log.clock_set_back"')

export class Replay {
  readonly frontier: Frontier
  /** Behind the last line that was taken. */
  offset = 0
  latestMs = 0
  /** A line did not belong to the log; none was taken after it. */
  isTorn = false
  readonly #head: Checkpoint | undefined
  readonly #covered: number
  /** Where the log is, for messages. */
  readonly #path: string
  #nodes = noNodes()

  constructor(known: Frontier, head: Checkpoint | undefined, path: string) {
    this.frontier = new Frontier(known.size, known.peaks, (level, root) => this.#nodes[level]?.push(root))
    this.#head = head
    this.#path = path
    this.#covered = head?.size ?? 0
  }

  take(lines: readonly Line[]): void {
    for (const line of lines) {
      this.isTorn = !this.#belongs(line)
      if (this.isTorn) return
      this.add(leafHash(line.bytes))
      this.offset = line.start + line.bytes.length + 1
      const ms = timeOf(line.bytes)
      this.latestMs = line.bytes.includes(SET_BACK) ? ms : Math.max(this.latestMs, ms)
    }
  }

  /** An entry of which only the hash is kept. */
  add(leaf: Buffer): void {
    this.#nodes[0]?.push(leaf)
    this.frontier.append(leaf)
    if (this.#head?.size !== this.frontier.size || this.#head.root.equals(this.frontier.root())) return
    throw new Error(
      `${this.#path} does not match its signed checkpoint at size ${this.#head.size}: an entry was changed. The log is not opened. ${ADVICE}`,
    )
  }

  /** Write out what was hashed since the last time. */
  async store(hashes: HashFiles): Promise<void> {
    const nodes = this.#nodes
    this.#nodes = noNodes()
    await hashes.write(nodes, this.frontier.size)
  }

  /** @throws {Error} when the entries up to `first` are not all there, though one file ended and the next begins with it. */
  mustStandAt(first: number): void {
    const { size } = this.frontier
    if (size === first && !this.isTorn) return
    const what = this.isTorn ? `entry ${size} is damaged` : `entries ${size} to ${first - 1} are missing`
    throw new Error(`${this.#path}: ${what}, and others follow. The log is not opened. ${ADVICE}`)
  }

  /** @throws {Error} when signed entries are missing. */
  finish(): void {
    const { size } = this.frontier
    if (size >= this.#covered) return
    const what = this.isTorn
      ? `entry ${size} is damaged`
      : `entries ${size} to ${this.#covered - 1} are missing from its end`
    throw new Error(
      `${this.#path}: ${what}, but the signed checkpoint covers ${this.#covered} entries. The log is not opened. ${ADVICE}`,
    )
  }

  #belongs(line: Line): boolean {
    if (!line.isWhole) return false
    const index = this.frontier.size
    // Covered lines are proven by the root; parsing them would only cost time.
    if (index < this.#covered) return true
    const entry = parseEntry(line.bytes)
    if (entry?.seq !== index) return false
    // The first head is signed before the first call is served, so a call without any head means that heads were removed.
    if (this.#covered === 0 && !entry.kind.startsWith('log.')) {
      throw new Error(`${this.#path} holds calls, but its signed checkpoint is gone. The log is not opened. ${ADVICE}`)
    }
    return true
  }
}
