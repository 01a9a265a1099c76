/** `keyless policy check`: validate service files and policies without starting anything; for CI and before a reload. */
import { Command } from 'commander'
import { counted, type Loaded, load, onSources, type SourceOptions, sourcesOf } from './policy-sources.ts'

export function policyCheckCommand(): Command {
  const command = new Command('check').description(
    'validate services and policies; exit code 1 and every problem at once if something is wrong',
  )
  return onSources(command).action(async (options: SourceOptions) => {
    process.exitCode = await runCheck(options)
  })
}

/** @returns the exit code: 0 when all is well, 1 when not. */
async function runCheck(options: SourceOptions): Promise<number> {
  try {
    process.stdout.write(summary(await load(await sourcesOf(options))))
    return 0
  } catch (cause) {
    process.stderr.write(`${cause instanceof Error ? cause.message : String(cause)}\n`)
    return 1
  }
}

function summary({ catalogue, bundle }: Loaded): string {
  const operations = catalogue.services.reduce((sum, service) => sum + service.operations.length, 0)
  const files = new Set(bundle.policies.map((policy) => policy.file)).size
  const counts = [counted(bundle.policies.length, 'policy', 'policies'), `in ${counted(files, 'file')},`]
  counts.push(`${counted(catalogue.services.length, 'service')},`, counted(operations, 'operation'))
  return `${counts.join(' ')}\n${bundle.digest}\n`
}
