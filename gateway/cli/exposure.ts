/**
 * What would show the memory of a gateway to others: debuggers, core dumps, and switches of the runtime that print or write what passes.
 * Looked at once, before any secret is read.
 */
import { writeFile } from 'node:fs/promises'
import { url } from 'node:inspector'

/** Switches of Node.js: the inspector, heap snapshots and profiles, reports with the environment, keys and plain text of TLS. */
const SHOWING =
  /^--(?:inspect|debug|heapsnapshot|heap-prof|report-(?:on|uncaught)|abort-on-uncaught-exception|tls-keylog|trace-tls|allow-inspector)/

export interface Surroundings {
  /** Switches of this process. */
  readonly execArgv: readonly string[]
  readonly env: Readonly<Record<string, string | undefined>>
  /** Where a debugger may attach now, if anywhere. */
  readonly inspectorUrl: string | undefined
}

/** Why a gateway must not start like this, one sentence for each reason. */
export function exposures({ execArgv, env, inspectorUrl }: Surroundings): string[] {
  const given = [...execArgv, ...(env.NODE_OPTIONS ?? '').split(/\s+/)]
  const switches = [...new Set(given.filter((text) => SHOWING.test(text)).map((text) => text.split('=', 1)[0] ?? ''))]
  const found = switches.map((name) => `${name} shows what is in memory`)
  if (inspectorUrl !== undefined && switches.length === 0) found.push('a debugger can attach')
  if ((env.NODE_DEBUG ?? '') !== '') found.push('NODE_DEBUG prints what passes')
  return found
}

/** @throws {Error} unless it was asked for. */
export function requireHidden(isUnsafe: boolean): void {
  const found = exposures({ execArgv: process.execArgv, env: process.env, inspectorUrl: url() })
  if (found.length === 0) return
  if (!isUnsafe)
    throw new Error(
      `Whoever looks could read every credential: ${found.join('; ')}. Start without it, or with --unsafe-inspector where no credential is real.`,
    )
  process.stderr.write(`keyless: warning: every credential can be read: ${found.join('; ')}.\n`)
}

/** What is not in the hands of the gateway, one sentence each. */
export async function hideMemory(): Promise<string[]> {
  if (process.report) process.report.excludeEnv = true
  const warnings: string[] = []
  const canAttach = ![...process.execArgv, process.env.NODE_OPTIONS ?? ''].join(' ').includes('--disable-sigusr1')
  if (canAttach && process.platform !== 'win32')
    warnings.push(
      'SIGUSR1 would let a debugger attach. Start with the keyless command, or with node --disable-sigusr1.',
    )
  if (process.platform !== 'linux') return warnings
  // core(5): no kind of memory mapping is written. Children of the gateway inherit it.
  const isDone = await writeFile('/proc/self/coredump_filter', '0').then(
    () => true,
    () => false,
  )
  if (!isDone)
    warnings.push('a core dump would hold credentials: /proc cannot be written. Set the limit of core files to 0.')
  return warnings
}
