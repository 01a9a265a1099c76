/**
 * Path patterns of `keyless_access` (LG/1 §1.5): literal segments, `*` for one segment that is not empty, `**` as the tail for
 * the place itself and everything below it. The grammar is this small so that "lies within" is decided, not guessed. Pure.
 */

export interface PathPattern {
  readonly segments: readonly string[]
  readonly hasTail: boolean
}

/** Undefined when the text is outside the grammar; such a pattern matches nothing. */
export function parsePathPattern(text: string): PathPattern | undefined {
  if (!text.startsWith('/')) return undefined
  const segments = text.slice(1).split('/')
  const hasTail = segments.at(-1) === '**'
  if (hasTail) segments.pop()
  return segments.every((segment) => segment === '*' || !segment.includes('*')) ? { segments, hasTail } : undefined
}

export function formatPathPattern({ segments, hasTail }: PathPattern): string {
  return `/${[...segments, ...(hasTail ? ['**'] : [])].join('/')}`
}

/** @param path segments of a canonical path */
export function pathMatches({ segments, hasTail }: PathPattern, path: readonly string[]): boolean {
  if (hasTail ? path.length < segments.length : path.length !== segments.length) return false
  for (let i = 0; i < segments.length; i++) {
    const wanted = segments[i]
    if (wanted === '*' ? path[i] === '' : path[i] !== wanted) return false
  }
  return true
}

/** Whether every path that `inner` matches is matched by `outer`. Exact. */
export function pathIncludes(outer: PathPattern, inner: PathPattern): boolean {
  // A `*` of the inner pattern is a segment that only a `*` of the outer one can match, so it can stand as it is.
  return (outer.hasTail || !inner.hasTail) && pathMatches(outer, inner.segments)
}

/** The pattern of the paths that both match, or undefined when there are none. Exact. */
export function meetPaths(a: PathPattern, b: PathPattern): PathPattern | undefined {
  const [long, short] = a.segments.length >= b.segments.length ? [a, b] : [b, a]
  if (long.segments.length > short.segments.length && !short.hasTail) return undefined
  const segments: string[] = []
  for (let i = 0; i < long.segments.length; i++) {
    const segment = meetSegments(
      long.segments[i] ?? '',
      i < short.segments.length ? (short.segments[i] ?? '') : undefined,
    )
    if (segment === undefined) return undefined
    segments.push(segment)
  }
  return { segments, hasTail: long.hasTail && short.hasTail }
}

/** @param b undefined under a tail, which any segment may follow */
function meetSegments(a: string, b: string | undefined): string | undefined {
  if (b === undefined || a === b) return a
  if (a === '*') return b === '' ? undefined : b
  if (b === '*') return a === '' ? undefined : a
  return undefined
}
