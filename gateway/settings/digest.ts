/** Settings as the record names them: which ones were written, and a digest by which two files can be told apart. Never a value. */
import { hash } from 'node:crypto'
import canonicalize from 'canonicalize'

export interface WrittenDown {
  /** `sha256:` and base64url over the document as RFC 8785 JSON: comments and layout do not count, references are not followed. */
  readonly digest: string
  /** Settings in the file, two levels deep, sorted: `audit.durability`, `services`. All others have their defaults. */
  readonly names: readonly string[]
}

/** @param document the parsed file. */
export function writtenDown(document: unknown): WrittenDown {
  const digest = `sha256:${hash('sha256', canonicalize(document) ?? '', 'base64url')}`
  return { digest, names: namesIn(document, 2).toSorted() }
}

function namesIn(value: unknown, depth: number): string[] {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return []
  return Object.entries(value).flatMap(([name, inner]) => {
    const below = depth > 1 ? namesIn(inner, depth - 1) : []
    return below.length === 0 ? [name] : below.map((one) => `${name}.${one}`)
  })
}
