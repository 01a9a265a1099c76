/**
 * Says what is wrong with a settings file: every problem with its place, what was found, what is allowed and what to write.
 * Never repeats a value that may be a secret written in the wrong place.
 */
import { type Document, isMap, isScalar, isSeq, type LineCounter } from 'yaml'
import type { z } from 'zod'
import { nearest } from '../protocol/nearest.ts'
import { branchesOf, type JsonNode, nodeAt, type Path, propertiesOf, valueAt } from './node.ts'

export interface SettingsProblem {
  /** Dotted place in the file; empty for the file as a whole. */
  readonly path: string
  /** One-based; undefined where the place is not in the file. */
  readonly line: number | undefined
  readonly got: string
  readonly allowed: string
  readonly fix: string
}

/** All problems of one settings file. The message is meant for a terminal. */
export class SettingsError extends Error {
  readonly file: string
  readonly problems: readonly SettingsProblem[]

  constructor(file: string, problems: readonly SettingsProblem[], options?: ErrorOptions) {
    const count = problems.length === 1 ? '1 problem' : `${problems.length} problems`
    super([`${file} has ${count}:`, ...problems.map((problem) => print(file, problem))].join('\n\n'), options)
    this.name = 'SettingsError'
    this.file = file
    this.problems = problems
  }
}

function print(file: string, problem: SettingsProblem): string {
  const place = `${file}${problem.line === undefined ? '' : `:${problem.line}`}`
  return [
    `  ${place}  ${problem.path}`.trimEnd(),
    `    got      ${problem.got}`,
    `    allowed  ${problem.allowed}`,
    `    fix      ${problem.fix}`,
  ].join('\n')
}

type Issue = z.core.$ZodIssue
type Place = (path: Path) => number | undefined

export function explainIssues(
  issues: readonly Issue[],
  written: unknown,
  schema: JsonNode,
  at: Place,
): SettingsProblem[] {
  return issues.flatMap((issue) => explain(issue, written, schema, at)).sort((a, b) => (a.line ?? 0) - (b.line ?? 0))
}

function explain(issue: Issue, written: unknown, schema: JsonNode, at: Place): SettingsProblem[] {
  const value = valueAt(written, issue.path)
  if (issue.code === 'unrecognized_keys') {
    const node = nodeAt(schema, written, issue.path)
    const known = [
      ...new Set([node ?? {}, ...branchesOf(node ?? {})].flatMap((branch) => Object.keys(propertiesOf(branch)))),
    ]
    return issue.keys.map((key) => unknownKey([...issue.path, key], known, at))
  }
  if (issue.code === 'invalid_union' && issue.errors.length > 0) {
    const inner = closest(issue.errors, value)
    if (inner !== undefined)
      return inner.flatMap((cause) =>
        explain({ ...cause, path: [...issue.path, ...cause.path] } as Issue, written, schema, at),
      )
  }
  const node = nodeAt(schema, written, issue.path)
  const advice = issue.code === 'custom' ? issue.params : undefined
  const path = issue.path.map(String).join('.')
  return [
    {
      path,
      line: at(issue.path),
      got: got(issue.path, value),
      allowed: typeof advice?.allowed === 'string' ? advice.allowed : allowed(issue, node),
      fix: typeof advice?.fix === 'string' ? advice.fix : fix(issue, value, node),
    },
  ]
}

/**
 * Of a union's alternatives, the one that the value came nearest to: it has a place for most of what is written, and got deepest before
 * it failed. Where it has no place for a key, that key is what is wrong, not the ones that it would have wanted. Undefined: none by shape.
 */
function closest(alternatives: readonly (readonly Issue[])[], value: unknown): readonly Issue[] | undefined {
  const depth = (issues: readonly Issue[]) =>
    Math.max(...issues.map((issue) => issue.path.length + (issue.code === 'custom' ? 1 : 0)), 0)
  const strangers = (issues: readonly Issue[]) =>
    issues.reduce((sum, issue) => sum + (issue.code === 'unrecognized_keys' ? issue.keys.length : 0), 0)
  const best = alternatives
    .filter((issues) => depth(issues) + strangers(issues) > 0)
    .sort((a, b) => strangers(a) - strangers(b) || depth(b) - depth(a))[0]
  if (best === undefined || strangers(best) === 0) return best
  return best.filter((issue) => valueAt(value, issue.path) !== undefined)
}

function unknownKey(path: Path, known: readonly string[], at: Place): SettingsProblem {
  const key = String(path.at(-1))
  const isKnown = known.includes(key)
  const meant = isKnown ? undefined : nearest(key, known)
  return {
    path: path.map(String).join('.'),
    line: at(path),
    got: isKnown ? 'a key too many beside the others' : 'an unknown key',
    allowed: known.length > 0 ? known.join(', ') : 'no keys here',
    fix: meant === undefined ? 'remove it' : `did you mean \`${meant}\`?`,
  }
}

