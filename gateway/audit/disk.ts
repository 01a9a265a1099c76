/**
 * The durable steps of the log, few enough to be failed one by one in tests: store a batch, cut back, replace a small file.
 * No step is retried here: what a failed write left behind is for the log to undo.
 */
import { constants, fdatasync, ftruncate, type WriteFileOptions, write } from 'node:fs'
import { type FileHandle, open, rename } from 'node:fs/promises'

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
  replace(path: string, text: string, options: { isDurable: boolean }): Promise<void>
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
  replace: async (path, text, { isDurable }) => {
    const temporary = `${path}.new`
    const file = await open(temporary, 'w', 0o600)
    try {
      await file.writeFile(text, { encoding: 'utf8' } satisfies WriteFileOptions)
      if (isDurable) await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
  },
}
