/** Which policies and services a command on policy speaks of: those named, else those of the settings, else everything shipped. */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Command } from 'commander'
import type { Catalogue, CatalogueSource } from '../../policy/catalogue/catalogue.ts'
import type { Bundle } from '../../policy/source/bundle.ts'
import type { Settings } from '../../settings.ts'

export interface SourceOptions {
  readonly config?: string
  readonly policies?: readonly string[]
  readonly services?: readonly string[]
}

export interface Sources {
  readonly services: CatalogueSource['services']
  readonly policies: readonly string[]
  readonly baseDir: string
  /** Services were named here, where nobody can say where they are. */
  readonly atExamples: boolean
  /** Undefined: no settings were read. */
  readonly settings?: Settings | undefined
}

export interface Loaded {
  readonly catalogue: Catalogue
  readonly bundle: Bundle
}

const SHIPPED_SERVICES = fileURLToPath(new URL('../../../policies/services', import.meta.url))

/** @param takesPolicies false: they are named by the arguments. */
export function onSources(command: Command, takesPolicies = true): Command {
  command.option('-c, --config <file>', 'settings that name them (default: ./keyless.yaml, else everything shipped)')
  if (takesPolicies)
    command.option(
      '--policies <path...>',
      'policy files, directories, shipped or pack:NAME, instead of those in the settings',
    )
  return command.option('--services <name...>', 'shipped names or service files, instead of those in the settings')
}

export async function sourcesOf(options: SourceOptions): Promise<Sources> {
  const named = { services: options.services, policies: options.policies && (await placesOf(options.policies)) }
  const config = options.config ?? (existsSync('keyless.yaml') ? 'keyless.yaml' : undefined)
  if (config === undefined) {
    const services = named.services ?? (await shippedServices())
    return {
      services,
      policies: named.policies ?? (await placesOf(['shipped'])),
      baseDir: process.cwd(),
      atExamples: true,
    }
  }
  const { loadSettings } = await import('../../settings.ts')
  const settings = await loadSettings(config)
  const baseDir = named.services === undefined ? settings.baseDir : process.cwd()
  const services = named.services ?? settings.services
  const policies = named.policies ?? policiesOf(settings)
  return { services, policies, baseDir, atExamples: named.services !== undefined, settings }
}

/** A bundle from elsewhere lies in no directory of this machine, so which policies are meant has to be said. */
function policiesOf({ policies, policy: { source } }: Settings): readonly string[] {
  if (source === undefined) return policies
  if ('dir' in source.from) return [source.from.dir]
  throw new Error(
    'The policies of these settings come from policy.source. Name a directory that has them: --policies DIRECTORY.',
  )
}

/** @returns absolute paths of what a command line names as the settings do. @throws {Error} for a pack that there is not. */
async function placesOf(entries: readonly string[]): Promise<string[]> {
  const { shippedPlace } = await import('../../policy/tools/packs.ts')
  return entries.map((entry) => {
    const place = shippedPlace(entry)
    if (typeof place === 'object')
      throw new Error(`no such pack: ${place.got}. There are: ${place.allowed}. ${place.fix}`)
    return place ?? resolve(entry)
  })
}

/** @throws {PolicyFaults} listing every problem in them. */
export async function load(sources: Sources): Promise<Loaded> {
  const [{ loadCatalogue }, { loadBundle }] = await Promise.all([
    import('../../policy/catalogue/catalogue.ts'),
    import('../../policy/source/bundle.ts'),
  ])
  const catalogue = await loadCatalogue({ ...sources, shippedDir: SHIPPED_SERVICES })
  return { catalogue, bundle: await loadBundle({ paths: sources.policies, catalogue }) }
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

export function counted(n: number, one: string, many = `${one}s`): string {
  return `${n} ${n === 1 ? one : many}`
}
