/** From claims to agent and attributes, as the issuer's row of settings says. Exact values only: no pattern, no prefix. */
import { type Claims, textOf } from './jwt.ts'
import { isRecord } from './key-set.ts'
import type { Refuse } from './refuse.ts'

/** A claim by its name, or by a JSON pointer (RFC 6901). */
function claimAt(claims: Claims, path: string): unknown {
  if (!path.startsWith('/')) return Object.hasOwn(claims, path) ? claims[path] : undefined
  const keys = path
    .slice(1)
    .split('/')
    .map((key) => key.replaceAll('~1', '/').replaceAll('~0', '~'))
  return keys.reduce<unknown>(
    (inner, key) => (isRecord(inner) && Object.hasOwn(inner, key) ? inner[key] : undefined),
    claims,
  )
}

/** Numbers and booleans as JSON writes them: ids come as either. */
export function scalarAt(claims: Claims, path: string): string | undefined {
  const value = claimAt(claims, path)
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean'
    ? String(value)
    : undefined
}

interface Row {
  readonly match: Readonly<Record<string, string | undefined>>
  readonly agent: string
}

/** Agent of the first row all of whose values are equal. */
export function agentOf(rows: readonly Row[], read: (name: string) => string | undefined, refuse: Refuse): string {
  const row = rows.find(({ match }) =>
    Object.entries(match).every(([name, value]) => value === undefined || read(name) === value),
  )
  if (row !== undefined) return row.agent
  throw refuse('no row under `agents` of its issuer fits its claims; add one to the settings part trust')
}

/**
 * Attribute → value. A claim that is absent leaves its attribute out; one that is there must be a short text, number or
 * boolean, because a policy that forbids by an attribute must not be fooled by one that vanished.
 */
export function attributesOf(
  paths: Readonly<Record<string, string>>,
  claims: Claims,
  refuse: Refuse,
): Readonly<Record<string, string>> {
  const present = Object.entries(paths).filter(([, path]) => claimAt(claims, path) !== undefined)
  const values = Object.fromEntries(present.map(([name, path]) => [name, scalarAt(claims, path)]))
  return Object.fromEntries(present.map(([name]) => [name, textOf(values, name, refuse)]))
}
