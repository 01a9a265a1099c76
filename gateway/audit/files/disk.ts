/**
 * The durable steps of the log, few enough to be failed one by one in tests: store a batch, cut back, replace a small file,
 * begin the next file of entries. No step is retried here: what a failed write left behind is for the log to undo.
 */
import { constants, fdatasync, ftruncate, type WriteFileOptions, write } from 'node:fs'
import { type FileHandle, link, open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { syncDirectory } from '../../private-file.ts'

export interface Disk {
  /** Write `bytes` at `position`; with `isDurable`, call back only when they would survive a power cut. */
  store(
    batch: { fd: number; bytes: Uint8Array; position: number; isDurable: boolean },
    done: (error: Error | null) => void,
  ): void
  /** Cut the file back to `length` bytes. */
  cutBack(fd: number, length: number, done: (error: Error | null) => void): void
  sync(fd: number): Promise<void>
  /** Put a small file in place of another: readers see the old or the new one, whole. */
  replace(path: string, text: string): Promise<void>
  /** Name the file `active` `closed`, and put an empty one in its place, durably. When it fails, nothing has changed. */
  rotate(paths: { active: string; fresh: string; closed: string }, durability: 'fsync' | 'relaxed'): Promise<FileHandle>
}

/** Linux makes a write durable in the same system call, which saves a trip through the thread pool for every batch. */
const WRITES_SYNC = process.platform === 'linux'

export function openForAppending(path: string, durability: 'fsync' | 'relaxed'): Promise<FileHandle> {
  const sync = WRITES_SYNC && durability === 'fsync' ? constants.O_DSYNC : 0
  return open(path, constants.O_RDWR | constants.O_CREAT | sync, 0o600)
}

export const realDisk: Disk = {
  store: ({ fd, bytes, position, isDurable }, done) => {
    const finish = isDurable && !WRITES_SYNC ? () => fdatasync(fd, done) : () => done(null)
    const next = (from: number): void =>
      write(fd, bytes, from, bytes.length - from, position + from, (error, written) => {
        if (error) return done(error)
        // A short write is legal; the rest then meets the real error, such as a full disk.
        return from + written < bytes.length ? next(from + written) : finish()
      })
    next(0)
  },
  cutBack: (fd, length, done) => ftruncate(fd, length, done),
  sync: (fd) => new Promise((resolve, reject) => fdatasync(fd, (error) => (error ? reject(error) : resolve()))),
  replace: async (path, text) => {
    const temporary = `${path}.new`
    const file = await open(temporary, 'w', 0o600)
    try {
      await file.writeFile(text, { encoding: 'utf8' } satisfies WriteFileOptions)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
  },
  rotate: async ({ active, fresh, closed }, durability) => {
    await rm(fresh, { force: true })
    const file = await openForAppending(fresh, durability)
    try {
      await link(active, closed)
      // A crash from here on leaves two names of the old file: the second one is taken away at the next start.
      await rename(fresh, active)
      await syncDirectory(dirname(active))
      return file
    } catch (cause) {
      await file.close()
      // Puts the old file back in its place, or takes away its second name when it never left.
      await rename(closed, active).catch(() => undefined)
      await rm(closed, { force: true })
      throw cause
    }
  },
}
