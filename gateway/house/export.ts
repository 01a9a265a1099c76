/** The part of the composition root that sends the log on: gives every export its secrets and its way out, and opens their thread. */

import { join } from 'node:path'
import type { Audit } from '../audit/audit.ts'
import type { Clock } from '../protocol/clock.ts'
import { createReceiver, readDatabaseUrl } from '../provider/receiver.ts'
import type { ReadSecret } from '../provider/reference.ts'
import { type ExportJob, type Exports, openExports } from '../records/export/exports.ts'
import type { Send } from '../records/export/sink-http.ts'
import type { Keys } from '../settings/keys.ts'
import type { Settings } from '../settings.ts'
import type { Upstream } from '../upstream/forward.ts'
import { type LetterParts, type Mailing, openMailings } from './letters.ts'

interface ExportParts {
  readonly keys: Keys
  readonly upstream: Pick<Upstream, 'fetchFor'>
  readonly clock: Clock
  readonly readSecret: ReadSecret
  readonly audit: Pick<Audit, 'record'>
  /** Webhooks and streams, whose thread is the same. */
  readonly mailings: readonly Mailing[]
}

/** Exports of the log, and with them what tells others of it. */
export async function openTelling(settings: Settings, { opening, keys, ...parts }: TellingParts) {
  const mailings = await openMailings(settings, parts)
  const exports = opening.adopt(await openHouseExports(settings, { ...parts, keys, mailings }), (room) => room.close())
  return { ...parts, mailings, exports }
}

interface TellingParts extends LetterParts {
  /** Closes what is opened. */
  readonly opening: AsyncDisposableStack
  readonly keys: Keys
  readonly audit: Pick<Audit, 'administer' | 'record'>
}

/** Without exports in the settings nothing runs. @throws {Error} naming the export whose secret cannot be read. */
async function openHouseExports(settings: Settings, parts: ExportParts): Promise<Exports> {
  const { exports, origin } = settings.audit
  const prepared: Prepared[] = await Promise.all(
    Object.entries(exports).map(([name, one]) =>
      prepare(parts, { name, ...one }).catch((cause: Error) => {
        throw new Error(`audit.export.${name}: ${cause.message}`, { cause })
      }),
    ),
  )
  prepared.push(...parts.mailings)
  if (prepared.length === 0) return NONE
  return openExports({
    log: origin,
    dir: join(settings.dataDir, 'audit'),
    stateDir: join(settings.dataDir, 'export'),
    maskKey: parts.keys.masks.export(),
    jobs: prepared.map(({ job }) => job),
    senders: new Map(prepared.flatMap(({ job, send }) => (send ? [[job.name, send]] : []))),
    nowMs: () => parts.clock.nowMs(),
    warn,
    undelivered(to, { id, kind: about, seq: entry, attempts, reason }) {
      // News of it is a message too: where that is given up as well, another entry would be told of in turn, and so on for ever.
      if (about === 'signal.undelivered') return
      const facts = { to, id, about, entry, attempts, reason }
      parts.audit.record('signal.undelivered', settings.tenant, facts).catch((cause: Error) => {
        warn(`export ${to}: message ${id} was given up, which cannot be recorded (${cause.message})`)
      })
    },
  })
}

const NONE: Exports = { lag: () => ({}), letters: () => ({}), wake: () => undefined, close: async () => {} }

type Prepared = { readonly job: ExportJob; readonly send?: Send | undefined }

type Written = Settings['audit']['exports'][string] & { readonly name: string }

async function prepare(
  { upstream, readSecret }: Pick<ExportParts, 'upstream' | 'readSecret'>,
  { name, format, to, mask, kinds }: Written,
): Promise<Prepared> {
  const job = { name, format, mask: mask ?? [], kinds }
  if ('file' in to) return { job: { ...job, to } }
  if ('postgres' in to) {
    const url = await readDatabaseUrl(to.postgres, readSecret)
    return { job: { ...job, to: { postgres: url, table: to.table ?? DEFAULT_TABLE } } }
  }
  const { url, headers = {}, addresses = [] } = to
  if (url.startsWith('http:') && Object.keys(headers).length > 0)
    warn(`export ${name}: its headers go to ${url} in the clear`)
  return {
    job: { ...job, to: { url } },
    send: await createReceiver({ fetch: upstream.fetchFor(addresses), headers, readSecret }),
  }
}

function warn(text: string): void {
  process.stderr.write(`keyless: warning: ${text}\n`)
}

const DEFAULT_TABLE = 'keyless_log'
