/** What GitHub answers when it is asked for an installation access token, and whether that is more than was asked for. */
import { z } from 'zod'
import { Secret } from '../../protocol/secret.ts'
import { type GithubPermissions, isWithin } from './permissions.ts'
import type { GithubRole } from './role.ts'

/** Members that are not looked at are ignored. The token is opaque and of any length: GitHub changed both in 2026. */
const answered = z.object({
  token: z.string().min(1),
  expires_at: z.iso.datetime({ offset: true }),
  permissions: z.record(z.string(), z.string()).optional(),
  repositories: z.array(z.object({ full_name: z.string() })).optional(),
})

export interface GithubToken {
  readonly secret: Secret
  /** Epoch seconds. */
  readonly expiresAtS: number
  readonly permissions: Readonly<Record<string, string>> | undefined
  /** `owner/repository`, lower case. */
  readonly repositories: readonly string[] | undefined
}

/** Undefined when it is no token. */
export function readToken(json: unknown): GithubToken | undefined {
  const { success, data } = answered.safeParse(json)
  if (!success) return undefined
  return {
    secret: new Secret(data.token),
    expiresAtS: Math.floor(Date.parse(data.expires_at) / 1000),
    permissions: data.permissions,
    repositories: data.repositories?.map(({ full_name }) => full_name.toLowerCase()),
  }
}

/** @returns what the token has beyond the role, in words of our own; undefined when it has nothing beyond. */
export function excessOf(token: GithubToken, role: GithubRole): string | undefined {
  if (token.permissions === undefined) return 'without saying what it may do'
  if (!Object.entries(token.permissions).every(([name, level]) => isAsked(name, level, role.permissions)))
    return 'with permissions that were not asked for'
  if (role.repository === undefined) return undefined
  const wanted = `${role.owner}/${role.repository}`
  if (token.repositories === undefined) return 'without saying for which repositories'
  if (token.repositories.length !== 1 || token.repositories[0] !== wanted)
    return `for other repositories than ${wanted}`
  return undefined
}

/** "Metadata: read" comes with every permission that a repository has; nobody asks for it. */
function isAsked(name: string, level: string, asked: GithubPermissions): boolean {
  return (name === 'metadata' && level === 'read') || (Object.hasOwn(asked, name) && isWithin(level, asked[name]))
}
