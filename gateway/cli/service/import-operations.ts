/** Operations of an OpenAPI document as a service file has them, one to one, with what a person should look at. */
import type { Api, ApiOperation, Json } from './openapi.ts'
import { secretsIn } from './openapi-secrets.ts'

export interface ImportedOperation {
  readonly id: string
  readonly host: string | undefined
  /** As the service file has it. */
  readonly body: Json
  readonly look: readonly string[]
}

export interface Imported {
  readonly kept: readonly ImportedOperation[]
  /** What a service file cannot say, one sentence each. */
  readonly left: readonly string[]
}

/** @param isInstance the hosts are each customer's own: what is elsewhere is left out. */
export function importedOperations(api: Api, root: Json, isInstance: boolean): Imported {
  const kept: ImportedOperation[] = []
  const left: string[] = []
  const places = new Map<string, string>()
  const ids = new Set<string>(['unlisted'])
  for (const operation of api.operations) {
    const path = patternOf(operation.path)
    const at = `${operation.method} ${operation.path}`
    if (path === undefined || (isInstance && operation.host !== undefined)) {
      left.push(
        `${at}: ${path === undefined ? 'its path cannot be written as a pattern' : `it is at ${operation.host}`}`,
      )
      continue
    }
    const shape = `${operation.method} ${operation.host ?? ''}${path.replace(/\{[^}]*?(\*\*)?\}/g, '{$1}')}`
    const owner = places.get(shape)
    if (owner !== undefined) {
      left.push(`${at}: the same place as ${owner}`)
      continue
    }
    const id = freeId(idOf(operation), ids)
    places.set(shape, id)
    kept.push(described(operation, { id, path, root }))
  }
  return { kept, left }
}

interface Placed {
  readonly id: string
  readonly path: string
  readonly root: Json
}

const SAFE = ['GET', 'HEAD', 'OPTIONS']

function described(operation: ApiOperation, { id, path, root }: Placed): ImportedOperation {
  const { method, host, answers, isOpen, summary } = operation
  const captures = secretsIn(root, answers)
  const isSecret = captures.length > 0
  const look: string[] = []
  if (isSecret) look.push(`its answer seems to hold a credential at ${captures.join(', ')}: right, and complete?`)
  else if (SOUNDS_SECRET.test(path))
    look.push('it sounds as if its answer held a credential: then returns_secret: true and captures')
  if (method === 'DELETE') look.push('taken for irreversible: false where it can be undone')
  if (method === 'POST' && /search|query|list|lookup|validate|preview/i.test(path)) look.push('perhaps only a read')
  const sensitivity = isSecret ? 'restricted' : sensitivityOf(path, isOpen && SAFE.includes(method))
  return {
    id,
    host,
    look: summary !== undefined && look.length > 0 ? [`${look.join('; ')} (${summary})`] : look,
    body: {
      match: [`${method} ${host ?? ''}${path}`],
      access: isSecret || /(?:^|\/)admin(?:\/|$)/i.test(path) ? 'admin' : SAFE.includes(method) ? 'read' : 'write',
      ...(sensitivity !== undefined && { sensitivity }),
      ...(isSecret ? { returns_secret: true, captures } : SOUNDS_SECRET.test(path) && { returns_secret: false }),
      ...(method === 'DELETE' && { irreversible: true }),
    },
  }
}

const SOUNDS_SECRET = /(?:tokens?|secrets?|passwords?|credentials?|api[-_]?keys?|access[-_]?keys?)(?:\/\{[^}]+\})?$/i

function sensitivityOf(path: string, isOpen: boolean): string | undefined {
  if (/admin|audit|payroll|salar|medical|patient|health-?record|ssn|card|bank|payout/i.test(path)) return 'restricted'
  if (
    /user|member|contact|customer|people|person|employee|message|mail|phone|address|invoice|payment|file|document|attachment/i.test(
      path,
    )
  )
    return 'confidential'
  return isOpen ? 'public' : undefined
}

/** `/pets/{petId}/photo.{ext}` → `/pets/{pet_id}/{photo_ext}`; undefined where no pattern says it. */
function patternOf(written: string): string | undefined {
  if (/[?#;\s]/.test(written)) return undefined
  const used = new Map<string, number>()
  const parts = written.split('/').filter((part) => part !== '')
  const segments = parts.map((part, i) => {
    if (!part.includes('{'))
      return /^[A-Za-z0-9._~!$&'()*+,=:@-]+$/.test(part) && !/^\.{1,2}$/.test(part) ? part : undefined
    const isRest = /\*\}$|^\{\+/.test(part) && i === parts.length - 1
    const [, variable = '', ending = ''] = /^\{([^{}]+)\}([A-Za-z0-9._:-]*)$/.exec(part) ?? []
    const name = unused(nameOf(variable === '' ? part : variable), used)
    return `{${name}${isRest ? '**' : ''}}${isRest || variable === '' ? '' : ending}`
  })
  return segments.includes(undefined) ? undefined : `/${segments.join('/')}`
}

function nameOf(text: string): string {
  const name = snake(text)
    .replace(/[^a-z0-9_]+/g, '_')
    .replace(/^[^a-z]+|_+$/g, '')
  return name === '' ? 'part' : name
}

function snake(text: string): string {
  return text.replace(/([a-z0-9])([A-Z])/g, '$1_$2').toLowerCase()
}

function unused(name: string, used: Map<string, number>): string {
  const count = (used.get(name) ?? 0) + 1
  used.set(name, count)
  return count === 1 ? name : `${name}_${count}`
}

const VERBS: Readonly<Record<string, string>> = {
  GET: 'read',
  HEAD: 'head',
  OPTIONS: 'options',
  POST: 'create',
  PUT: 'replace',
  PATCH: 'update',
  DELETE: 'delete',
}

/** Resource first, so that `pets.*` names all there is about pets. */
function idOf({ id, tag, method, path }: ApiOperation): string {
  const words = path.split('/').filter((part) => part !== '' && !part.includes('{') && !/^v\d+$|^api$/i.test(part))
  const own = (id ?? '').replaceAll('/', '.')
  if (own.includes('.')) return dotted(own.split('.'))
  if (own !== '') return dotted([tag ?? words[0] ?? 'api', own])
  const isOne = path.replace(/\/+$/, '').endsWith('}')
  return dotted([
    ...(words.length > 0 ? words : ['api']),
    method === 'GET' && !isOne ? 'list' : (VERBS[method] ?? method),
  ])
}

function dotted(words: readonly string[]): string {
  const clean = words
    .map((word) => word.replace(/[^A-Za-z0-9_-]+/g, '_').replace(/^_+|_+$/g, ''))
    .filter((word) => word !== '')
  return clean.length > 0 ? clean.map((word, i) => (i === 0 ? snake(word) : word)).join('.') : 'api.call'
}

function freeId(id: string, taken: Set<string>): string {
  let free = id
  for (let n = 2; taken.has(free); n++) free = `${id}_${n}`
  taken.add(free)
  return free
}
