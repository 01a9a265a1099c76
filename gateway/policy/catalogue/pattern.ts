/**
 * The pattern by which a service file says which requests are an operation: `GET /repos/{owner}/{repo}`,
 * `GET github.com/{owner}/{repo}.git/info/refs?service=git-upload-pack`. Parsed once, when the catalogue loads.
 */

export type Segment =
  | { readonly kind: 'literal'; readonly text: string }
  /** `{name}` one segment; `{name}.git` one that ends so; `{name+}` one that may hold `%2F`. */
  | { readonly kind: 'one'; readonly name: string; readonly suffix: string; readonly mayHoldSlash: boolean }
  /** `{name**}` the rest, at least one segment; `{name**+}` with empty segments and `%2F` too. Last segment only. */
  | { readonly kind: 'rest'; readonly name: string; readonly mayHoldSlash: boolean }

export interface RequestPattern {
  readonly method: string
  /** Host that the pattern names; `*` for every host of the service; undefined for its first one. */
  readonly host: string | undefined
  readonly segments: readonly Segment[]
  /** Query parameters that must be there exactly once with exactly this value; `*`: with any. */
  readonly query: readonly (readonly [name: string, value: string])[]
  /** What else must be said. */
  readonly condition: Condition | undefined
}

/** For APIs whose requests say outside of the path what they ask for: in a field, or in a form. */
export interface Condition {
  readonly in: 'header' | 'form'
  /** Of a header in lower case. */
  readonly name: string
  /** Exact; with `*` at its end, how it begins; `*`: whatever it is. */
  readonly value: string
}

export const PATTERN_FORM =
  'METHOD [host]/path, with {name} for a segment, {name+} for one that may hold %2F, {name**} for the rest, ?name=value for the query (?name=* for any), and behind it: with Field-Name: value, or with Name=value in a form'

const SHAPE = /^([A-Z]+) ([^/\s?]*)(\/[^\s?]*)(?:\?(\S+))?(?: with (\S+(?: \S+)?))?$/
const FIELD = /^([A-Za-z0-9-]+):(?: (\S+))?$/
const FORM_FIELD = /^([A-Za-z0-9_.-]+)=(\S+)$/
const VARIABLE = /^\{([a-z][a-z0-9_]*)(\*\*)?(\+)?\}([A-Za-z0-9._:-]*)$/
const LITERAL = /^[A-Za-z0-9._~!$&'()*+,=:@-]+$/

/** @returns the parsed pattern, or what is wrong with it. */
export function parsePattern(text: string): RequestPattern | string {
  const shape = SHAPE.exec(text)
  if (shape === null) return 'it is not of this form'
  const [, method = '', host = '', path = '', query, told] = shape
  const condition = told === undefined ? undefined : parseCondition(told)
  if (told !== undefined && condition === undefined)
    return `${JSON.stringify(told)} is neither a field nor a form field`
  const segments: Segment[] = []
  const parts = path === '/' ? [] : path.slice(1).split('/')
  for (const [i, part] of parts.entries()) {
    const segment = parseSegment(part)
    if (segment === undefined) return `the segment ${JSON.stringify(part)} is not of this form`
    if (segment.kind === 'rest' && i !== parts.length - 1) return `{${segment.name}**} is not the last segment`
    segments.push(segment)
  }
  const names = segments.flatMap((segment) => (segment.kind === 'literal' ? [] : [segment.name]))
  if (new Set(names).size !== names.length) return 'a name stands in it twice'
  return {
    method,
    host: host === '' ? undefined : host,
    segments,
    query: query === undefined ? [] : [...new URLSearchParams(query)],
    condition,
  }
}

function parseCondition(text: string): Condition | undefined {
  const [, header, is = '*'] = FIELD.exec(text) ?? []
  if (header !== undefined) return { in: 'header', name: header.toLowerCase(), value: is }
  const [, name, value = ''] = FORM_FIELD.exec(text) ?? []
  return name === undefined ? undefined : { in: 'form', name, value }
}

function parseSegment(part: string): Segment | undefined {
  const variable = VARIABLE.exec(part)
  if (variable === null)
    return LITERAL.test(part) && part !== '.' && part !== '..' ? { kind: 'literal', text: part } : undefined
  const [, name = '', rest, plus, suffix = ''] = variable
  if (rest === undefined) return { kind: 'one', name, suffix, mayHoldSlash: plus !== undefined }
  return suffix === '' ? { kind: 'rest', name, mayHoldSlash: plus !== undefined } : undefined
}
