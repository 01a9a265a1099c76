/** Where the gateway keeps its state on disk, and the names inside. Light on purpose: `keyless run` starts by reading it. */
import { chmod, mkdir, stat } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'

/** `$KEYLESS_HOME` if set and not empty, else `~/.keyless`; absolute. */
export function defaultDataDir(): string {
  const chosen = process.env.KEYLESS_HOME
  return chosen ? resolve(chosen) : join(homedir(), '.keyless')
}

/** Unix socket of the control door under a data directory, unless `listen.control_socket` says otherwise. */
export function controlSocketOf(dataDir: string): string {
  return join(dataDir, 'control.sock')
}

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
