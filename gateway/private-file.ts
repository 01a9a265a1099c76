/**
 * Files and directories of which the gateway's user alone is master. A file is made whole or not at all, and once: of two
 * processes that start together the first wins, and both go on with what it wrote.
 */
import { randomUUID } from 'node:crypto'
import { constants } from 'node:fs'
import { access, chmod, link, mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises'
import { dirname } from 'node:path'

/**
 * Make a directory that only its owner can enter, or close one that others can. On a read-only or foreign mount the mode stays
 * as whoever mounted it chose; the files inside have modes of their own, and `keyless doctor` names what is open.
 */
export async function makePrivate(dir: string): Promise<void> {
  await mkdir(dir, { recursive: true, mode: 0o700 })
  if (((await stat(dir)).mode & 0o077) === 0) return
  await chmod(dir, 0o700).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== 'EROFS' && cause.code !== 'EPERM') throw cause
  })
}

/** @throws {Error} when nothing can be written in `dir`: later steps would say so in words that do not help. */
export async function requireWritable(dir: string): Promise<void> {
  try {
    await access(dir, constants.W_OK | constants.X_OK)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    const why = code === 'EROFS' ? 'it is on a read-only file system' : `${code}`
    throw new Error(
      `${dir} cannot be written (${why}). Mount it writable for this user, or name another directory with data_dir.`,
      { cause },
    )
  }
}

/** The file, or undefined if there is none. */
export async function readIfThere(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw cause
  }
}

type Content = string | Buffer

/** What the file holds; if there is none it is made first, 0600. */
export async function readOrCreate(path: string, create: () => Content | Promise<Content>): Promise<Buffer> {
  const present = await readIfThere(path)
  if (present !== undefined) return present
  await createOnce(path, await create())
  return readFile(path)
}

/** Make a file unless it is there. Durable when this resolves, except for the directory's own entry. */
export async function createOnce(path: string, content: Content, mode = 0o600): Promise<void> {
  // Not by process id: replicas in containers often have the same one, and may share the directory.
  const temporary = `${path}.${randomUUID()}`
  const file = await open(temporary, 'wx', mode)
  try {
    await file.writeFile(content)
    await file.sync()
  } finally {
    await file.close()
  }
  try {
    await link(temporary, path)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') throw cause
  } finally {
    await rm(temporary, { force: true })
  }
}

/** Put a file in place of another: readers see the old or the new one, whole. Durable when this resolves. */
export async function replace(path: string, content: Content, mode = 0o600): Promise<void> {
  const temporary = `${path}.${randomUUID()}`
  try {
    await createOnce(temporary, content, mode)
    await rename(temporary, path)
  } finally {
    await rm(temporary, { force: true })
  }
  await syncDirectory(dirname(path))
}

/** Make the entries of a directory durable: which files it has, under which names. */
export async function syncDirectory(dir: string): Promise<void> {
  const directory = await open(dir, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}
