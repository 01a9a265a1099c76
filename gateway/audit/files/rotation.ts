/**
 * Closes the file that is being written when it is full, and begins the next one, between two batches. The old file gets its
 * second name before it loses the first: whenever a crash comes, every entry is in a file that is found.
 */
import type { FileHandle } from 'node:fs/promises'
import { readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../../protocol/clock.ts'
import { files } from '../lines.ts'
import type { Disk } from './disk.ts'
import { closedName } from './segments.ts'

export interface RotationOptions {
  readonly dir: string
  readonly disk: Disk
  readonly clock: Clock
  readonly durability: 'fsync' | 'relaxed'
  /** Bytes after which a file is closed. */
  readonly segmentBytes: number
  /** Also closed at this age, if given. */
  readonly segmentMs: number | undefined
}

/** A file that could not be closed grows by this before it is tried again. */
const RETRY_BYTES = 4 * 1024 * 1024
/** What the next file is called until it takes the place of the old one. */
const FRESH = `${files.entries}.new`

export class Rotation {
  readonly #o: RotationOptions
  #file: FileHandle
  /** First entry of the file. */
  #first: number
  #beganMs: number
  #retryAt = 0
  /** Closed, and perhaps still being synced by the publisher. */
  #retired: FileHandle[] = []

  constructor(o: RotationOptions, at: { file: FileHandle; first: number; beganMs: number }) {
    this.#o = o
    this.#file = at.file
    this.#first = at.first
    this.#beganMs = at.beganMs
  }

  get fd(): number {
    return this.#file.fd
  }

  /** Whether the file, which ends at `offset`, is to be closed before the next batch. */
  isFull(offset: number): boolean {
    if (offset === 0 || offset < this.#retryAt) return false
    const { segmentBytes, segmentMs, clock } = this.#o
    return offset >= segmentBytes || (segmentMs !== undefined && clock.nowMs() - this.#beganMs >= segmentMs)
  }

  /**
   * Begin the file of entry `next` on. False when that failed: then nothing has changed, and it is tried again later. A disk that is
   * really broken fails the next batch.
   */
  async rotate(next: number, offset: number): Promise<boolean> {
    const { dir, disk, durability, clock } = this.#o
    try {
      if (durability === 'relaxed') await disk.sync(this.#file.fd)
      const active = join(dir, files.entries)
      const fresh = await disk.rotate(
        { active, fresh: join(dir, FRESH), closed: join(dir, closedName(this.#first)) },
        durability,
      )
      this.#retired.push(this.#file)
      this.#file = fresh
      this.#first = next
      this.#beganMs = clock.nowMs()
      this.#retryAt = 0
      return true
    } catch {
      this.#retryAt = offset + RETRY_BYTES
      return false
    }
  }

  /** Close the files that were closed before now. Only between two publications: one may be syncing its file. */
  async release(): Promise<void> {
    for (const file of this.#retired.splice(0)) await file.close()
  }

  async close(): Promise<void> {
    await this.release()
    await this.#file.close()
  }
}

/** Undo the half of a rotation that a crash left. Only for the one who holds the log's lock. */
export async function undoHalfRotation(dir: string): Promise<void> {
  await rm(join(dir, FRESH), { force: true })
  const active = await stat(join(dir, files.entries)).catch(() => undefined)
  if (!active || active.nlink < 2) return
  for (const name of await readdir(dir)) {
    const isOther = name.startsWith('entries-') && (await stat(join(dir, name))).ino === active.ino
    if (isOther) await rm(join(dir, name))
  }
}
