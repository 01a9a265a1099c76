/**
 * Settings of one gateway: read once at start, checked as a whole, frozen. What people write is in `settings/schema.ts`;
 * what the house consumes is `Settings`, complete, with absolute paths and units in the names.
 */
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { isMap, LineCounter, parseDocument } from 'yaml'
import type { TrustSettings } from './identity/trust.ts'
import type { Selection } from './policy/selection.ts'
import type { Agent } from './protocol/grant.ts'
import { formatAuthority } from './protocol/target.ts'
import type { VaultConnectionConfig } from './provider/vault/schema.ts'
import { type ApprovalSettings, approvalsOf } from './settings/approvals.ts'
import { absolutePath, type Surroundings } from './settings/around.ts'
import { type AuditSettings, auditOf } from './settings/audit.ts'
import { type BreakGlassSettings, breakGlassOf } from './settings/break-glass.ts'
import { type CaSettings, caOf } from './settings/ca.ts'
import { defaultDataDir } from './settings/data-directory.ts'
import { type WrittenDown, writtenDown } from './settings/digest.ts'
import { type Doors, doorsOf, warningsOf } from './settings/doors.ts'
import { explainIssues, lineOf, SettingsError, type SettingsProblem } from './settings/explain.ts'
import { checkFallbacks } from './settings/fallback.ts'
import { type LeakSettings, leaksOf } from './settings/leaks.ts'
import { agentsOf, envNames, grantsOf, limitsOf, placedService, redisOf, rootsOf } from './settings/parts.ts'
import { type PolicySettings, policyOf, policyPlaces } from './settings/policy.ts'
import { postgresOf } from './settings/postgres.ts'
import { type RevocationSettings, revocationOf } from './settings/revocation.ts'
import { settingsJsonSchema, settingsSchema, type WrittenSettings } from './settings/schema.ts'
import { type SignalSettings, signalsOf } from './settings/signals.ts'
import { trustOf } from './settings/trust.ts'
import { vaultOf } from './settings/vault.ts'
import { upstreamProxyOf } from './settings/way-out.ts'
import type { UpstreamProxy } from './upstream/via-proxy.ts'

export type { SettingsProblem }
export { defaultDataDir, SettingsError, settingsJsonSchema }

type Credentials = NonNullable<WrittenSettings['credentials']>

