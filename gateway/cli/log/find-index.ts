/** Where the index of a log is: in the settings' Postgres if they name one, else in a file beside the log. */
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import type { WhichLog } from './find-audit.ts'

export interface WhichIndex extends WhichLog {
  /** File or Postgres URL, as `--index` names it. */
  readonly index?: string | undefined
}

export type IndexPlace = { readonly path: string } | { readonly url: string }

/** @param dir the log's own directory. @throws {Error} when the settings' reference to the URL leads nowhere. */
export async function findIndex({ index, auditDir, data, config }: WhichIndex, dir: string): Promise<IndexPlace> {
  if (index !== undefined) return isUrl(index) ? { url: index } : { path: resolve(index) }
  const file = config ?? (existsSync('keyless.yaml') ? 'keyless.yaml' : undefined)
  const isMeant = auditDir === undefined && data === undefined
  const url = isMeant && file !== undefined ? await postgresIn(file) : undefined
  return url === undefined ? { path: indexFileOf(dir) } : { url }
}

/** `index.sqlite` in the data directory; beside a log that stands elsewhere, under its name. */
function indexFileOf(dir: string): string {
  const name = basename(dir)
  return join(dirname(dir), name === 'audit' ? 'index.sqlite' : `${name}.index.sqlite`)
}

async function postgresIn(file: string): Promise<string | undefined> {
  const { parse } = await import('yaml')
  const written: unknown = parse(await readFile(file, 'utf8'))
  const place = member(member(written, 'postgres'), 'url')
  if (place === undefined || typeof place === 'string') return place
  const [env, path] = [member(place, 'env'), member(place, 'file')]
  const text =
    typeof env === 'string'
      ? process.env[env]
      : typeof path === 'string'
        ? (await readFile(resolve(dirname(file), path), 'utf8')).trim()
        : undefined
  if (text !== undefined && isUrl(text)) return text
  throw new Error(
    `postgres.url in ${file} refers to a place that holds no Postgres URL here. Provide it, or name an index with --index, which is made from the log on this machine.`,
  )
}

function member(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined
}

function isUrl(text: string): boolean {
  return /^postgres(?:ql)?:\/\//.test(text)
}
