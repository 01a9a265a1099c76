/**
 * All that a grant may do in one repository, as permissions of a GitHub App. Every level of the chain is asked: what one of them does
 * not cover is not in it. Conditions on time, budget and parameters are left to the gateway, which decides on every call. Pure.
 */
import { type Entry, entriesFor } from '../../protocol/authority.ts'
import { SENSITIVITIES } from '../../protocol/constraint.ts'
import type { Authority, Grant } from '../../protocol/grant.ts'
import { formatPathPattern, meetPaths, type PathPattern } from '../../protocol/path-pattern.ts'
import type { Operation, Service } from '../../protocol/service.ts'
import { type GithubPermissions, union } from './permissions.ts'

/** A grant lives as long as its calls, and asks for the same few repositories again and again. */
const known = new WeakMap<Grant, Map<string, GithubPermissions>>()

/** Repositories remembered for one grant. */
const MAX_KNOWN = 1000

/** A repository as the path spells it: path patterns of grants have case. */
export interface Place {
  readonly owner: string
  readonly repository: string
}

export function permissionsWithin(place: Place, service: Service, grant: Grant): GithubPermissions {
  const ofGrant = known.get(grant) ?? new Map<string, GithubPermissions>()
  known.set(grant, ofGrant)
  const key = `${service.name} ${place.owner}/${place.repository}`
  const before = ofGrant.get(key)
  if (before !== undefined) return before
  const reached = service.operations.filter((operation) => isReached(operation, place, service, grant))
  const permissions = union(...reached.map(({ permissions: named = {} }) => named as GithubPermissions))
  if (ofGrant.size < MAX_KNOWN) ofGrant.set(key, permissions)
  return permissions
}

/** Requests of one method at one place. */
interface Ground {
  readonly method: string
  /** Of the service's hosts; undefined: any. */
  readonly host: string | undefined
  readonly path: PathPattern
}

function isReached(operation: Operation, place: Place, service: Service, grant: Grant): boolean {
  const levels = [...grant.ancestry.map(({ authority }) => authority), grant.authority]
  return (operation.match ?? []).some((text) => {
    const ground = groundOf(text, place, service)
    return ground !== undefined && isCovered(ground, levels, operation, service)
  })
}

function isCovered(
  ground: Ground,
  levels: readonly (readonly Authority[])[],
  operation: Operation,
  service: Service,
): boolean {
  let paths = [ground.path]
  for (const authority of levels) {
    const next = new Map<string, PathPattern>()
    for (const entry of entriesFor(authority, operation.name)) {
      if (!isOpen(entry, ground, operation, service)) continue
      for (const met of paths.flatMap((path) => meets(path, entry))) next.set(formatPathPattern(met), met)
    }
    paths = [...next.values()]
  }
  return paths.length > 0
}

function isOpen(entry: Entry, { method, host }: Ground, operation: Operation, service: Service): boolean {
  // What somebody has to approve first is not in what the grant has anyway.
  const isApproved = entry.approval === 'none' || entry.approval === 'notify'
  if (!isApproved || (entry.actions !== undefined && !entry.actions.has(method))) return false
  return isMildEnough(operation, entry) && isAt(entry, service, host)
}

function meets(path: PathPattern, { paths }: Entry): PathPattern[] {
  return paths === undefined ? [path] : paths.flatMap((pattern) => meetPaths(path, pattern) ?? [])
}

const FORM = /^([A-Z]+) ([^/\s?]*)(\/[^\s?]*)/

/** Where the requests of a `match` are once they are in the repository; undefined for those that are in none. */
function groundOf(text: string, { owner, repository }: Place, service: Service): Ground | undefined {
  const [, method = '', host = '', path = ''] = FORM.exec(text) ?? []
  if (!path.includes('/{owner}/{repo}')) return undefined
  const segments = path
    .replace('/{owner}/{repo}', `/${owner}/${repository}`)
    .slice(1)
    .split('/')
    .map((segment) => (segment.startsWith('{') ? '*' : segment))
  const known = host === '' ? service.hosts[0] : host === '*' ? undefined : host
  return { method, host: known, path: { segments, hasTail: path.includes('**') } }
}

function isMildEnough({ sensitivity }: Operation, { constraints }: Entry): boolean {
  const most = constraints?.sensitivity_max
  return most === undefined || SENSITIVITIES.indexOf(sensitivity) <= SENSITIVITIES.indexOf(most)
}

function isAt({ origins }: Entry, { scheme, hosts }: Service, host: string | undefined): boolean {
  if (origins === undefined) return true
  const allowed = host === undefined ? hosts : [host]
  return [...origins].some((origin) => {
    const url = new URL(origin)
    return url.protocol === `${scheme}:` && allowed.includes(url.hostname)
  })
}