export interface Settings {
  /** Absolute path of the file read; undefined when the gateway runs on defaults alone. */
  readonly file: string | undefined
  /** Directory against which relative paths were resolved, and against which secret references are: that of the file. */
  readonly baseDir: string
  /** Default `default`. */
  readonly tenant: string
  /** Absolute. Default `$KEYLESS_HOME` or `~/.keyless`. */
  readonly dataDir: string
  /** Absolute. Default `<dataDir>/keys`; shared by replicas. */
  readonly keysDir: string
  readonly ca: CaSettings
  readonly listen: Doors
  /** Issuer of grants, no trailing slash. Default `http://<listen.control>`, `https://` with `controlTls`. */
  readonly publicUrl: string
  /** Shipped names as written, own files as absolute paths, with what settings add to them. Default none: every host is unmanaged. */
  readonly services: readonly (string | Selection)[]
  /** Absolute files or directories. Default: the shipped `policies/`; none with `policy.source`. */
  readonly policies: readonly string[]
  readonly policy: PolicySettings
  /** Where the shipped names of `services` are found. Not a setting: it goes with the program. */
  readonly shippedServicesDir: string
  /** Service's credential name → checked provider configuration. Paths in it are relative to `baseDir`. */
  readonly credentials: Readonly<Credentials>
  /** Undefined: no credential asks one. */
  readonly vault: VaultConnectionConfig | undefined
  /** At least one; the first is the default. */
  readonly agents: readonly [Agent, ...Agent[]]
  /** Who may say who somebody is; files absolute, audiences complete. Default nobody. */
  readonly trust: TrustSettings
  /** Region → ranges of addresses (CIDR). Default none. */
  readonly regions: Readonly<Record<string, readonly string[]>>
  /** Undefined: one process, no shared state. `url` may hold a password and is not enumerable, so printing settings does not show it. */
  readonly redis: { readonly url: string } | undefined
  readonly audit: AuditSettings
  /** Undefined: the index of the log is SQLite beside it. `url` may hold a password and is not enumerable. */
  readonly postgres: { readonly url: string } | undefined
  readonly signals: SignalSettings
  readonly grants: {
    /** Seconds a grant lives: by default (900, or `maxS` if that is less) and at most (default and ceiling 3600). */
    readonly ttl: { readonly defaultS: number; readonly maxS: number }
    /** Seconds between heartbeats; a task that promised them ends after two are missed. Default 15. */
    readonly maxDepth: number
    readonly heartbeatS: number
  }
  /** Undefined: there is no emergency access. */
  readonly breakGlass: BreakGlassSettings | undefined
  readonly approvals: ApprovalSettings
  /** What the gateway ends by itself. */
  readonly revocation: RevocationSettings
  readonly leaks: LeakSettings
  readonly limits: {
    /** Calls of one agent at once. Default 1024. */
    readonly concurrency: number
    /** Calls of one agent that wait for their turn. Default 1024. */
    readonly queue: number
    /** Milliseconds they wait. Default 10000. */
    readonly queueTimeoutMs: number
    /** Connections to the proxy door at once. Default 10000. */
    readonly connections: number
  }
  readonly upstream: {
    /** Default 5000. */
    readonly connectTimeoutMs: number
    /** Default 300000: models think long before the first byte. */
    readonly headersTimeoutMs: number
    /** Silence inside an answer. Default 300000; 0 waits for ever. */
    readonly bodyTimeoutMs: number
    /** Offer HTTP/2 for requests that came over it. Default true. */
    readonly http2: boolean
    /** Payload of one WebSocket frame. Default 16 MiB. */
    readonly maxFrameBytes: number
    /** Payload of one WebSocket message. Default 64 MiB. */
    readonly maxMessageBytes: number
    /** Additional root certificates, PEM text of each file. Default none. */
    readonly ca: readonly string[]
    /** Host name → address. Default none. */
    readonly hosts: ReadonlyMap<string, string>
    /** Undefined: there is no proxy on the way out. */
    readonly proxy: UpstreamProxy | undefined
  }
  /** What stands in the file, for the record: no value, and secrets stand in it by reference alone. */
  readonly written: WrittenDown
  /** Environment variables that hold secrets of the gateway, sorted: `keyless run` keeps them from its child. */
  readonly secretEnv: readonly string[]
  /** Choices that are allowed and worth a word at start, one sentence each. */
  readonly warnings: readonly string[]
}

const shippedServicesDir = fileURLToPath(new URL('../policies/services', import.meta.url))

/**
 * Read settings.
 * @param file path; undefined takes `./keyless.yaml` if there is one, else defaults alone.
 * @throws {SettingsError} with every problem of the file at once.
 */
export async function loadSettings(file: string | undefined): Promise<Settings> {
  const found = file === undefined ? (existsSync('keyless.yaml') ? resolve('keyless.yaml') : undefined) : resolve(file)
  if (found === undefined) return read('', process.cwd(), undefined)
  try {
    return read(await readFile(found, 'utf8'), dirname(found), found)
  } catch (cause) {
    if (!(cause instanceof Error) || !('code' in cause)) throw cause
    const problem = {
      path: '',
      line: undefined,
      got: `${cause.code} on reading it`,
      allowed: 'a readable file',
      fix: 'check the path, or write one with `keyless init`',
    }
    throw new SettingsError(found, [problem], { cause })
  }
}

/** The same from text; relative paths are resolved against `baseDir`. @throws {SettingsError} */
export function parseSettings(text: string, baseDir: string): Settings {
  return read(text, resolve(baseDir), undefined)
}

