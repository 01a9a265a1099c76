/** docs/catalogue.md from the shipped service files: `npm run docs:services` writes it, a test keeps both equal. */
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { slotWords } from '../../gateway/cli/service/words.ts'
import { readServiceText, type ServiceDescription } from '../../gateway/policy/catalogue/service-file.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const SERVICES = join(ROOT, 'policies', 'services')
export const PAGE = join(ROOT, 'docs', 'catalogue.md')

export async function cataloguePage(): Promise<string> {
  const files = (await readdir(SERVICES)).filter((file) => file.endsWith('.yaml')).sort()
  const services = await Promise.all(files.map(described))
  return [
    '# Catalogue',
    '',
    `<!-- Written by \`npm run docs:services\` from policies/services/. -->`,
    '',
    `${services.length} services that settings can name; how to read, change and add them: [services.md](services.md).`,
    'Where a host is _yours_, settings say which: `{ use: atlassian, hosts: [acme.atlassian.net] }`. Of several slots the first is filled, or',
    'all that name a part (in brackets); values of agents are removed from every one.',
    '',
    '| Service | Hosts | Credential | Operations | Variables |',
    '|---|---|---|---|---|',
    ...services.map(row),
    '',
    'Operations in brackets: how many of them answer with a credential, and how many cannot be undone. Both kinds are denied unless a policy',
    'names them. `keyless service show NAME` lists them.',
    '',
    '## What they were checked against',
    '',
    'Vendors change their APIs: this is what each file was compared with, and what was not compared.',
    '',
    ...services.flatMap(({ name, checked }) => (checked === undefined ? [] : [`- ${code(name)}: ${checked}`])),
    `- No comparison is recorded for ${services.flatMap(({ name, checked }) => (checked === undefined ? [code(name)] : [])).join(', ')}.`,
    '',
  ].join('\n')
}

type Described = ServiceDescription & { readonly checked: string | undefined }

async function described(file: string): Promise<Described> {
  const text = await readFile(join(SERVICES, file), 'utf8')
  const description = readServiceText(text, file)
  if (Array.isArray(description)) throw new Error(JSON.stringify(description))
  return { ...description, checked: checkedAgainst(text) }
}

/** The comment `# Checked against …`, with the lines `#   …` that go on. */
function checkedAgainst(text: string): string | undefined {
  return /^# Checked against (.*(?:\n# {3}.*)*)/m.exec(text)?.[1]?.replaceAll('\n#  ', '')
}

function row(service: ServiceDescription): string {
  const { name, title, hosts, instance, slots, operations, placeholders } = service
  const all = Object.values(operations)
  const secret = all.filter((one) => one.returns_secret).length
  const lost = all.filter((one) => one.irreversible).length
  const places = [...hosts.map(code), ...(instance ? [`_yours_, such as ${code(instance)}`] : [])]
  const words = slots.map((slot) => code(slotWords(slot)) + ('part' in slot && slot.part ? ` (${slot.part})` : ''))
  const cells = [
    `${code(name)} ${title}`,
    places.join(', '),
    words.join(', ') || 'none',
    `${all.length} (${secret}, ${lost})`,
    Object.keys(placeholders).map(code).join(' '),
  ]
  return `| ${cells.join(' | ')} |`.replace(/ +\|/g, ' |')
}

function code(text: string): string {
  return `\`${text}\``
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await writeFile(PAGE, await cataloguePage())
