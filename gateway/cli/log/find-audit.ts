/** Where the log of a gateway on this machine is. Reads only the one setting that says so: the log must be readable without the gateway. */
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { defaultDataDir } from '../../settings/data-directory.ts'

export interface WhichLog {
  /** The log's own directory, as `--audit-dir` names it. */
  readonly auditDir?: string | undefined
  /** Data directory, as `--data` names it. */
  readonly data?: string | undefined
  /** Settings file, as `--config` names it. */
  readonly config?: string | undefined
}

/** In this order: the directory if named; the data directory; the settings file; `./keyless.yaml`; `$KEYLESS_HOME` or `~/.keyless`. */
export async function findAuditDir({ auditDir, data, config }: WhichLog): Promise<string> {
  if (auditDir !== undefined) return resolve(auditDir)
  if (data !== undefined) return join(resolve(data), 'audit')
  const file = config ?? (existsSync('keyless.yaml') ? 'keyless.yaml' : undefined)
  return join((file && (await pathIn(file, 'data_dir'))) ?? defaultDataDir(), 'audit')
}

/** Where the keys of that gateway are, by which sealed names are read: `keys_dir` of the settings, else `keys` beside the log. */
export async function findKeysDir(which: WhichLog): Promise<string> {
  const { auditDir, data, config } = which
  const file = config ?? (existsSync('keyless.yaml') ? 'keyless.yaml' : undefined)
  const isNamed = auditDir !== undefined || data !== undefined
  const written = isNamed && config === undefined ? undefined : file && (await pathIn(file, 'keys_dir'))
  return written ?? join(dirname(await findAuditDir(which)), 'keys')
}

async function pathIn(file: string, name: string): Promise<string | undefined> {
  const { parse } = await import('yaml')
  const text = await readFile(file, 'utf8').catch((cause: Error) => {
    throw new Error(`the settings ${file} cannot be read: ${cause.message}. Check the path that --config names.`, {
      cause,
    })
  })
  const written: unknown = parse(text)
  const path = typeof written === 'object' && written !== null ? (written as Record<string, unknown>)[name] : undefined
  if (typeof path !== 'string') return undefined
  return resolve(dirname(file), path.startsWith('~/') ? join(homedir(), path.slice(2)) : path)
}
