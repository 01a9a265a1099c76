/**
 * What a token is for: a repository and the permissions that the call needs there, taken from the operation (`permissions` in the
 * service file) and the path. Pure. With `per: grant` the permissions are those of everything that the grant may do in that
 * repository; that reckoning is in `reach.ts`.
 */
import type { Grant } from '../../protocol/grant.ts'
import { GatewayError } from '../../protocol/problem.ts'
import type { Endpoint, Operation } from '../../protocol/service.ts'
import { type GithubLevel, type GithubPermissions, isWithin, union } from './permissions.ts'
import { permissionsWithin } from './reach.ts'

export interface GithubRole {
  /** Lower case: GitHub's names have no case. Absent: the call names nobody, and `installation_id` says whose it is. */
  readonly owner?: string
  /** Lower case. Absent: every repository of the installation. */
  readonly repository?: string
  readonly permissions: GithubPermissions
}

export interface RoleTerms {
  readonly per: 'call' | 'grant'
  readonly otherwise?: GithubPermissions | undefined
}

/** A user or organisation, managed users with their `_shortcode` included. */
const OWNER = /^[A-Za-z0-9](?:[A-Za-z0-9_-]{0,98}[A-Za-z0-9])?$/
const REPOSITORY = /^[A-Za-z0-9._-]{1,100}$/

/** @throws {GatewayError} `credential_unconfigured` for an operation without permissions, `path_ambiguous` for a name that is none. */
export function githubRole(endpoint: Endpoint, grant: Grant, terms: RoleTerms): string {
  const { params, operation } = endpoint
  const owner = params.owner ?? params.org
  const repository = params.owner === undefined ? undefined : params.repo
  if (owner !== undefined && !OWNER.test(owner)) throw strange('owner')
  if (repository !== undefined && !isRepository(repository)) throw strange('repository')
  const own = permissionsOf(operation, terms)
  const permissions =
    terms.per === 'grant' && owner !== undefined && repository !== undefined
      ? union(own, permissionsWithin({ owner, repository }, endpoint.service, grant))
      : own
  return formatRole({
    ...(owner !== undefined && { owner: owner.toLowerCase() }),
    ...(repository !== undefined && { repository: repository.toLowerCase() }),
    permissions,
  })
}

/** Canonical: permissions sorted by name. */
function formatRole({ owner, repository, permissions }: GithubRole): string {
  const sorted = Object.entries(permissions).sort(([a], [b]) => (a < b ? -1 : 1))
  return JSON.stringify([owner ?? null, repository ?? null, sorted])
}

/** Undoes `formatRole`. */
export function parseRole(text: string): GithubRole {
  const [owner, repository, sorted] = JSON.parse(text) as [string | null, string | null, [string, GithubLevel][]]
  return {
    ...(owner !== null && { owner }),
    ...(repository !== null && { repository }),
    permissions: Object.fromEntries(sorted),
  }
}

function permissionsOf(operation: Operation, { otherwise }: RoleTerms): GithubPermissions {
  const named = operation.permissions as GithubPermissions | undefined
  if (named !== undefined && Object.values(named).every((level) => isWithin(level, 'admin'))) return named
  if (named === undefined && otherwise !== undefined) return otherwise
  throw new GatewayError(
    'credential_unconfigured',
    `Operation ${operation.name} has no permissions of a GitHub App: it needs a user, or nobody has said what it needs. Name them in the service file (permissions: { contents: read }), or as otherwise of the credential.`,
  )
}

/** GitHub takes `.git` off a name in some places and not in others. */
function isRepository(name: string): boolean {
  return REPOSITORY.test(name) && name !== '.' && name !== '..' && !/\.git$/i.test(name)
}

function strange(what: string): GatewayError {
  return new GatewayError(
    'path_ambiguous',
    `The ${what} in the path is no name that GitHub gives. Send the plain name, without .git and without encoded characters.`,
  )
}
