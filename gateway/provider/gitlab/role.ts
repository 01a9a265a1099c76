/**
 * What a token of GitLab is for: a project or group, a scope and a role there. Scope and role come from the operation
 * (`permissions: { scope: read_api, role: reporter }` in the service file), the place from the path. Pure.
 */
import { GatewayError } from '../../protocol/problem.ts'
import type { Endpoint } from '../../protocol/service.ts'

/** docs.gitlab.com, "Project access tokens API": `access_level`. */
const ACCESS_LEVELS: Readonly<Record<string, number>> = {
  guest: 10,
  planner: 15,
  reporter: 20,
  developer: 30,
  maintainer: 40,
  owner: 50,
}

export interface GitlabRole {
  readonly kind: 'projects' | 'groups'
  /** Number, or full path in lower case: GitLab's paths have no case. */
  readonly id: string
  readonly scope: string
  readonly accessLevel: number
}

/** One part of a full path. */
const PART = /^[A-Za-z0-9_][A-Za-z0-9_.-]*$/

/** @throws {GatewayError} `credential_unconfigured` without scope, role or place; `path_ambiguous` for a name that is none. */
export function gitlabRole({ params, operation, path }: Endpoint, group: string | undefined): string {
  const { scope, role = '' } = operation.permissions ?? {}
  const accessLevel = Object.hasOwn(ACCESS_LEVELS, role) ? ACCESS_LEVELS[role] : undefined
  if (scope === undefined || accessLevel === undefined)
    throw new GatewayError(
      'credential_unconfigured',
      `Operation ${operation.name} names no scope and role for a token of GitLab: it needs a user, or nobody has said. Name them in the service file (permissions: { scope: read_api, role: reporter }).`,
    )
  const [kind, id] = placeOf(path, params, group)
  return JSON.stringify([kind, id, scope, accessLevel])
}

export function parseGitlabRole(text: string): GitlabRole {
  const [kind, id, scope, accessLevel] = JSON.parse(text) as [GitlabRole['kind'], string, string, number]
  return { kind, id, scope, accessLevel }
}

function placeOf(path: string, params: Endpoint['params'], group: string | undefined): [GitlabRole['kind'], string] {
  if (params.id !== undefined && path.startsWith('/api/v4/projects/')) return ['projects', placeId(params.id, 2)]
  if (params.id !== undefined && path.startsWith('/api/v4/groups/')) return ['groups', placeId(params.id, 1)]
  // git over HTTPS: /group/subgroup/project.git
  if (params.project !== undefined) {
    const parts = [params.group, params.subgroup, params.subgroup2, params.project]
    return ['projects', placeId(parts.filter((part) => part !== undefined).join('/'), 2)]
  }
  if (group !== undefined) return ['groups', group.toLowerCase()]
  throw new GatewayError(
    'credential_unconfigured',
    'The call names neither a project nor a group, so no token of one can serve it. Set group, or send the call with the id of a project.',
  )
}

/** @param text a number, or a path whose slashes may be encoded. @param least parts that such a path has. */
function placeId(text: string, least: number): string {
  if (/^[1-9][0-9]{0,18}$/.test(text)) return text
  const parts = text.replaceAll(/%2f/gi, '/').split('/')
  if (parts.length >= least && parts.every((part) => PART.test(part)) && !/\.(?:git|atom)$/i.test(text))
    return parts.join('/').toLowerCase()
  throw new GatewayError(
    'path_ambiguous',
    'The project or group in the path is no number and no full path that GitLab gives. Send the number, or the path as it is in the address bar, with %2F for slashes.',
  )
}
