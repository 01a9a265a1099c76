/** The part of the composition root that sends the log on: gives every export its secrets and its way out, and opens their thread. */

import { join } from 'node:path'
import type { Keys } from './keys.ts'
import type { Clock } from './protocol/clock.ts'
import { createReceiver, readDatabaseUrl } from './provider/receiver.ts'
import type { ReadSecret } from './provider/reference.ts'
import { type ExportJob, type Exports, openExports } from './records/export/exports.ts'
import type { Send } from './records/export/sink-http.ts'
import type { Settings } from './settings.ts'
import type { Upstream } from './upstream/forward.ts'

interface ExportParts {
  readonly keys: Keys
  readonly upstream: Pick<Upstream, 'fetchFor'>
  readonly clock: Clock
  readonly readSecret: ReadSecret
}

/** Without exports in the settings nothing runs. @throws {Error} naming the export whose secret cannot be read. */
export async function openHouseExports(settings: Settings, parts: ExportParts): Promise<Exports> {
  const { exports, origin } = settings.audit
  const prepared = await Promise.all(
    Object.entries(exports).map(([name, one]) =>
      prepare(parts, { name, ...one }).catch((cause: Error) => {
        throw new Error(`audit.export.${name}: ${cause.message}`, { cause })
      }),
    ),
  )
  if (prepared.length === 0) return { lag: () => ({}), close: async () => {} }
  return openExports({
    log: origin,
    dir: join(settings.dataDir, 'audit'),
    stateDir: join(settings.dataDir, 'export'),
    maskKey: parts.keys.masks.export(),
    jobs: prepared.map(({ job }) => job),
    senders: new Map(prepared.flatMap(({ job, send }) => (send ? [[job.name, send]] : []))),
    nowMs: () => parts.clock.nowMs(),
    warn,
  })
}

type Written = Settings['audit']['exports'][string] & { readonly name: string }

async function prepare(
  { upstream, readSecret }: Pick<ExportParts, 'upstream' | 'readSecret'>,
  { name, format, to, mask, kinds }: Written,
): Promise<{ readonly job: ExportJob; readonly send?: Send }> {
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
