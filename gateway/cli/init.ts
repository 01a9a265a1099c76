/** `keyless init`: write a commented `keyless.yaml` to start from, and the JSON Schema by which editors check it. */
import { access, mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Command } from 'commander'
import { type ChosenService, SCHEMA_FILE, settingsTemplate } from './init-template.ts'

const shippedServicesDir = fileURLToPath(new URL('../../policies/services', import.meta.url))

interface InitOptions {
  readonly service?: readonly string[]
  readonly dir: string
  readonly force?: boolean
}

export function initCommand(): Command {
  return new Command('init')
    .description('write a commented keyless.yaml, and its JSON Schema for editors')
    .option('-s, --service <names...>', 'upstream APIs to start with, such as: github openai')
    .option('--dir <directory>', 'where to write; made if it is not there', '.')
    .option('--force', 'replace a keyless.yaml that is there')
    .action(async (options: InitOptions) => {
      process.stdout.write(await init(options))
    })
}

/** @returns what to do next, for a terminal. @throws if a file is there, or a service is not shipped; nothing is written then. */
export async function init({ service = [], dir, force = false }: InitOptions): Promise<string> {
  const { settingsJsonSchema } = await import('../settings.ts')
  const chosen = await Promise.all([...new Set(service)].map(chooseService))
  const settings = join(dir, 'keyless.yaml')
  if (!force && (await isThere(settings))) {
    throw new Error(`${settings} is there already. Remove it, write elsewhere with --dir, or replace it with --force.`)
  }
  await mkdir(dir, { recursive: true })
  await writeFile(settings, settingsTemplate(chosen), { mode: 0o644 })
  await writeFile(join(dir, SCHEMA_FILE), `${JSON.stringify(settingsJsonSchema(), null, 2)}\n`)
  const config = relative('.', resolve(settings)) === 'keyless.yaml' ? '' : ` --config ${settings}`
  // Whoever called it by npx has no other `keyless` to call; elsewhere npx could fetch a stranger of that name.
  const keyless = process.env.npm_command === 'exec' ? 'npx keyless' : 'keyless'
  return [
    `Wrote ${settings} and ${join(dir, SCHEMA_FILE)}.`,
    ...chosen.map(
      ({ name, env, host }) =>
        `  ${name}: the gateway reads its key from ${env}; set it where the gateway runs, not where agents do.${host === undefined ? '' : ` Write your host in the place of ${host}.`}`,
    ),
    'Next:',
    `  ${keyless} start${config}`,
    `  ${keyless} doctor${config}`,
    `  ${keyless} run${config} --task "say what for" -- COMMAND`,
    `Replicas that share keys: ${keyless} keys --dir DIRECTORY, then the setting keys_dir.`,
    '',
  ].join('\n')
}

async function chooseService(name: string): Promise<ChosenService> {
  const [{ parse }, { nearest }] = await Promise.all([import('yaml'), import('../protocol/nearest.ts')])
  const shipped = (await readdir(shippedServicesDir))
    .filter((file) => file.endsWith('.yaml'))
    .map((file) => file.slice(0, -5))
  if (!shipped.includes(name)) {
    const meant = nearest(name, shipped)
    const hint = meant === undefined ? '' : ` Did you mean ${meant}?`
    throw new Error(
      `No service "${name}" is shipped.${hint} There are: ${shipped.sort().join(', ')}. Your own goes into a .yaml file.`,
    )
  }
  const described = parse(await readFile(join(shippedServicesDir, `${name}.yaml`), 'utf8')) as {
    placeholders?: Record<string, string>
    credential?: string
    hosts: readonly string[]
    instance?: string
    slots?: readonly { readonly in: string }[]
  }
  const names = Object.keys(described.placeholders ?? {})
  const variable = name.toUpperCase().replaceAll('-', '_')
  const wanted = `${variable}_TOKEN`
  return {
    name,
    env: names.includes(wanted) ? wanted : (names[0] ?? `${variable}_API_KEY`),
    credential: described.credential,
    host: described.hosts.length === 0 ? described.instance : undefined,
    isSigned: described.slots?.[0]?.in === 'signature',
  }
}

async function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}
