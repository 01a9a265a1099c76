/** What `keyless doctor` can see of files, times and the gateway's own account of itself. */
import { X509Certificate } from 'node:crypto'
import { existsSync } from 'node:fs'
import { readdir, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { BlockView } from '../../protocol/control-revocation.ts'
import type { StatusView } from '../../protocol/control-status.ts'
import { printable } from '../log/words.ts'
import { wordsOf } from '../revoke.ts'
import { isolationProblem } from '../run/isolate-check.ts'
import { type Check, failed, ok, skipped } from './check.ts'

/** Clocks further apart than this make grants look expired, or not yet valid. */
const CLOCK_TOLERANCE_MS = 5_000
const DAY_MS = 86_400_000
/**
 * Days before its end at which a CA that nobody renews is worth a word: a month, or an eighth of its life. The gateway's own are
 * succeeded when a sixth is left, so that this is never said of them in health.
 */
const EXPIRY_NOTICE = { days: 30, part: 1 / 8 }

export async function checkDataDirectory(dir: string): Promise<Check[]> {
  const name = 'data directory'
  const found = await stat(dir).catch(() => undefined)
  if (found === undefined)
    return [failed(name, `${dir} does not exist`, 'keyless start makes it; or name another with --data')]
  if (!found.isDirectory()) return [failed(name, `${dir} is not a directory`, 'name the right one with --data')]
  const checks: Check[] = []
  const uid = process.getuid?.()
  if (uid !== undefined && found.uid !== uid && uid !== 0) {
    checks.push(
      failed(name, `${dir} belongs to user ${found.uid}`, `run this as that user, or: chown -R ${uid} ${dir}`),
    )
  }
  if ((found.mode & 0o077) !== 0)
    checks.push(failed(name, `others can enter ${dir} (mode ${octal(found.mode)})`, `chmod 700 ${dir}`))
  const open = await openFiles(dir)
  if (open.length > 0) checks.push(failed(name, `others can read ${open.join(', ')}`, `chmod 600 ${open.join(' ')}`))
  return checks.length > 0 ? checks : [ok(name, `${dir} is readable by its owner alone`)]
}

/** Files with keys or state that anyone but the owner could read. */
async function openFiles(dir: string): Promise<string[]> {
  const keys = (await readdir(join(dir, 'keys')).catch(() => []))
    .filter((file) => file.endsWith('.key'))
    .map((file) => join(dir, 'keys', file))
  const modes = await Promise.all(
    [...keys, join(dir, 'state.sqlite')].map(async (path) => ({
      path,
      found: await stat(path).catch(() => undefined),
    })),
  )
  return modes.filter(({ found }) => found !== undefined && (found.mode & 0o077) !== 0).map(({ path }) => path)
}

function octal(mode: number): string {
  return (mode & 0o777).toString(8)
}

/** @param pem of all roots; the first signs. */
export function checkAuthority(pem: string, nowMs: number): Check {
  const name = 'CA certificate'
  const remedy = 'make a new one with "keyless ca rotate", and give agents the new ca.pem: docs/ca.md'
  try {
    const certificate = new X509Certificate(pem)
    const endMs = certificate.validToDate.getTime()
    const days = Math.floor((endMs - nowMs) / DAY_MS)
    const noticeMs = Math.min(
      EXPIRY_NOTICE.days * DAY_MS,
      (endMs - certificate.validFromDate.getTime()) * EXPIRY_NOTICE.part,
    )
    if (!certificate.ca) return failed(name, 'is not a CA certificate, so no client accepts what it signs', remedy)
    if (certificate.validFromDate.getTime() > nowMs)
      return failed(name, `is valid only from ${certificate.validFrom}`, 'correct the clock of this machine')
    if (days < 0) return failed(name, `expired on ${certificate.validTo}`, remedy)
    if (endMs - nowMs < noticeMs) return failed(name, `expires in ${days} days, on ${certificate.validTo}`, remedy)
    return ok(name, `valid for another ${days} days`)
  } catch {
    return failed(name, 'cannot be read as a certificate', remedy)
  }
}

/** @param gatewayNow epoch seconds, as the gateway just said. */
export async function checkClock(gatewayNow: number, dir: string): Promise<Check[]> {
  return [checkAgainst('clock', 'the gateway', gatewayNow * 1000, Date.now()), await checkFileTime(dir)]
}

async function checkFileTime(dir: string): Promise<Check> {
  const path = join(dir, `.doctor-${process.pid}`)
  try {
    const before = Date.now()
    await writeFile(path, '', { mode: 0o600 })
    return checkAgainst('file times', `the file system of ${dir}`, (await stat(path)).mtimeMs, before)
  } catch (cause) {
    return failed(
      'file times',
      `cannot write into ${dir}: ${cause instanceof Error ? cause.message : cause}`,
      'make room, or correct its permissions',
    )
  } finally {
    await rm(path, { force: true })
  }
}

function checkAgainst(name: string, whose: string, theirsMs: number, oursMs: number): Check {
  const apartMs = Math.abs(theirsMs - oursMs)
  if (apartMs <= CLOCK_TOLERANCE_MS) return ok(name, `${whose} and this process agree`)
  return failed(
    name,
    `${whose} and this process are ${Math.round(apartMs / 1000)} s apart`,
    'synchronise the clocks (NTP): grants and leases live by them',
  )
}

export function checkLog({ audit, audit_dir: dir }: StatusView): Check {
  if (audit.ok) return ok('log', `${audit.size} entries in ${dir}, writable`)
  return failed(
    'log',
    `cannot be written, so every call is refused (${dir})`,
    'make room on that disk, or correct its permissions, and restart the gateway',
  )
}

/** One finding a witness; none when none is configured. */
export function checkWitnesses({ audit }: StatusView): Check[] {
  return audit.witnesses.map(({ name: witness, url, state, size, trouble }) => {
    const name = `witness ${witness}`
    if (state === 'cosigning') return ok(name, `${url} has cosigned ${size} entries`)
    if (state === 'waiting') return skipped(name, `${url} was not asked yet`)
    if (state === 'conflict')
      return failed(name, trouble ?? 'knows another history of this log', 'keep the log as evidence: docs/witness.md')
    return failed(name, `${url}: ${trouble}`, 'start it, or correct url, key or addresses under audit.witnesses')
  })
}

/** One finding an export; none when none is configured. */
export function checkExports({ audit }: StatusView): Check[] {
  return audit.exports.map(({ name: export_, lag_entries: lag, refused, trouble }) => {
    const name = `export ${export_}`
    if (trouble !== undefined)
      return failed(name, `${lag} entries wait: ${trouble}`, 'start the receiver, or correct it under audit.export')
    if (refused > 0)
      return failed(
        name,
        `${refused} entries were refused`,
        `see <data>/export/${export_}.refused.jsonl and docs/export.md`,
      )
    return ok(name, lag === 0 ? 'everything is delivered' : `${lag} entries to go`)
  })
}

/** One finding a block; none when nothing is blocked. */
export function checkBlocks(blocks: readonly BlockView[]): Check[] {
  return blocks.map(({ target, reason }) =>
    failed(
      'blocked',
      printable(`${wordsOf(target)}: ${reason}`),
      'every call that needs it is refused; when that is over: keyless revoke --lift, docs/revocation.md',
    ),
  )
}

export function checkRedis({ redis, unstored_revocations: unstored }: StatusView): Check {
  if (!redis.configured) return skipped('Redis', 'not configured: one process, state on its own disk')
  if (redis.ok && unstored > 0)
    return failed(
      'Redis',
      `did not take ${unstored} revocations: they are in force at this gateway alone, and tried again`,
      'wait a second; if they stay, see why it refuses to write (`redis-cli info persistence`, `info replication`)',
    )
  return redis.ok
    ? ok('Redis', 'answers')
    : failed('Redis', 'does not answer, so calls are refused', 'start it, or correct redis.url in the settings')
}

/** A run without it works as well, so its absence is no failure. */
export async function checkIsolation(): Promise<Check> {
  const problem = await isolationProblem()
  if (problem === undefined) return ok('isolation', 'keyless run --isolate works here')
  return skipped('isolation', `keyless run --isolate does not work here: ${problem}`)
}

/** A service whose tools expect a key, without one behind it, would fail every call. */
export function checkCredentials({ services }: StatusView): Check[] {
  const name = 'credentials'
  if (services.length === 0)
    return [
      failed(
        name,
        'no services are configured, so every host is refused',
        'name some under `services` in keyless.yaml',
      ),
    ]
  const missing = services.filter(
    (service) => !service.credential_configured && Object.keys(service.placeholders).length > 0,
  )
  const broken = services.filter((service) => service.credential_problem !== undefined)
  const present = services
    .filter((service) => service.credential_configured && !broken.includes(service))
    .map((service) => service.name)
  return [
    ...(present.length > 0 ? [ok(name, `configured for ${present.join(', ')}`)] : []),
    ...broken.map((service) =>
      failed(
        name,
        `that of ${service.name} is not there. ${service.credential_problem}`,
        'put it where the gateway is started, and start it again; docs/providers has a page per kind',
      ),
    ),
    ...missing.map((service) =>
      failed(
        name,
        `none for ${service.name}`,
        `add \`${service.name}: { provider: static, value: { env: NAME } }\` under \`credentials\` in keyless.yaml`,
      ),
    ),
  ]
}

/** Before a start: do the settings load, and are the variables set that they read secrets from? */
export async function checkSettings(config: string | undefined): Promise<Check[]> {
  if (config === undefined && !existsSync('keyless.yaml'))
    return [skipped('settings', 'no keyless.yaml here: keyless init writes one')]
  const { loadSettings, SettingsError } = await import('../../settings.ts')
  try {
    const settings = await loadSettings(config)
    const unset = settings.secretEnv.filter((name) => !process.env[name])
    if (unset.length === 0) return [ok('settings', `${settings.file} has no errors`)]
    return [
      failed(
        'settings',
        `${unset.join(', ')} ${unset.length === 1 ? 'is' : 'are'} not set here`,
        `set before keyless start: export ${unset[0]}=…`,
      ),
    ]
  } catch (cause) {
    if (!(cause instanceof SettingsError)) throw cause
    return [failed('settings', cause.message, 'correct these lines')]
  }
}