/** What stands at a place, shown only where no secret can be meant. */
function got(path: Path, value: unknown): string {
  if (value === undefined) return 'nothing'
  if (value === null) return 'an empty value'
  const isSecretPlace =
    path[0] === 'redis' || path[0] === 'postgres' || (path[0] === 'credentials' && path.at(-1) !== 'provider')
  const guarded = isSecretPlace || (typeof value === 'string' && /:\/\/[^/]*@/.test(value)) // a URL with a password
  if (typeof value === 'string')
    return guarded ? 'a string (not shown)' : JSON.stringify(value.length > 80 ? `${value.slice(0, 80)}…` : value)
  if (Array.isArray(value)) return value.length === 0 ? 'an empty list' : 'a list'
  return typeof value === 'object' ? 'a mapping' : guarded ? `a ${typeof value} (not shown)` : String(value)
}

function allowed(issue: Issue, node: JsonNode | undefined): string {
  return shape(node) || issue.message
}

/** A JSON Schema node in words. */
function shape(node: JsonNode | undefined): string {
  if (node === undefined) return ''
  if (node.const !== undefined) return JSON.stringify(node.const)
  if (Array.isArray(node.enum)) return node.enum.map(String).join(', ')
  const branches = branchesOf(node)
  if (branches.length > 0) return [...new Set(branches.map(shape).filter((words) => words !== ''))].join(', or ')
  const range =
    node.minimum !== undefined && node.maximum !== undefined ? ` from ${node.minimum} to ${node.maximum}` : ''
  const length = typeof node.maxLength === 'number' ? ` of at most ${node.maxLength} characters` : ''
  const matching = typeof node.pattern === 'string' ? ` matching ${node.pattern}` : ''
  switch (node.type) {
    case 'integer':
      return `a whole number${range}`
    case 'number':
      return `a number${range}`
    case 'string':
      return `a string${length}${matching}`
    case 'boolean':
      return 'true or false'
    case 'array':
      return node.minItems === 1 ? 'a list with an entry or more' : 'a list'
    case 'object': {
      const keys = Object.keys(propertiesOf(node))
      const kind = Object.entries(propertiesOf(node)).find(([, property]) => property.const !== undefined)
      if (kind) return `a mapping with ${kind[0]}: ${String(kind[1].const)}`
      return keys.length > 0 ? `a mapping with ${keys.join(', ')}` : 'a mapping'
    }
    default:
      return ''
  }
}

function fix(issue: Issue, value: unknown, node: JsonNode | undefined): string {
  const key = String(issue.path.at(-1) ?? '')
  if (value === undefined) return `add \`${key}\``
  if (typeof value === 'string' && node?.type === 'integer') {
    const match = /^(\d+)\s*(ms|s|m|h)?$/.exec(value.trim())
    if (match) return `write ${amount(Number(match[1]), match[2], key)} without quotes or unit`
  }
  if (typeof value === 'string' && Array.isArray(node?.enum) && !node.enum.includes(value)) {
    const meant = nearest(value, node.enum.map(String))
    if (meant !== undefined) return `did you mean ${meant}?`
  }
  if (typeof value === 'string' && node?.type === 'boolean') return 'write true or false, without quotes'
  if (Array.isArray(value) && node?.type === 'string')
    return `write one text, not a list${key === 'scope' ? ', with spaces between the scopes' : ''}`
  // A schema that words its own error says what to write; the library's own words only repeat what is allowed.
  if (!/^(Invalid|Too|Unrecognized)\b/.test(issue.message)) return issue.message.replace(/^is /, `${key} is `)
  const about = node?.description
  return typeof about === 'string' ? `write an allowed value. ${about}` : 'write an allowed value'
}

const UNITS_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }

/** "15m" in the unit that the key's name ends with. */
function amount(count: number, unit: string | undefined, key: string): number {
  const own = key.endsWith('_ms') ? 'ms' : 's'
  return Math.round((count * (UNITS_MS[unit ?? own] ?? 1)) / (UNITS_MS[own] ?? 1))
}

/** Line of a key or list item, or of the nearest place above it that is in the file. */
export function lineOf(document: Document, lines: LineCounter, path: Path): number | undefined {
  let node: unknown = document.contents
  let offset: number | undefined
  for (const key of path) {
    if (isMap(node)) {
      const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === String(key))
      if (pair === undefined) break
      if (isScalar(pair.key) && pair.key.range) offset = pair.key.range[0]
      node = pair.value
    } else if (isSeq(node)) {
      node = node.items[Number(key)]
      const range = (node as { range?: readonly number[] } | undefined)?.range
      if (range?.[0] !== undefined) offset = range[0]
    } else break
  }
  return offset === undefined ? undefined : lines.linePos(offset).line
}
