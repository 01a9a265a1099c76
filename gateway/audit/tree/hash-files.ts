/**
 * Writes the hashes beside the log: `leaves`, and for every eighth level above them the roots of full subtrees. They are written
 * without waiting for the disk; what a power cut may have taken is the last `UNSYNCED` leaves, which a start makes again.
 */
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import { HASH_BYTES, levelFile, openHashes, TILE_LEVELS, TILE_WIDTH } from './proofs.ts'

/** Leaves after which the files are made durable. */
export const UNSYNCED = 4096

/** Hashes that are not in their files yet, by level. */
export type Nodes = readonly Buffer[][]

export function noNodes(): Nodes {
  return Array.from({ length: TILE_LEVELS + 1 }, () => [])
}

export class HashFiles {
  readonly #dir: string
  readonly #files: (FileHandle | undefined)[]
  #unsynced = 0

  private constructor(dir: string, leaves: FileHandle) {
    this.#dir = dir
    this.#files = [leaves]
  }

  static async open(dir: string): Promise<HashFiles> {
    return new HashFiles(dir, await openForUpdate(join(dir, levelFile(0))))
  }

  /** Put the last hashes of the tree of `size` leaves in their places. */
  async write(nodes: Nodes, size: number): Promise<void> {
    for (const [level, hashes] of nodes.entries()) {
      if (hashes.length > 0)
        await writeAt(await this.#file(level), Buffer.concat(hashes), held(size, level) - hashes.length)
    }
    this.#unsynced += nodes[0]?.length ?? 0
    if (this.#unsynced >= UNSYNCED) await this.sync()
  }

  async sync(): Promise<void> {
    if (this.#unsynced === 0) return
    for (const file of this.#files) await file?.datasync()
    this.#unsynced = 0
  }

  /** Make what is lost above the first `size` leaves again. */
  async complete(size: number): Promise<void> {
    for (let level = 1; held(size, level) > 0; level++) {
      const file = await this.#file(level)
      const have = Math.floor((await file.stat()).size / HASH_BYTES)
      if (have >= held(size, level)) continue
      const stored = await openHashes(this.#dir)
      try {
        for (let n = Math.floor(have / TILE_WIDTH); n * TILE_WIDTH < held(size, level); n++) {
          const width = Math.min(TILE_WIDTH, held(size, level) - n * TILE_WIDTH)
          await writeAt(file, await stored.tile(level, n, width), n * TILE_WIDTH)
        }
      } finally {
        await stored.close()
      }
    }
  }

  /** Cut off what is not of the first `size` leaves. */
  async cut(size: number): Promise<void> {
    for (let level = 0; level <= TILE_LEVELS; level++) {
      if (level > 0 && held(size, level) === 0 && this.#files[level] === undefined) continue
      const file = await this.#file(level)
      if ((await file.stat()).size > held(size, level) * HASH_BYTES) await file.truncate(held(size, level) * HASH_BYTES)
    }
  }

  async close(): Promise<void> {
    for (const file of this.#files) await file?.close()
  }

  async #file(level: number): Promise<FileHandle> {
    this.#files[level] ??= await openForUpdate(join(this.#dir, levelFile(level)))
    return this.#files[level]
  }
}

/** Full subtrees of 256^level leaves among the first `size`. */
function held(size: number, level: number): number {
  return Math.floor(size / TILE_WIDTH ** level)
}

/** For writing anywhere in it, and made if absent: Node's letters have no mode for both. */
function openForUpdate(path: string): Promise<FileHandle> {
  return open(path, constants.O_RDWR | constants.O_CREAT, 0o600)
}

async function writeAt(file: FileHandle, bytes: Buffer, index: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += (await file.write(bytes, done, bytes.length - done, index * HASH_BYTES + done)).bytesWritten
  }
}
