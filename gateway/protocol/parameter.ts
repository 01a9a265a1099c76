/**
 * One value of a request under the name by which a constraint asks for it: `query.state`, `body./labels/0`. The upstream must
 * not read another value than we do (standards.md H32), so a name that occurs twice in the eyes of any common reader is refused.
 */

export type Parameter =
  | { readonly place: 'query'; readonly name: string }
  /** Reference tokens of a JSON pointer (RFC 6901), unescaped; none: the whole body. */
  | { readonly place: 'body'; readonly pointer: readonly string[] }

/** What of a request parameters are read from. */
export interface Readable {
  /** Path and query as received. */
  readonly rawPath: string
  /** Parsed JSON; absent when there is none or it was not read. */
  readonly body?: unknown
}

export type Found = { readonly value: unknown } | { readonly fault: string }

const BODY_KEY = /^body\.((?:\/(?:[^~/]|~[01])*)*)$/

/** Undefined unless the key is `query.` and a name, or `body.` and a JSON pointer. */
export function parseParameter(key: string): Parameter | undefined {
  if (key.startsWith('query.') && key.length > 6) return { place: 'query', name: key.slice(6) }
  const pointer = BODY_KEY.exec(key)?.[1]
  if (pointer === undefined) return undefined
  const tokens = pointer.split('/').slice(1)
  return { place: 'body', pointer: tokens.map((token) => token.replaceAll('~1', '/').replaceAll('~0', '~')) }
}

export function readParameter(parameter: Parameter, request: Readable): Found {
  return parameter.place === 'query' ? readQuery(parameter.name, request) : readBody(parameter.pointer, request.body)
}

/** Of a parameter that nobody finds in the request. */
export const ABSENT: Found = { fault: 'is absent' }
const TWICE: Found = { fault: 'occurs more than once, or under a second spelling that some servers take for it' }
const UNREADABLE: Found = { fault: 'cannot be read in one way only from this query; percent-encode it' }

/** Names decoded, values as received: only those that are asked for need decoding. Undefined: some name cannot be read. */
type Query = readonly { readonly name: string; readonly folded: string; readonly raw: string }[] | undefined

/** One request is asked for several parameters at several levels of its chain. */
const queries = new WeakMap<Readable, { readonly query: Query }>()

function readQuery(name: string, request: Readable): Found {
  let known = queries.get(request)
  if (known === undefined) {
    known = { query: parseQuery(request.rawPath) }
    queries.set(request, known)
  }
  if (known.query === undefined) return UNREADABLE
  if (known.query.length === 0) return ABSENT
  const wanted = fold(name)
  const found = known.query.filter(({ folded }) => isOneVariable(folded, wanted))
  const [only] = found
  if (only === undefined) return ABSENT
  if (found.length > 1 || only.name !== name) return TWICE
  const value = decode(only.raw)
  return value === undefined ? UNREADABLE : { value }
}

/** Whether some common reader of queries and forms takes a parameter of this name for the one that is wanted. Both decoded. */
export function isReadAs(name: string, wanted: string): boolean {
  const [own] = name.split('\0', 1)
  return isOneVariable(fold(own ?? ''), fold(wanted))
}

/** `filter` and `filter[state]` are one variable to PHP, Rails and qs; the later one replaces or joins the earlier. */
function isOneVariable(a: string, b: string): boolean {
  return a === b || a.startsWith(`${b}[`) || b.startsWith(`${a}[`)
}

function parseQuery(rawPath: string): Query {
  const mark = rawPath.indexOf('?')
  const text = mark === -1 ? '' : rawPath.slice(mark + 1)
  // Some servers split at `;` too, and some stop at `#`.
  if (/[^\x21-\x7e]|[;#]/.test(text)) return undefined
  const pairs = []
  for (const pair of text.split('&')) {
    if (pair === '') continue
    const equals = pair.indexOf('=')
    const name = decode(equals === -1 ? pair : pair.slice(0, equals))
    if (name === undefined || /\p{Cc}/u.test(name)) return undefined
    pairs.push({ name, folded: fold(name), raw: equals === -1 ? '' : pair.slice(equals + 1) })
  }
  return pairs
}

/** As forms are decoded (WHATWG URL §5.1), but broken escapes and broken UTF-8 are no value. */
function decode(text: string): string | undefined {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '))
  } catch {
    return undefined
  }
}

/**
 * Equal for spellings that some readers take for one name: ASP.NET and Go ignore case, PHP trims and writes `_` for a dot, a space or a
 * bracket that is never closed.
 */
function fold(name: string): string {
  const plain = foldCase(name).trim().replaceAll(/[. ]/g, '_')
  const open = plain.indexOf('[')
  return open > 0 && !plain.includes(']', open) ? plain.replace('[', '_') : plain
}

/** Over upper case, so that `ſ` and `K` (Kelvin), which Go folds, become `s` and `k`. */
export function foldCase(name: string): string {
  return name.toUpperCase().toLowerCase()
}

function readBody(pointer: readonly string[], body: unknown): Found {
  let value = body
  for (const token of pointer) {
    if (Array.isArray(value)) value = /^(?:0|[1-9]\d{0,8})$/.test(token) ? value[Number(token)] : undefined
    else if (typeof value === 'object' && value !== null) {
      // Go's encoding/json takes the last key that is equal but for case: one that is spelled otherwise is there for it.
      const alike = Object.keys(value).filter((key) => foldCase(key) === foldCase(token))
      if (alike.some((key) => key !== token)) return TWICE
      value = alike.length === 1 ? (value as Record<string, unknown>)[token] : undefined
    } else return ABSENT
  }
  return value === undefined ? ABSENT : { value }
}
