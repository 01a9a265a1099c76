/** Where the answer of an operation seems to hold a credential, by the names in its schema. A guess: people look at it. */
import { asObject, follow, type Json } from './openapi.ts'

const SECRET =
  /^(?:.*_)?(?:access_?token|refresh_?token|id_?token|auth_?token|bearer_?token|session_?token|token|secret|client_?secret|secret_?key|api_?key|access_?key|private_?key|signing_?key|password|passphrase|credentials?)(?:_value)?$/i
/** Tokens that open nothing: places in a list, kinds, counts. */
const NO_SECRET =
  /page|next|continuation|cursor|sync|resume|offset|_type$|_count$|_id$|usage|max_|limit|count_|prompt|completion/i
const DEEPEST = 6
const MOST = 12
/** Schemas of one operation: some documents nest without end. */
const MOST_SCHEMAS = 5000

interface Place {
  readonly schema: unknown
  readonly pointer: string
  readonly depth: number
}

/** @returns JSON pointers with `*` for members and elements, each once, at most twelve. */
export function secretsIn(root: Json, schemas: readonly unknown[]): string[] {
  const found = new Set<string>()
  const open: Place[] = schemas.map((schema) => ({ schema, pointer: '', depth: 0 }))
  for (let i = 0; i < open.length && i < MOST_SCHEMAS && found.size < MOST; i++) {
    const { schema, pointer, depth } = open[i] as Place
    const node = asObject(follow(root, schema))
    if (node === undefined || depth > DEEPEST) continue
    for (const [name, member] of Object.entries(asObject(node.properties) ?? {})) {
      const below = `${pointer}/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`
      if (isSecret(name, follow(root, member))) found.add(below)
      else open.push({ schema: member, pointer: below, depth: depth + 1 })
    }
    open.push(
      ...within(node).map(([inner, step]) => ({ schema: inner, pointer: `${pointer}${step}`, depth: depth + 1 })),
    )
  }
  return [...found]
}

/** Schemas inside one, and the step that leads there. */
function within(node: Json): [unknown, string][] {
  const parts = ['allOf', 'anyOf', 'oneOf'].flatMap((key) => (Array.isArray(node[key]) ? (node[key] as unknown[]) : []))
  const members = [node.items, asObject(node.additionalProperties)].filter((one) => one !== undefined)
  return [
    ...parts.map((part): [unknown, string] => [part, '']),
    ...members.map((one): [unknown, string] => [one, '/*']),
  ]
}

function isSecret(name: string, schema: unknown): boolean {
  const snake = name.replace(/([a-z0-9])([A-Z])/g, '$1_$2').replaceAll('-', '_')
  if (!isText(schema) || asObject(schema)?.writeOnly === true || NO_SECRET.test(snake)) return false
  return SECRET.test(snake) || asObject(schema)?.format === 'password'
}

/** In OpenAPI 3.1 a type may be a list. */
function isText(schema: unknown): boolean {
  const type = asObject(schema)?.type
  return type === 'string' || (Array.isArray(type) && type.includes('string'))
}
