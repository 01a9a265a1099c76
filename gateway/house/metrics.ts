/** The part of the composition root that says how the log and the process are doing, to whoever scrapes: asked then, and only then. */
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Audit } from '../audit/audit.ts'
import { files } from '../audit/lines.ts'
import type { Leases } from '../lease/leases.ts'
import type { WitnessView } from '../protocol/control-status.ts'
import type { Exports } from '../records/export/exports.ts'
import { VERSION } from '../version.ts'

interface Watched {
  /** Directory of the log. */
  readonly dir: string
  readonly audit: Pick<Audit, 'size' | 'kept' | 'failure' | 'open'>
  readonly witnesses: { readonly views: readonly WitnessView[] }
  readonly exports: Pick<Exports, 'lag' | 'letters'>
  readonly leases: Pick<Leases, 'state'>
  /** Undefined: there is no index, or it has said nothing yet. */
  index(): { readonly entries: number; readonly seconds: number } | undefined
}

interface Sample {
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

type Read = number | undefined | readonly Sample[]

interface Gauge {
  readonly name: string
  readonly help: string
  readonly isCounter?: boolean
  read(): Read | Promise<Read>
}

/** As `metrics.add` takes them. */
export function gaugesOf(watched: Watched): Gauge[] {
  return [...ofLog(watched), ...ofLeases(watched), ...ofReaders(watched), ...ofProcess()]
}

/** @param room of the approvals. */
export function gaugesOfHeld(room: { readonly held: { readonly calls: number; readonly bytes: number } }): Gauge[] {
  return [
    gauge('keyless_held_calls', 'Calls that wait for a human.', () => room.held.calls),
    gauge('keyless_held_bytes', 'Bytes of their bodies.', () => room.held.bytes),
  ]
}

export function gaugesOfEnds(grants: { unstored(): number }): Gauge[] {
  return [
    gauge(
      'keyless_unstored_revocations',
      'Orders and ends that are in force here, and that other replicas cannot be told of yet.',
      () => grants.unstored(),
    ),
  ]
}

function ofLog({ audit, dir }: Watched): Gauge[] {
  return [
    gauge('keyless_open_calls', 'Allowed calls that have not ended.', () => audit.open),
    gauge('keyless_log_entries', 'Entries in the log.', () => audit.size),
    gauge('keyless_log_kept_entries', 'Entries that wait for a disk that failed.', () => audit.kept),
    gauge('keyless_log_failing', '1 while the log cannot be written or signed: calls are refused.', () =>
      audit.failure === undefined ? 0 : 1,
    ),
    gauge('keyless_checkpoint_timestamp_seconds', 'When the head of the log was last signed.', async () => {
      const { mtimeMs } = await stat(join(dir, files.checkpoint))
      return mtimeMs / 1000
    }),
  ]
}

const CIRCUITS = { closed: 0, half_open: 1, open: 2 } as const

function ofLeases({ leases }: Watched): Gauge[] {
  const each = (read: (issuer: Leases['state']['issuers'][number]) => number) => () =>
    leases.state.issuers.map((issuer) => ({ labels: { credential: issuer.credential }, value: read(issuer) }))
  return [
    {
      ...gauge('keyless_lease_shared_hits_total', 'Credentials found in the shared cache.', () => leases.state.found),
      isCounter: true,
    },
    gauge(
      'keyless_issuer_circuit',
      '0: its issuer is asked; 1: one request tries whether it is back; 2: it failed, and nobody asks.',
      each(({ circuit }) => CIRCUITS[circuit]),
    ),
    gauge(
      'keyless_issuer_requests',
      'Requests to the issuer under way.',
      each(({ underway }) => underway),
    ),
    gauge(
      'keyless_issuer_waiting_requests',
      'Requests that wait for their turn at the issuer.',
      each(({ waiting }) => waiting),
    ),
    gauge(
      'keyless_pending_revocations',
      'Credentials that were to be revoked, and whose issuer has not confirmed it: used no more.',
      () => leases.state.pendingRevocations,
    ),
  ]
}

function ofReaders({ witnesses, exports, index, audit }: Watched): Gauge[] {
  const each = (read: (view: WitnessView) => number) => () =>
    witnesses.views.map((view) => ({ labels: { witness: view.name }, value: read(view) }))
  const lags = (read: (lag: { entries: number; seconds: number }) => number) => () =>
    Object.entries(exports.lag()).map(([name, lag]) => ({ labels: { export: name }, value: read(lag) }))
  return [
    gauge(
      'keyless_witness_lag_entries',
      'Entries that the witness has not cosigned.',
      each(({ size }) => Math.max(0, audit.size - size)),
    ),
    gauge(
      'keyless_witness_ok',
      '0 while the witness cannot be used, or knows another history.',
      each(({ state }) => (state === 'useless' || state === 'conflict' ? 0 : 1)),
    ),
    gauge('keyless_index_lag_entries', 'Entries that are not in the index.', () => index()?.entries),
    gauge('keyless_index_lag_seconds', 'Age of the oldest entry that is not in the index.', () => index()?.seconds),
    gauge(
      'keyless_export_lag_entries',
      'Entries that were not sent.',
      lags(({ entries }) => entries),
    ),
    gauge(
      'keyless_export_lag_seconds',
      'Age of the oldest entry that was not sent.',
      lags(({ seconds }) => seconds),
    ),
    gauge('keyless_webhook_waiting_messages', 'Messages that the receiver has not taken.', () =>
      Object.entries(exports.letters()).map(([name, { waiting }]) => ({ labels: { webhook: name }, value: waiting })),
    ),
    gauge('keyless_webhook_dead_messages', 'Messages that were given up, and can be sent again.', () =>
      Object.entries(exports.letters()).map(([name, { dead }]) => ({ labels: { webhook: name }, value: dead })),
    ),
    {
      ...gauge('keyless_export_refused_total', 'Entries set aside: the receiver does not take them.', () =>
        Object.entries(exports.lag()).map(([name, { refused }]) => ({ labels: { export: name }, value: refused })),
      ),
      isCounter: true,
    },
  ]
}

function ofProcess(): Gauge[] {
  const startedS = Date.now() / 1000 - process.uptime()
  return [
    gauge('keyless_info', 'Which version runs.', () => [{ labels: { version: VERSION }, value: 1 }]),
    gauge('process_start_time_seconds', 'When the process was started.', () => startedS),
    gauge('process_resident_memory_bytes', 'Memory of the process.', () => process.memoryUsage.rss()),
    {
      ...gauge('process_cpu_seconds_total', 'CPU time of the process, all its threads.', () => {
        const { user, system } = process.cpuUsage()
        return (user + system) / 1e6
      }),
      isCounter: true,
    },
  ]
}

function gauge(name: string, help: string, read: Gauge['read']): Gauge {
  return { name, help, read }
}
