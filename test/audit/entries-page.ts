/** Makes docs/log-entries.md and docs/ar-1.schema.json of the schema. `npm run docs:entries` writes them; `schema.test.ts` compares. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { entryJsonSchema, kinds } from '../../gateway/audit/schema/schema.ts'
import { ROOT } from '../rig/process.ts'

export const PAGE = join(ROOT, 'docs', 'log-entries.md')
export const SCHEMA = join(ROOT, 'docs', 'ar-1.schema.json')

/** As much of JSON Schema as is made here. */
interface Shape {
  readonly $ref?: string
  readonly type?: string
  readonly const?: unknown
  readonly enum?: readonly unknown[]
  readonly description?: string
  readonly properties?: Readonly<Record<string, Shape>>
  readonly required?: readonly string[]
  readonly items?: Shape
  readonly anyOf?: readonly Shape[]
  readonly additionalProperties?: Shape | boolean
}

const schema = entryJsonSchema() as {
  readonly anyOf: readonly Shape[]
  readonly $defs: Readonly<Record<string, Shape>>
}
/** In every entry, and told once. */
const BASE: ReadonlySet<string> = new Set(['v', 'seq', 'ts', 'log'])
const KIND = 'kind'

export function entriesPage(): string {
  const shared = Object.entries(schema.$defs).filter(([, shape]) => propertiesOf(shape) !== undefined)
  return `${[
    START,
    '## In every entry',
    table([
      ...rows(schema.anyOf[0] as Shape, (name) => BASE.has(name)),
      ['`kind`', 'string', '', 'One of those below.'],
    ]),
    '## Members that several kinds have',
    ...shared.map(
      ([name, shape]) => `### \`${name}\`\n\n${shape.description ?? ''}\n\n${table(rows(shape, () => true))}`,
    ),
    '## Kinds',
    ...Object.keys(kinds).map((kind, i) => section(kind, schema.anyOf[i] as Shape)),
  ].join('\n\n')}\n`
}

/** Byte for byte what the file holds. */
export function schemaText(): string {
  return `${JSON.stringify(entryJsonSchema(), null, 1)}\n`
}

function section(kind: string, shape: Shape): string {
  return `### \`${kind}\`\n\n${shape.description ?? ''}\n\n${table(rows(shape, (name) => !BASE.has(name) && name !== KIND))}`
}

/** One row a member; facts are told with the kind that has them. */
function rows(shape: Shape, isTold: (name: string) => boolean, path = ''): string[][] {
  const { properties = {}, required = [] } = propertiesOf(shape) ?? {}
  return Object.entries(properties)
    .filter(([name]) => path !== '' || isTold(name))
    .flatMap(([name, member]) => {
      const where = path + name
      const own = [`\`${where}\``, typeOf(member), required.includes(name) ? '' : 'may be absent', says(member)]
      const inner = member.$ref === undefined && propertiesOf(member) !== undefined
      return [own, ...(inner ? rows(member, isTold, `${where}.`) : [])]
    })
}

/** The object that a member is, when it is not cut. */
function propertiesOf(shape: Shape): Shape | undefined {
  const forms = [shape, ...(shape.anyOf ?? [])]
  const elements = forms.flatMap(({ items }) => items?.anyOf ?? [])
  return [...forms, ...elements].find((one) => one.properties !== undefined)
}

function typeOf(shape: Shape): string {
  if (shape.$ref !== undefined) return refOf(shape) === 'any' ? 'any' : `[${refOf(shape)}](#${refOf(shape)})`
  if (shape.const !== undefined) return `\`${shape.const}\``
  if (shape.enum !== undefined) return shape.enum.map((one) => `\`${one}\``).join(', ')
  if (shape.anyOf !== undefined) return [...new Set(shape.anyOf.filter(isNoCut).map(typeOf))].join(' or ')
  if (shape.type === 'array') return `list of ${typeOf(shape.items ?? {})}`
  return shape.type ?? 'any'
}

function isNoCut(shape: Shape): boolean {
  return shape.$ref !== '#/$defs/cut'
}

function refOf({ $ref = '' }: Shape): string {
  const name = $ref.split('/').at(-1) ?? ''
  return name.startsWith('__') ? 'any' : name
}

function says(shape: Shape): string {
  return (shape.description ?? '').replaceAll('|', '\\|')
}

function table(lines: readonly string[][]): string {
  if (lines.length === 0) return 'Nothing more.'
  const head = ['| Member | Type | | Says |', '|---|---|---|---|']
  return [...head, ...lines.map((line) => `| ${line.join(' | ')} |`)].join('\n')
}

const START = `# Entries of the log

Written by \`npm run docs:entries\` from the schema that the tests hold the gateway to; do not edit. The same for programs is
[ar-1.schema.json](ar-1.schema.json) (JSON Schema 2020-12). How the log is kept, read and proved: [the log](log.md).

An entry is one line: RFC 8785 canonical JSON of at most 60 KiB, its version (\`ar/1\`) in \`v\`. New members and new kinds may come within
a version: a reader passes over what it does not know. Overlong texts are cut, and end in how much is missing and the SHA-256 of all of it.
With \`audit.personal: sealed\`, values that belong to a person have the form \`sealed:<key>:<text>\`.`

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  await writeFile(PAGE, entriesPage())
  await writeFile(SCHEMA, schemaText())
}
