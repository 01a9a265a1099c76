import { describe, expect, it } from 'vitest'
import {
  formatPathPattern,
  meetPaths,
  type PathPattern,
  parsePathPattern,
  pathIncludes,
  pathMatches,
} from '../../gateway/protocol/path-pattern.ts'

/** All lists of up to `most` elements. */
function lists(elements: readonly string[], most: number): string[][] {
  if (most === 0) return [[]]
  const shorter = lists(elements, most - 1)
  return [[], ...shorter.flatMap((list) => elements.map((element) => [element, ...list]))]
}

/** Every pattern of up to three segments over `a`, `b`, the empty segment and the wildcards. */
const patterns = [
  ...new Set(lists(['a', 'b', '', '*'], 3).flatMap((list) => [`/${list.join('/')}`, `/${[...list, '**'].join('/')}`])),
]
  .map((text) => parsePathPattern(text))
  .filter((pattern) => pattern !== undefined)
/** Every path of up to four segments; `c` stands for whatever no pattern names. */
const paths = lists(['a', 'b', 'c', ''], 4).filter((path) => path.length > 0)

const matched = new Map(patterns.map((pattern) => [pattern, paths.map((path) => pathMatches(pattern, path))]))

function matchesOf(pattern: PathPattern): readonly boolean[] {
  return matched.get(pattern) ?? paths.map((path) => pathMatches(pattern, path))
}

describe('path patterns', () => {
  it('are read and written alike', () => {
    for (const text of ['/', '/a', '/a/*', '/**', '/a/**', '//', '/a%2Fb/ü']) {
      const pattern = parsePathPattern(text)
      expect(pattern && formatPathPattern(pattern)).toBe(text)
    }
    for (const text of ['', 'a', '/a*', '/**/a', '/***', '/a/**/*', '*']) expect(parsePathPattern(text)).toBeUndefined()
  })

  it('include one another exactly when every path of the one is one of the other', () => {
    let included = 0
    for (const outer of patterns) {
      const theirs = matchesOf(outer)
      const faults = patterns.filter((inner) => {
        const own = matchesOf(inner)
        const expected = own.every((isMatch, i) => !isMatch || theirs[i])
        if (expected) included++
        return pathIncludes(outer, inner) !== expected
      })
      expect(faults.map(formatPathPattern), formatPathPattern(outer)).toEqual([])
    }
    expect(included).toBeGreaterThan(patterns.length * 2)
  }, 60_000)

  it('share exactly the paths that both match', () => {
    let shared = 0
    for (const a of patterns) {
      const faults = patterns.filter((b) => {
        const both = meetPaths(a, b)
        if (both) shared++
        const [as, bs, met] = [matchesOf(a), matchesOf(b), both && matchesOf(both)]
        return paths.some((_, i) => (as[i] && bs[i]) !== (met?.[i] ?? false))
      })
      expect(faults.map(formatPathPattern), formatPathPattern(a)).toEqual([])
    }
    expect(shared).toBeGreaterThan(patterns.length * 2)
  }, 60_000)
})
