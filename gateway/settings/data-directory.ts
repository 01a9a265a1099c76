/** Where the gateway keeps its state on disk, and the names inside. Light on purpose: `keyless run` starts by reading it. */
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

/** Key and memory of a witness under a data directory. */
export function witnessDirOf(dataDir: string): string {
  return join(dataDir, 'witness')
}

/** Keys of humans, below those of the gateway. Not there where nothing was ever sealed. */
export function personalDirIn(keysDir: string): string {
  return join(keysDir, 'personal')
}
