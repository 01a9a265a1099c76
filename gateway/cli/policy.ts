/** `keyless policy check`: validate service files and policies without starting anything; for CI and before a reload. */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Command } from 'commander'
import type { Bundle } from '../policy/bundle.ts'
import type { Catalogue, CatalogueSource } from '../policy/catalogue.ts'

interface CheckOptions {
  readonly config?: string
  readonly policies?: readonly string[]
  readonly services?: readonly string[]
}

interface Sources {
  readonly services: CatalogueSource['services']
  readonly policies: readonly string[]
  readonly baseDir: string
  /** Services were named here, where nobody can say where they are. */
  readonly atExamples: boolean
}

const SHIPPED_POLICIES = fileURLToPath(new URL('../../policies', import.meta.url))
const SHIPPED_SERVICES = fileURLToPath(new URL('../../policies/services', import.meta.url))

export function policyCommand(): Command {
  const check = new Command('check')
    .description('validate services and policies; exit code 1 and every problem at once if something is wrong')
    .option('-c, --config <file>', 'settings that name them (default: ./keyless.yaml, else everything shipped)')
    .option('--policies <path...>', 'policy files or directories, instead of those in the settings')
    .option('--services <name...>', 'shipped names or service files, instead of those in the settings')
    .action(async (options: CheckOptions) => {
      process.exitCode = await runCheck(options)
    })
  return new Command('policy').description('work with policy as code').addCommand(check)
}

/** @returns the exit code: 0 when all is well, 1 when not. */
async function runCheck(options: CheckOptions): Promise<number> {
  const { loadCatalogue } = await import('../policy/catalogue.ts')
  const { loadBundle } = await import('../policy/bundle.ts')
  try {
    const sources = await sourcesOf(options)
    const catalogue = await loadCatalogue({ ...sources, shippedDir: SHIPPED_SERVICES })
    const bundle = await loadBundle({ paths: sources.policies, catalogue })
    process.stdout.write(summary(catalogue, bundle))
    return 0
  } catch (cause) {
    process.stderr.write(`${cause instanceof Error ? cause.message : String(cause)}\n`)
    return 1
  }
}

async function sourcesOf(options: CheckOptions): Promise<Sources> {
  const named = { services: options.services, policies: options.policies?.map((path) => resolve(path)) }
  const config = options.config ?? (existsSync('keyless.yaml') ? 'keyless.yaml' : undefined)
  if (config === undefined) {
    const services = named.services ?? (await shippedServices())
    return { services, policies: named.policies ?? [SHIPPED_POLICIES], baseDir: process.cwd(), atExamples: true }
  }
  const { loadSettings } = await import('../settings.ts')
  const settings = await loadSettings(config)
  const baseDir = named.services === undefined ? settings.baseDir : process.cwd()
  const services = named.services ?? settings.services
  return { services, policies: named.policies ?? settings.policies, baseDir, atExamples: named.services !== undefined }
}

/** Names of the shipped services, sorted. */
export async function shippedServices(): Promise<string[]> {
  const { readdir } = await import('node:fs/promises')
  const files = await readdir(SHIPPED_SERVICES)
  return files
    .filter((file) => file.endsWith('.yaml'))
    .map((file) => file.slice(0, -'.yaml'.length))
    .sort()
}

function summary(catalogue: Catalogue, bundle: Bundle): string {
  const operations = catalogue.services.reduce((sum, service) => sum + service.operations.length, 0)
  const files = new Set(bundle.policies.map((policy) => policy.file)).size
  const counts = [counted(bundle.policies.length, 'policy', 'policies'), `in ${counted(files, 'file', 'files')},`]
  counts.push(
    `${counted(catalogue.services.length, 'service', 'services')},`,
    counted(operations, 'operation', 'operations'),
  )
  return `${counts.join(' ')}\n${bundle.digest}\n`
}

function counted(n: number, one: string, many: string): string {
  return `${n} ${n === 1 ? one : many}`
}
