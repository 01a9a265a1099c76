/**
 * Where a gateway on this machine listens for instructions. Reads only the two settings that say so, unchecked: a client must
 * find its gateway even where the secrets that the settings refer to are out of reach.
 */
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { controlSocketOf, defaultDataDir } from '../../settings/data-directory.ts'

export interface WhichGateway {
  /** Data directory, as `--data` names it. */
  readonly data?: string | undefined
  /** Settings file, as `--config` names it. */
  readonly config?: string | undefined
}

/**
 * In this order: the data directory if named; the settings file if named; `./keyless.yaml` if there is one; the default data
 * directory (`$KEYLESS_HOME` or `~/.keyless`).
 */
export async function findSocket({ data, config }: WhichGateway): Promise<string> {
  if (data !== undefined) return controlSocketOf(resolve(data))
  const file = config ?? (existsSync('keyless.yaml') ? 'keyless.yaml' : undefined)
  if (file === undefined) return controlSocketOf(defaultDataDir())
  const { parse } = await import('yaml')
  const written: unknown = parse(await readFile(file, 'utf8'))
  const absolute = (path: string) =>
    resolve(dirname(file), path.startsWith('~/') ? join(homedir(), path.slice(2)) : path)
  const socket = text(written, 'listen', 'control_socket')
  if (socket !== undefined) return absolute(socket)
  const dataDir = text(written, 'data_dir')
  return controlSocketOf(dataDir === undefined ? defaultDataDir() : absolute(dataDir))
}

function text(value: unknown, ...path: string[]): string | undefined {
  const found = path.reduce<unknown>(
    (inner, key) => (typeof inner === 'object' && inner !== null ? (inner as Record<string, unknown>)[key] : undefined),
    value,
  )
  return typeof found === 'string' ? found : undefined
}
