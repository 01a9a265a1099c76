/** Lists of what is allowed, against one another: one row per kind of element says what lies in what and what two share. Pure. */
import { isOperationPattern, parseOrigin, patternCovers } from '../../protocol/authority.ts'
import { type Cidr, cidrIncludes, formatCidr, parseCidr } from '../../protocol/cidr.ts'
import {
  formatPathPattern,
  meetPaths,
  type PathPattern,
  parsePathPattern,
  pathIncludes,
} from '../../protocol/path-pattern.ts'

/** How elements of one kind are read and compared. */
interface Kind<T> {
  /** Undefined: the element allows nothing, and nothing is said about what it includes. */
  read(text: string): T | undefined
  write(element: T): string
  includes(outer: T, inner: T): boolean
  /** What both allow. */
  meet(a: T, b: T): T | undefined
}

export type ListName = 'operations' | 'actions' | 'locations' | 'paths' | 'source' | 'geo'

const words: Kind<string> = nested((text) => text, String, Object.is)

const kinds: Readonly<Record<ListName, Kind<unknown>>> = {
  operations: erased(nested((text) => (isOperationPattern(text) ? text : undefined), String, patternCovers)),
  actions: erased(words),
  locations: erased(nested(parseOrigin, String, Object.is)),
  // Two patterns may overlap without one lying in the other: `/a/*` and `/*/b` share `/a/b`.
  paths: erased<PathPattern>({
    read: parsePathPattern,
    write: formatPathPattern,
    includes: pathIncludes,
    meet: meetPaths,
  }),
  source: erased(nested<Cidr>(parseCidr, formatCidr, cidrIncludes)),
  geo: erased(words),
}

/** Elements of the child's list that lie in no single element of the parent's. */
export function widerIn(name: ListName, parent: readonly string[], child: readonly string[]): readonly string[] {
  const kind = kinds[name]
  const outer = parent.flatMap((text) => kind.read(text) ?? [])
  return child.filter((text) => {
    const inner = kind.read(text)
    return inner === undefined || !outer.some((one) => kind.includes(one, inner))
  })
}

/** What each pair of elements shares, once. An element of the child that lies in one of the parent's stays as it is. */
export function sharedOf(name: ListName, parent: readonly string[], child: readonly string[]): readonly string[] {
  const kind = kinds[name]
  const theirs = parent.flatMap((text) => kind.read(text) ?? [])
  const shared = child.flatMap((text) => {
    const own = kind.read(text)
    if (own === undefined) return []
    if (theirs.some((one) => kind.includes(one, own))) return [text]
    return theirs.flatMap((one) => {
      const both = kind.meet(one, own)
      return both === undefined ? [] : [kind.write(both)]
    })
  })
  return [...new Set(shared)]
}

/** A kind of which two elements share nothing unless one lies in the other. */
function nested<T>(read: Kind<T>['read'], write: Kind<T>['write'], includes: Kind<T>['includes']): Kind<T> {
  const meet = (a: T, b: T) => {
    if (includes(a, b)) return b
    return includes(b, a) ? a : undefined
  }
  return { read, write, includes, meet }
}

/** Elements never leave the kind that read them. */
function erased<T>(kind: Kind<T>): Kind<unknown> {
  return kind as Kind<unknown>
}
