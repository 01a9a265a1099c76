/**
 * All that a grant may do in one repository, as permissions of a GitHub App. Every level of the chain is asked: what one of them does
 * not cover is not in it. Conditions on time, budget and parameters are left to the gateway, which decides on every call. Pure.
 */
import { type Entry, entriesFor } from '../protocol/authority.ts'
import type { Authority, Grant, Sensitivity } from '../protocol/grant.ts'
import { formatPathPattern, meetPaths, type PathPattern, parsePathPattern } from '../protocol/path-pattern.ts'
import type { Operation, Service } from '../protocol/service.ts'
import { type GithubPermissions, union } from './github-permissions.ts'

/** Rising. */
const SENSITIVITIES: readonly Sensitivity[] = ['public', 'internal', 'confidential', 'restricted']

/** A grant lives as long as its calls, and asks for the same few repositories again and again. */
const known = new WeakMap<Grant, Map<string, GithubPermissions>>()

/** Repositories remembered for one grant. */
const MAX_KNOWN = 1000

/** @param place `owner/repository`, as the path spells them: path patterns of grants have case. */
export function permissionsWithin(place: string, service: Service, grant: Grant): GithubPermissions {
  const ofGrant = known.get(grant) ?? new Map<string, GithubPermissions>()
  known.set(grant, ofGrant)
  const key = `${service.name} ${place}`
  const before = ofGrant.get(key)
  if (before !== undefined) return before
  const reached = service.operations.filter((operation) => isReached(operation, place, service, grant))
  const permissions = union(...reached.map(({ permissions: named = {} }) => named as GithubPermissions))
  if (ofGrant.size < MAX_KNOWN) ofGrant.set(key, permissions)
  return permissions
}

/** A place within the repository, and whether only reading methods lead there. */
interface Ground {
  readonly path: PathPattern
  readonly isReadOnly: boolean
}

function isReached(operation: Operation, place: string, service: Service, grant: Grant): boolean {
  let grounds = [`/repos/${place}/**`, `/${place}/**`, `/${place}.git/**`].flatMap((text): Ground[] => {
    const path = parsePathPattern(text)
    return path === undefined ? [] : [{ path, isReadOnly: false }]
  })
  for (const authority of [...grant.ancestry.map((above) => above.authority), grant.authority])
    grounds = narrowed(grounds, authority, operation, service)
  return grounds.some(({ isReadOnly }) => !isReadOnly || operation.access === 'read')
}

function narrowed(
  grounds: readonly Ground[],
  authority: readonly Authority[],
  operation: Operation,
  service: Service,
): Ground[] {
  const next = new Map<string, Ground>()
  for (const entry of entriesFor(authority, operation.name)) {
    if (entry.needsApproval || !isMildEnough(operation, entry) || !isAtService(entry, service)) continue
    for (const ground of grounds) {
      for (const path of entry.paths?.flatMap((pattern) => meetPaths(ground.path, pattern) ?? []) ?? [ground.path]) {
        const isReadOnly = ground.isReadOnly || isReading(entry)
        next.set(`${isReadOnly} ${formatPathPattern(path)}`, { path, isReadOnly })
      }
    }
  }
  return [...next.values()]
}

function isMildEnough({ sensitivity }: Operation, { constraints }: Entry): boolean {
  const most = constraints?.sensitivity_max
  return most === undefined || SENSITIVITIES.indexOf(sensitivity) <= SENSITIVITIES.indexOf(most)
}

function isAtService({ origins }: Entry, { scheme, hosts }: Service): boolean {
  return origins === undefined || hosts.some((host) => [...origins].some((origin) => isAtHost(origin, scheme, host)))
}

function isAtHost(origin: string, scheme: string, host: string): boolean {
  const url = new URL(origin)
  return url.protocol === `${scheme}:` && url.hostname === host
}

function isReading({ actions }: Entry): boolean {
  return actions !== undefined && ['POST', 'PUT', 'PATCH', 'DELETE'].every((method) => !actions.has(method))
}
