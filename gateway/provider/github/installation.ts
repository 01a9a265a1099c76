/**
 * Which installation of the app a repository belongs to. Remembered for minutes by owner, because every token needs it: it is no
 * credential, and what GitHub answers to a token request is compared with the repository all the same.
 */
import { z } from 'zod'
import type { Clock } from '../../protocol/clock.ts'
import { GatewayError } from '../../protocol/problem.ts'
import type { Secret } from '../../protocol/secret.ts'
import { unavailable } from '../oauth/issuer-exchange.ts'
import type { GithubApi } from './api.ts'
import { GITHUB_LEVELS, type GithubPermissions } from './permissions.ts'
import type { GithubRole } from './role.ts'

export interface Installation {
  readonly id: number
  /** What the app may do there. Absent: not asked for. */
  readonly permissions?: GithubPermissions
  /** It was looked up some time ago. */
  readonly isRemembered?: boolean
}

type OwnedRole = GithubRole & { readonly owner: string }

interface Asked {
  readonly bearer: Secret
  readonly signal: AbortSignal
}

/** Milliseconds. An app that is installed anew gets another id; a token request that meets the old one forgets it at once. */
const REMEMBERED_MS = 600_000
const MAX_REMEMBERED = 1000

const level = z.enum(GITHUB_LEVELS)

const answered = z.object({
  id: z.int().positive(),
  account: z.object({ login: z.string() }),
  permissions: z.record(z.string(), z.string()),
  suspended_at: z.string().nullish(),
})

export function createInstallations(api: GithubApi, clock: Clock) {
  /** owner, or id → installation; oldest first */
  const remembered = new Map<string | number, { readonly found: Installation; readonly untilMs: number }>()

  function recall(key: string | number): Installation | undefined {
    const known = remembered.get(key)
    return known !== undefined && known.untilMs > clock.elapsedMs() ? { ...known.found, isRemembered: true } : undefined
  }

  function remember(key: string | number, found: Installation): Installation {
    remembered.delete(key)
    remembered.set(key, { found, untilMs: clock.elapsedMs() + REMEMBERED_MS })
    for (const oldest of remembered.keys()) {
      if (remembered.size <= MAX_REMEMBERED) break
      remembered.delete(oldest)
    }
    return found
  }

  return {
    async byOwner(role: OwnedRole, asked: Asked): Promise<Installation> {
      const known = recall(role.owner)
      if (known !== undefined) return known
      const { owner, repository } = role
      const path =
        repository === undefined ? `/orgs/${owner}/installation` : `/repos/${owner}/${repository}/installation`
      const { login, ...found } = await lookUp(api, path, asked)
      if (login !== owner)
        throw new GatewayError(
          'credential_rejected',
          `${api.name} named an installation that does not belong to ${owner}. Use the name that the owner has now.`,
        )
      return remember(owner, found)
    },
    async byId(id: number, asked: Asked): Promise<Installation> {
      const known = recall(id)
      if (known !== undefined) return known
      const { login: _login, ...found } = await lookUp(api, `/app/installations/${id}`, asked)
      return remember(id, found)
    },
    forget(id: number): void {
      for (const [key, { found }] of remembered) if (found.id === id) remembered.delete(key)
    },
  }
}

async function lookUp(api: GithubApi, path: string, asked: Asked): Promise<Installation & { readonly login: string }> {
  const { status, json } = await api.ask('GET', path, asked)
  if (status !== 200) throw unknown(api, status)
  const { success, data } = answered.safeParse(json)
  if (!success) throw unavailable(api.name, 'answered something that is not an installation')
  if (data.suspended_at) throw new GatewayError('credential_rejected', `The installation at ${api.name} is suspended.`)
  const permissions = Object.entries(data.permissions).flatMap(([name, text]) => {
    const parsed = level.safeParse(text)
    return parsed.success ? [[name, parsed.data] as const] : []
  })
  return { id: data.id, login: data.account.login.toLowerCase(), permissions: Object.fromEntries(permissions) }
}

function unknown(api: GithubApi, status: number): GatewayError {
  const advice: Readonly<Record<number, string>> = {
    301: 'the repository has another name now. Use that',
    401: 'it does not accept the JWT of the app. Check client_id or app_id, private_key, and the clock',
    404: 'the app is not installed there, or the repository does not exist',
  }
  return new GatewayError(
    'credential_rejected',
    `${api.name} named no installation: ${advice[status] ?? `it answered ${status}. Check api_url`}.`,
  )
}
