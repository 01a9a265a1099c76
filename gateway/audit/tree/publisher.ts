/** Signs and publishes the head of the log while it grows: at most every 200 ms, one at a time, and once more at the end. */
import type { Clock } from '../../protocol/clock.ts'
import type { Anchor } from '../anchor.ts'
import { type HashFiles, noNodes } from './hash-files.ts'

export interface PublisherParts {
  readonly clock: Clock
  readonly hashes: HashFiles
  /** What is stored now. */
  anchor(): Anchor
  /** Makes what is stored durable, signs it, and puts the checkpoint in place. */
  publish(anchor: Anchor): Promise<void>
}

const EVERY_MS = 200

export class Publisher {
  readonly #parts: PublisherParts
  /** Hashes that are not in their files yet, by level. */
  #nodes = noNodes()
  #failure: Error | undefined
  #isDirty = false
  #isStopped = false
  #running: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined
  #lastAt = Number.NEGATIVE_INFINITY

  constructor(parts: PublisherParts) {
    this.#parts = parts
  }

  /** Why the last try failed. Entries are safe meanwhile, but not yet covered by a signature. */
  get failure(): Error | undefined {
    return this.#failure
  }

  /** The root of a full subtree, before the leaf that completed it. */
  addTile(level: number, root: Buffer): void {
    this.#nodes[level]?.push(root)
  }

  add(leaves: readonly Buffer[]): void {
    for (const leaf of leaves) this.#nodes[0]?.push(leaf)
    this.#isDirty = true
    this.#schedule()
  }

  /** Publish what is stored now. @throws what went wrong. */
  async flush(): Promise<void> {
    await this.#running
    if (this.#isDirty) await this.#run()
    if (this.#failure) throw this.#failure
  }

  /** Nothing is published from now on: the files are about to be closed. */
  stop(): void {
    this.#isStopped = true
    clearTimeout(this.#timer)
  }

  #schedule(): void {
    if (this.#timer || this.#running || this.#isStopped) return
    const waitMs = Math.max(0, this.#lastAt + EVERY_MS - this.#parts.clock.elapsedMs())
    this.#timer = setTimeout(() => this.#run(), waitMs).unref()
  }

  #run(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#running ??= this.#publish().finally(() => {
      this.#running = undefined
      this.#lastAt = this.#parts.clock.elapsedMs()
      if (this.#isDirty) this.#schedule()
    })
    return this.#running
  }

  async #publish(): Promise<void> {
    const anchor = this.#parts.anchor()
    const nodes = this.#nodes
    this.#nodes = noNodes()
    this.#isDirty = false
    try {
      await this.#parts.hashes.write(nodes, anchor.frontier.size)
      await this.#parts.publish(anchor)
      this.#failure = undefined
    } catch (cause) {
      this.#failure = cause as Error
      this.#nodes = nodes.map((hashes, level) => [...hashes, ...(this.#nodes[level] ?? [])])
      this.#isDirty = true
    }
  }
}
