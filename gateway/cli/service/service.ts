/** `keyless service`: what is in the catalogue, whether a service file is right, and a first one out of an OpenAPI document. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Command } from 'commander'
import type { ServiceDescription } from '../../policy/catalogue/service-file.ts'
import type { Remark } from '../../policy/catalogue/service-review.ts'
import { shippedServices } from '../policy/sources.ts'
import type { ImportOptions } from './import.ts'

const SHIPPED = fileURLToPath(new URL('../../../policies/services', import.meta.url))

export function serviceCommand(): Command {
  const service = new Command('service').description('work with the catalogue of upstream APIs')
  service
    .command('list')
    .description('the shipped services: where each is, where its credential goes, how much of it is described')
    .option('--json', 'as JSON')
    .action(list)
  service
    .command('show')
    .description('one service: hosts, credential slots, variables and operations')
    .argument('<name>', 'a shipped name, or a service file')
    .option('--json', 'as JSON')
    .action(show)
  service
    .command('check')
    .description('check service files: exit code 1 for what is wrong, and what a person should look at')
    .argument('<file...>', 'service files, or shipped names')
    .option('--strict', 'exit code 1 for remarks, too')
    .action(check)
  service
    .command('import')
    .description('write a first service file out of an OpenAPI 3.0, 3.1 or Swagger 2 document')
    .argument('<openapi>', 'its file, YAML or JSON')
    .option('--name <name>', 'name of the service (default: from its title)')
    .option('--host <host>', 'where it is, for a document that does not say')
    .option('-o, --out <file>', 'where to write; an existing file is never overwritten (default: ./NAME.yaml)')
    .action(importService)
  return service
}

async function list(options: { json?: boolean }): Promise<void> {
  const services = await Promise.all((await shippedServices()).map((name) => described(name)))
  const { listed } = await import('./words.ts')
  const descriptions = services.map(({ description }) => description)
  process.stdout.write(options.json ? `${JSON.stringify(descriptions, null, 2)}\n` : listed(descriptions))
}

async function show(name: string, options: { json?: boolean }): Promise<void> {
  const { description } = await described(name)
  const { shown } = await import('./words.ts')
  process.stdout.write(options.json ? `${JSON.stringify(description, null, 2)}\n` : shown(description))
}

async function check(files: readonly string[], options: { strict?: boolean }): Promise<void> {
  const { loadCatalogue } = await import('../../policy/catalogue/catalogue.ts')
  const catalogue = await loadCatalogue({
    services: files.map(placed),
    shippedDir: SHIPPED,
    baseDir: process.cwd(),
    atExamples: true,
  })
  const reviewed = await Promise.all(files.map(async (file) => ({ file, remarks: await reviewOf(file) })))
  const remarks = reviewed.flatMap(({ file, remarks }) => remarks.map((remark) => lineOf(file, remark)))
  process.stdout.write(remarks.map((line) => `${line}\n`).join(''))
  const operations = catalogue.services.reduce((sum, { operations }) => sum + operations.length, 0)
  process.stdout.write(
    `${files.length} service(s), ${operations} operations: no faults, ${remarks.length} to look at\n`,
  )
  if (options.strict && remarks.length > 0) process.exitCode = 1
}

function lineOf(file: string, { where, says, fix }: Remark): string {
  return `${file}: ${where}\n    look: ${says}\n    fix: ${fix}`
}

async function reviewOf(name: string): Promise<Remark[]> {
  const [{ reviewService }, { loadSecretRules }] = await Promise.all([
    import('../../policy/catalogue/service-review.ts'),
    import('../../upstream/secret-rules.ts'),
  ])
  return reviewService({ ...(await described(name)), findSecrets: await loadSecretRules() })
}

async function importService(file: string, options: ImportOptions): Promise<void> {
  const { writeImported } = await import('./import.ts')
  process.stdout.write(await writeImported(file, options))
}

function isPath(name: string): boolean {
  return name.includes('/') || /\.ya?ml$/.test(name)
}

/** A bare file name is one: `keyless service check billing.yaml`. */
function placed(name: string): string {
  return isPath(name) && !name.includes('/') ? `./${name}` : name
}

/** @throws {PolicyFaults} for a file that is none, Error for one that is not there. */
async function described(name: string): Promise<{ description: ServiceDescription; written: unknown }> {
  const [{ readServiceText }, { PolicyFaults }, { nearest }, { parse }] = await Promise.all([
    import('../../policy/catalogue/service-file.ts'),
    import('../../policy/fault.ts'),
    import('../../protocol/nearest.ts'),
    import('yaml'),
  ])
  const path = isPath(name) ? name : join(SHIPPED, `${name}.yaml`)
  const text = await readFile(path, 'utf8').catch(async (cause: NodeJS.ErrnoException) => {
    const known = isPath(name) ? 'a file that can be read' : `${'a name that `keyless service list` shows'}, or a path`
    const meant = isPath(name) ? undefined : nearest(name, await shippedServices())
    const hint = meant === undefined ? '' : ` Did you mean ${meant}?`
    throw new Error(`There is no service ${name} (${cause.code}).${hint} Allowed: ${known}.`, { cause })
  })
  const description = readServiceText(text, name)
  if (Array.isArray(description)) throw new PolicyFaults(description)
  return { description, written: parse(text) }
}
