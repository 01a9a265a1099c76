/** The log in `keyless.yaml` as people write it: how it is kept, who reads it, who witnesses it, where it is exported to. */
import { z } from 'zod'
import { FORMATS, MASKS } from '../protocol/exporting.ts'
import { secretReference } from '../provider/reference.ts'
import { read } from './advice.ts'
import { cleanUrl, hasPassword } from './listen.ts'

const whole = (min: number, max: number) => z.int().min(min).max(max)
const name = () => z.string().regex(/^[a-z0-9][a-z0-9_-]{0,62}$/)
const url = () =>
  z.string().transform(
    read(cleanUrl, {
      allowed: 'an http(s) URL without user, query or fragment',
      fix: 'write "https://collector.example.com:4318/v1/logs"',
    }),
  )
/** C2SP signed-note verifier key: `name+keyid+key`. */
const verifierKey = () => z.string().regex(/^[^+\s]+\+[0-9a-f]{8}\+[A-Za-z0-9+/]+={0,2}$/)
const ranges = () =>
  z
    .array(z.string())
    .optional()
    .describe('CIDR ranges that its address may be in besides public ones: private addresses are refused otherwise.')

const witness = z.strictObject({
  url: url().describe('Where it is, without /add-checkpoint.'),
  key: verifierKey().describe('Its verifier key, as `keyless witness` prints it: name+id+key.'),
  addresses: ranges(),
})

const exported = z.strictObject({
  format: z
    .enum(FORMATS)
    .describe(
      'jsonl: the entries as they are. ocsf: OCSF API Activity. otlp: OpenTelemetry logs and traces. cef: CEF in RFC 5424 syslog lines.',
    ),
  to: z
    .union([
      z.strictObject({ file: z.string().min(1) }),
      z.strictObject({
        url: url(),
        headers: z.record(z.string(), secretReference).optional().describe('Header: secret, by reference.'),
        addresses: ranges(),
      }),
      z.strictObject({
        postgres: secretReference,
        table: z
          .string()
          .regex(/^[a-z_][a-z0-9_]{0,62}$/)
          .optional(),
      }),
    ])
    .describe('A file, an HTTP receiver, or a table in Postgres.'),
  mask: z
    .array(z.enum(MASKS))
    .max(MASKS.length)
    .optional()
    .describe('What is replaced by a keyed hash before it leaves. Default none.'),
  kinds: z
    .array(z.string().regex(/^[a-z_]+\.(?:\*|[a-z_.]+)$/))
    .min(1)
    .optional()
    .describe('Kinds of entries, such as call.* or lease.issued. Default all.'),
})

export const auditSchema = z
  .strictObject({
    durability: z
      .enum(['fsync', 'relaxed'])
      .optional()
      .describe(
        'fsync (default): the decision is on disk before a credential is attached. relaxed: it is only handed to the system, so a power cut may lose the last entries.',
      ),
    origin: z
      .string()
      .max(255)
      .regex(/^[^\s+]+$/)
      .optional()
      .describe(
        'Name of this log in signed checkpoints (C2SP). Default keyless.local/<tenant>. Give every log of an organisation its own, and never change it.',
      ),
    heartbeat_s: whole(1, 3600)
      .optional()
      .describe(
        'Seconds between entries that say the gateway is alive: a longer gap is an outage, or entries are missing. Default 60.',
      ),
    body_hashes: z
      .enum(['none', 'requests', 'all'])
      .optional()
      .describe(
        'Of which bodies the outcome holds a keyed hash. Default requests. all costs about 6 µs an answer and 1 µs a KiB of it.',
      ),
    personal: z
      .enum(['plain', 'sealed'])
      .optional()
      .describe(
        'sealed: names of humans, purposes, addresses and user agents are encrypted under a key per human; `keyless log forget` destroys it, and the proofs stay valid. Default plain.',
      ),
    segment_mb: whole(1, 4096)
      .optional()
      .describe('Megabytes (MiB) after which a new file is begun and the old one is compressed. Default 64.'),
    keep_days: whole(1, 36_500)
      .optional()
      .describe(
        'Days that entries are kept. Older segments lose their text and keep their hashes: proofs stay valid. Default: for ever.',
      ),
    index: z.boolean().optional().describe('Keep an index for `keyless log find` and GET /records. Default true.'),
    readers: z
      .record(name(), z.strictObject({ token: secretReference }))
      .optional()
      .describe(
        'Who may read the log at the control door over TCP: name, and a bearer token by reference. Every read is recorded. Default nobody.',
      ),
    witnesses: z
      .record(name(), witness)
      .optional()
      .describe('Who cosigns the checkpoints of this log (C2SP tlog-witness). Default nobody.'),
    witness_every_s: whole(1, 3600)
      .optional()
      .describe('Seconds between two checkpoints that are shown to the witnesses. Default 10.'),
    witness_for: z
      .array(verifierKey())
      .max(1000)
      .optional()
      .describe(
        'Verifier keys (log.pub) of logs that this gateway witnesses, at POST /witness/add-checkpoint of its control door. Default none.',
      ),
    export: z
      .record(name(), exported)
      .optional()
      .describe('Where entries are sent as they come. The name keeps the place; a new one begins at the beginning.'),
  })
  .describe('The tamper-evident log.')

