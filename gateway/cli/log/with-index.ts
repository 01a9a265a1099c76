/** The index of the log for a command that reads it: opened, caught up with the log if there is one here, and closed again. */
import { once } from 'node:events'
import type { Command } from 'commander'
import type { Unsealing } from '../../audit/personal/personal.ts'
import type { Database } from '../../records/database.ts'
import type { Span } from '../../records/inquiry.ts'
import type { Index } from '../../records/opening.ts'
import type { Vocabulary } from '../../records/reach.ts'
import type { Settings } from '../../settings.ts'
import type { WhichIndex } from './find-index.ts'

export interface OpenIndex {
  readonly database: Database
  /** Directory of the log, whether or not there is one. */
  readonly dir: string
  /** Name of the log in it; undefined when there is none and the index is that of others. */
  readonly origin: string | undefined
  readonly names: Unsealing
  readonly nowMs: number
}

/** Entries from which on it is said that reading them takes a moment. */
const LONG = 50_000

export async function withIndex(which: WhichIndex, work: (open: OpenIndex) => Promise<void>): Promise<void> {
  const [{ findAuditDir }, { findIndex }, { openIndex, originOf }, { openUnsealing }, { systemClock }] =
    await Promise.all([
      import('./find-audit.ts'),
      import('./find-index.ts'),
      import('../../records/opening.ts'),
      import('../unseal.ts'),
      import('../../protocol/clock.ts'),
    ])
  const dir = await findAuditDir(which)
  const [origin, at, names] = await Promise.all([originOf(dir), findIndex(which, dir), openUnsealing(which)])
  // Whoever reads our output has seen enough: `| head`.
  process.stdout.on('error', (cause: NodeJS.ErrnoException) => process.exit(cause.code === 'EPIPE' ? 0 : 1))
  const nowMs = systemClock.nowMs()
  if (origin === undefined) {
    if (!('url' in at))
      throw new Error(
        `there is no log in ${dir}. Name its directory with --audit-dir, or the data directory with --data.`,
      )
    const { openPostgres } = await import('../../records/database-postgres.ts')
    return closing(await openPostgres(at.url), (database) => work({ database, dir, origin, names, nowMs }))
  }
  const index = await openIndex({ dir, origin, at, clock: systemClock }).catch((cause: Error) => {
    const where = 'path' in at ? `the index ${at.path}` : 'the index in Postgres'
    throw new Error(`${where} cannot be opened: ${cause.message}. Name a file for another one with --index.`, { cause })
  })
  await closing(index.database, async (database) => {
    await fill(index)
    await names.refresh()
    await work({ database, dir, origin, names, nowMs })
  })
}

async function closing(database: Database, work: (database: Database) => Promise<void>): Promise<void> {
  try {
    await work(database)
  } finally {
    await database.close()
  }
}

async function fill({ indexer, rebuilt }: Index): Promise<void> {
  if (rebuilt !== undefined) say(`${rebuilt}; it is made again from the log`)
  const { entries } = await indexer.lag()
  if (entries > LONG) say(`reading ${entries} entries into the index…`)
  await indexer.catchUp()
}

/** The settings that are named or stand here, if there are any that can be read. */
export async function settingsHere({ config, data, auditDir }: WhichIndex): Promise<Settings | undefined> {
  const { existsSync } = await import('node:fs')
  const isElsewhere = config === undefined && (data !== undefined || auditDir !== undefined)
  if (isElsewhere || (config === undefined && !existsSync('keyless.yaml'))) return undefined
  const { loadSettings } = await import('../../settings.ts')
  try {
    return await loadSettings(config)
  } catch (cause) {
    say(`goes on without the settings, which cannot be read: ${(cause as Error).message}`)
    return undefined
  }
}

/** Operations of the services that the settings select; undefined without settings. */
export async function vocabularyHere(which: WhichIndex): Promise<Vocabulary | undefined> {
  const settings = await settingsHere(which)
  if (settings === undefined) return undefined
  const [{ loadCatalogue }, { vocabularyOf }] = await Promise.all([
    import('../../policy/catalogue/catalogue.ts'),
    import('../../records/reach.ts'),
  ])
  const { services, shippedServicesDir: shippedDir, baseDir } = settings
  return vocabularyOf((await loadCatalogue({ services, shippedDir, baseDir })).services)
}

export interface SpanOptions {
  readonly since?: string
  readonly until?: string
}

/** `--since 2h --until 2026-11-22T10:00Z` as milliseconds. @throws {GatewayError} `instruction_invalid` */
export async function spanOf({ since, until }: SpanOptions, nowMs: number): Promise<Span> {
  const { readTime } = await import('../../records/asking.ts')
  return {
    ...(since !== undefined && { since: readTime('since', since, nowMs) }),
    ...(until !== undefined && { until: readTime('until', until, nowMs) }),
  }
}

/** Which log, and which index of it. */
export function onIndex(command: Command): Command {
  return command.option('--index <file|url>', 'the index (default: that of the gateway, made from the log if absent)')
}

/** Options of every command that can be asked about a stretch of time. */
export function overTime(command: Command): Command {
  return command
    .option('--since <time>', 'not before: 2026-11-22T10:00Z, or how long ago: 30m, 2h, 7d')
    .option('--until <time>', 'before that time')
}

export async function print(text: string): Promise<void> {
  if (!process.stdout.write(`${text}\n`)) await once(process.stdout, 'drain')
}

export function say(text: string): void {
  process.stderr.write(`keyless: ${text}\n`)
}
