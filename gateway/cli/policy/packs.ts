/** `keyless policy packs`: the policy packs that are shipped, or the text of one, to read or to copy. */
import { readFile } from 'node:fs/promises'
import { Command } from 'commander'
import { columns } from '../table.ts'

interface PacksOptions {
  readonly json?: boolean
}

export function policyPacksCommand(): Command {
  return new Command('packs')
    .description('the shipped packs that `policies: [shipped, pack:NAME]` adds; with a name, its text')
    .argument('[name]', 'print this one, to read it or to copy it')
    .option('--json', 'as JSON')
    .action(async (name: string | undefined, options: PacksOptions) => {
      process.exitCode = await run(name, options)
    })
}

/** @returns the exit code. */
async function run(name: string | undefined, { json = false }: PacksOptions): Promise<number> {
  const { packs, shippedPlace } = await import('../../policy/tools/packs.ts')
  if (name === undefined) {
    const rows = packs().map(({ name: pack, says }) => [`pack:${pack}`, says])
    process.stdout.write(json ? `${JSON.stringify(packs())}\n` : `${columns(rows).join('\n')}\n`)
    return 0
  }
  const place = shippedPlace(name.startsWith('pack:') ? name : `pack:${name}`)
  if (typeof place === 'object') {
    process.stderr.write(`There is no pack ${name}. There are: ${place.allowed}. ${place.fix}\n`)
    return 1
  }
  if (place !== undefined) process.stdout.write(await readFile(place, 'utf8'))
  return 0
}