function postgresUrl(text: string): string | null {
  const url = URL.parse(text)
  return url !== null && /^postgres(ql)?:$/.test(url.protocol) && !hasPassword(url) ? text : null
}

export const postgresSchema = z
  .strictObject({
    url: z
      .union([
        z.string().transform(
          read(postgresUrl, {
            allowed: 'postgres://user@host:port/database, without a password',
            fix: 'keep the password out of this file: write url: { env: POSTGRES_URL }',
          }),
        ),
        z.strictObject({ env: z.string().min(1) }),
        z.strictObject({ file: z.string().min(1) }),
      ])
      .describe(
        'Address of PostgreSQL. With a password, by reference: { env: POSTGRES_URL } or { file: /run/secrets/postgres-url }.',
      ),
  })
  .describe('Shared index of the logs of several replicas. Omit for one: the index is SQLite beside the log.')

export type WrittenAudit = z.output<typeof auditSchema>
type WrittenExport = z.output<typeof exported>

export interface AuditSettings {
  /** Default fsync. */
  readonly durability: 'fsync' | 'relaxed'
  /** C2SP origin. Default `keyless.local/<tenant>`: must survive a change of host name. */
  readonly origin: string
  /** Default 60. */
  readonly heartbeatS: number
  /** Default requests. */
  readonly bodyHashes: 'none' | 'requests' | 'all'
  /** Default plain. */
  readonly personal: 'plain' | 'sealed'
  /** Default 64 MiB. */
  readonly segmentBytes: number
  /** Undefined: for ever. */
  readonly keepDays: number | undefined
  /** Default true. */
  readonly index: boolean
  readonly readers: NonNullable<WrittenAudit['readers']>
  readonly witnesses: NonNullable<WrittenAudit['witnesses']>
  /** Default 10. */
  readonly witnessEveryS: number
  readonly witnessFor: readonly string[]
  /** Name → export; files absolute. */
  readonly exports: Readonly<Record<string, WrittenExport>>
}

export function auditOf(written: WrittenAudit = {}, tenant: string, absolute: (path: string) => string): AuditSettings {
  const exports = Object.entries(written.export ?? {}).map(([key, one]) => [
    key,
    'file' in one.to ? { ...one, to: { file: absolute(one.to.file) } } : one,
  ])
  return {
    durability: written.durability ?? 'fsync',
    origin: written.origin ?? `keyless.local/${tenant}`,
    heartbeatS: written.heartbeat_s ?? 60,
    bodyHashes: written.body_hashes ?? 'requests',
    personal: written.personal ?? 'plain',
    segmentBytes: (written.segment_mb ?? 64) * 1024 * 1024,
    keepDays: written.keep_days,
    index: written.index ?? true,
    readers: written.readers ?? {},
    witnesses: written.witnesses ?? {},
    witnessEveryS: written.witness_every_s ?? 10,
    witnessFor: written.witness_for ?? [],
    exports: Object.fromEntries(exports),
  }
}
