/**
 * A first service file out of an OpenAPI document: hosts, slots and operations, with a comment wherever a person must look. It
 * is checked like any other before it is written, and nothing is ever overwritten.
 */
import { readFile, writeFile } from 'node:fs/promises'
import { Document, type Pair, type Scalar, type YAMLMap } from 'yaml'
import { type Imported, importedOperations } from './import-operations.ts'
import { type Api, readApi, type Scheme } from './openapi.ts'

export interface ImportOptions {
  readonly name?: string
  readonly host?: string
  readonly out?: string
}

/** @returns what to say; the file is written. @throws Error in one line, for a document or a target that cannot be used. */
export async function writeImported(source: string, options: ImportOptions): Promise<string> {
  const text = await readFile(source, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    throw new Error(`${source} cannot be read (${cause.code}). Allowed: a file with an OpenAPI document.`, { cause })
  })
  const { api, root } = readApi(text)
  const name = options.name ?? nameOf(api.title)
  const isInstance = options.host === undefined && api.servers[0]?.isVariable === true
  const operations = importedOperations(api, root, isInstance)
  const yaml = serviceText({ api, name, host: options.host ?? api.servers[0]?.host, isInstance, operations })
  await requireValid(yaml, name)
  const out = options.out ?? `./${name}.yaml`
  await writeFile(out, yaml, { flag: 'wx' }).catch((cause: NodeJS.ErrnoException) => {
    const why =
      cause.code === 'EEXIST' ? 'is there already, and is not overwritten' : `cannot be written (${cause.code})`
    throw new Error(`${out} ${why}. Choose another with --out.`, { cause })
  })
  const looks = yaml.split('\n').filter((line) => /#\s*look:/.test(line)).length
  return `${out}: ${operations.kept.length} operations. ${looks} comments say "look:"; then: keyless service check ${out}\n`
}

function nameOf(title: string): string {
  const name = title
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^[^a-z]+|-+$/g, '')
    .replace(/-?(?:rest-)?api$/, '')
  return name === '' || name === 'unmanaged' ? 'imported' : name
}

interface Parts {
  readonly api: Api
  readonly name: string
  readonly host: string | undefined
  readonly isInstance: boolean
  readonly operations: Imported
}

function serviceText({ api, name, host: own, isInstance, operations }: Parts): string {
  if (own === undefined)
    throw new Error('The document names no https server. Say where the API is: --host api.example.com.')
  const { slots, remarks } = slotsOf(api.schemes)
  const further = [...new Set(operations.kept.flatMap((one) => one.host ?? []))].filter((one) => one !== own)
  const document = new Document({
    name,
    title: api.title,
    hosts: isInstance ? [] : [own, ...further],
    ...(isInstance && { instance: own }),
    slots,
    operations: Object.fromEntries(operations.kept.map(({ id, body }) => [id, body])),
  })
  const elsewhere = [...new Set(api.servers.slice(1).map((server) => server.host))].filter(
    (one) => one !== own && !further.includes(one),
  )
  const aboutHosts = [
    ...(further.length > 0
      ? [`look: single operations are at ${further.join(', ')}, which get the credential too. Whose are they?`]
      : []),
    ...(elsewhere.length > 0
      ? [`look: further servers: ${elsewhere.join(', ')}. Add those where the same credential is valid.`]
      : []),
  ]
  if (aboutHosts.length > 0) comment(document.contents as YAMLMap, 'hosts', aboutHosts.join('\n '))
  comment(
    document.contents as YAMLMap,
    'slots',
    ['look: ours goes to the first; all others are places from which values of agents are removed.', ...remarks].join(
      '\n ',
    ),
  )
  const written = document.get('operations') as YAMLMap
  for (const { id, look } of operations.kept)
    if (look.length > 0) comment(written, id, look.map((one) => `look: ${one}`).join('\n '))
  document.commentBefore = [
    ` ${printable(api.title)}, imported from its OpenAPI document. Access follows the method; sensitivity, credentials in answers and what cannot`,
    ' be undone are guesses by name. Look at every comment that says so, then merge operations that policies never tell apart.',
    ...operations.left.map((one) => ` look: left out: ${printable(one)}`),
  ].join('\n')
  return document.toString({ lineWidth: 0, flowCollectionPadding: false })
}

/** A comment above a key. Texts of the document never leave their line. */
function comment(map: YAMLMap, key: string, text: string): void {
  const pair = map.items.find((item) => (item.key as Scalar).value === key) as Pair<Scalar, unknown> | undefined
  if (pair)
    pair.key.commentBefore = text
      .split('\n')
      .map((line) => ` ${printable(line.trim())}`)
      .join('\n')
}

/** Without control characters, and without those that turn the order of what a person reads. */
function printable(text: string): string {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]+/gu, ' ')
}

/** In the order in which the document demands them. Schemes that are demanded together are parts of one credential. */
function slotsOf(schemes: readonly Scheme[]): { slots: object[]; remarks: string[] } {
  const remarks: string[] = []
  const ordered = schemes.toSorted((a, b) => (a.demanded ?? 99) - (b.demanded ?? 99))
  const slots = ordered.flatMap((scheme) => {
    const slot = slotOf(scheme)
    if (slot === undefined) {
      remarks.push(
        `look: the scheme ${scheme.name} (${[scheme.type, scheme.detail].filter(Boolean).join(' ')}) has no slot.`,
      )
      return []
    }
    return [scheme.isOneOfMany ? { ...slot, part: partOf(scheme.name) } : slot]
  })
  if (slots.length === 0) remarks.push('look: no place for a credential was found, so none would be attached.')
  return {
    slots: slots.filter((slot, i) => slots.findIndex((one) => JSON.stringify(one) === JSON.stringify(slot)) === i),
    remarks,
  }
}

const BEARER = { in: 'header', name: 'authorization', prefix: 'Bearer ' }

function slotOf({ type, in: place, detail }: Scheme): object | undefined {
  if (type === 'oauth2' || type === 'openIdConnect') return BEARER
  if (type === 'mutualTLS') return { in: 'certificate' }
  if (type === 'basic') return { in: 'basic', username: 'keyless' }
  if (type === 'http') {
    if (detail === 'bearer') return BEARER
    return detail === 'basic' ? { in: 'basic', username: 'keyless' } : undefined
  }
  if (type !== 'apiKey' || detail === undefined) return undefined
  const isToken = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(detail)
  if (place === 'header' && isToken) return { in: 'header', name: detail.toLowerCase() }
  if (place === 'cookie' && isToken) return { in: 'cookie', name: detail }
  return place === 'query' ? { in: 'query', name: detail } : undefined
}

function partOf(name: string): string {
  const part = name
    .replace(/([a-z0-9])([A-Z])/g, '$1_$2')
    .toLowerCase()
    .replace(/[^a-z0-9_]+/g, '_')
    .replace(/^[^a-z]+/, '')
  return part === '' ? 'key' : part
}

async function requireValid(yaml: string, name: string): Promise<void> {
  const [{ loadCatalogue }, { readServiceText }, { PolicyFaults }] = await Promise.all([
    import('../../policy/catalogue/catalogue.ts'),
    import('../../policy/catalogue/service-file.ts'),
    import('../../policy/fault.ts'),
  ])
  const description = readServiceText(yaml, name)
  if (Array.isArray(description)) throw new PolicyFaults(description)
  await loadCatalogue({ services: [description], shippedDir: '', baseDir: '', atExamples: true })
}