function read(text: string, baseDir: string, file: string | undefined): Settings {
  const name = file ?? 'keyless.yaml'
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true })
  if (document.errors.length > 0) {
    throw new SettingsError(
      name,
      document.errors.map((error) => ({
        path: '',
        line: lines.linePos(error.pos[0]).line,
        got: error.message,
        allowed: 'YAML 1.2',
        fix: 'correct this line',
      })),
    )
  }
  if (document.contents !== null && !isMap(document.contents)) {
    throw new SettingsError(name, [
      {
        path: '',
        line: 1,
        got: 'not a mapping',
        allowed: 'settings as `key: value`',
        fix: 'start from `keyless init`',
      },
    ])
  }
  const written: unknown = document.toJS() ?? {}
  const parsed = settingsSchema.safeParse(written, { reportInput: false })
  const at = (path: readonly PropertyKey[]) => lineOf(document, lines, path)
  if (!parsed.success)
    throw new SettingsError(name, explainIssues(parsed.error.issues, written, settingsJsonSchema(), at))
  const problems: SettingsProblem[] = []
  const report = (path: readonly string[], problem: Omit<SettingsProblem, 'path' | 'line'>) =>
    problems.push({ path: path.join('.'), line: at(path), ...problem })
  const settings = normalise(parsed.data, { baseDir, file, report })
  if (problems.length > 0) throw new SettingsError(name, problems)
  return deepFreeze({ ...settings, written: writtenDown(written) })
}

function normalise(written: WrittenSettings, around: Surroundings): Omit<Settings, 'written'> {
  const absolute = (path: string) => absolutePath(path, around)
  const tenant = written.tenant ?? 'default'
  const dataDir = written.data_dir === undefined ? defaultDataDir() : absolute(written.data_dir)
  const listen = doorsOf(written, dataDir, around)
  const publicUrl = written.public_url ?? `${listen.controlTls ? 'https' : 'http'}://${formatAuthority(listen.control)}`
  const agents = agentsOf(written, around)
  checkFallbacks(written.credentials ?? {}, around)
  return {
    file: around.file,
    baseDir: around.baseDir,
    tenant,
    dataDir,
    keysDir: written.keys_dir === undefined ? join(dataDir, 'keys') : absolute(written.keys_dir),
    ca: caOf(written.ca),
    listen,
    publicUrl,
    services: (written.services ?? []).map((entry) => placedService(entry, absolute)),
    policies: policyPlaces(written.policies ?? (written.policy?.source ? [] : ['shipped']), ['policies'], around),
    credentials: written.credentials ?? {},
    shippedServicesDir,
    agents,
    vault: vaultOf(written, around),
    trust: trustOf(written.trust, { publicUrl, agents }, around),
    regions: written.regions ?? {},
    redis: redisOf(written, around),
    audit: auditOf(written.audit, tenant, absolute),
    postgres: postgresOf(written.postgres, around),
    signals: signalsOf(written, publicUrl, around),
    policy: policyOf(written, around),
    grants: grantsOf(written, around),
    breakGlass: breakGlassOf(written.break_glass, { dataDir, absolute }, around),
    approvals: approvalsOf(written.approvals, around),
    revocation: revocationOf(written.revocation ?? {}),
    leaks: leaksOf(written.leaks, around),
    limits: limitsOf(written.limits ?? {}),
    upstream: upstreamOf(written.upstream ?? {}, around),
    secretEnv: [
      ...new Set(
        [
          written.credentials,
          written.vault,
          written.redis,
          written.postgres,
          written.policy,
          written.audit,
          written.webhooks,
          written.signals,
          written.leaks,
          written.upstream?.proxy,
        ].flatMap(envNames),
      ),
    ].sort(),
    warnings: warningsOf(written, listen),
  }
}

const MIB = 1024 * 1024

type WrittenUpstream = NonNullable<WrittenSettings['upstream']>

function upstreamOf(written: WrittenUpstream, around: Surroundings): Settings['upstream'] {
  return {
    connectTimeoutMs: written.connect_timeout_ms ?? 5000,
    headersTimeoutMs: written.headers_timeout_ms ?? 300_000,
    bodyTimeoutMs: written.body_timeout_ms ?? 300_000,
    http2: written.http2 ?? true,
    maxFrameBytes: written.max_frame_bytes ?? 16 * MIB,
    maxMessageBytes: written.max_message_bytes ?? 64 * MIB,
    ca: rootsOf(written.ca ?? [], ['upstream', 'ca'], around),
    hosts: new Map(Object.entries(written.hosts ?? {})),
    proxy: upstreamProxyOf(written.proxy, around),
  }
}

function deepFreeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value
  for (const child of Object.values(value)) deepFreeze(child)
  return Object.freeze(value)
}
