/**
 * GitLab has no tokens of minutes: what it makes by API ends at a date. So a project or group access token with the scope and role
 * that the call needs is made for the task and revoked at its end; unrevoked, it ends at midnight.
 */
import { z } from 'zod'
import type { Clock } from '../../protocol/clock.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { Secret } from '../../protocol/secret.ts'
import { exchange, type IssuerAnswer, isPassing, unavailable } from '../oauth/issuer-exchange.ts'
import type { Placement } from '../placement/placement.ts'
import type { Credential, FetchFor, IssueRequest, Provider } from '../provider.ts'
import { type ReadSecret, referenceIdentity } from '../reference.ts'
import { type GitlabRole, gitlabRole, parseGitlabRole } from './role.ts'
import type { GitlabConfig } from './schema.ts'

interface GitlabTools {
  readonly fetchFor: FetchFor
  readonly clock: Clock
  readonly readSecret: ReadSecret
  readonly placement: Placement
}

const DAY_S = 86_400

/** Seconds that have to be left before midnight, besides what the call may take; with less, the token ends a day later. */
const LEAST_LEFT_S = 60
const LONGEST_USE_S = 3600

export function createGitlab(config: GitlabConfig, tools: GitlabTools): Provider {
  const gitlab = instance(config, tools)
  return {
    name: 'gitlab',
    narrows: 'resource',
    identity: identityOf(config),
    role: (endpoint) => gitlabRole(endpoint, config.group),
    issue: (request, signal) => issue(gitlab, request, signal),
    attach: (credential, outbound) => tools.placement.place(credential, outbound),
    derived: (credential, service) => tools.placement.derived(credential, service),
    revoke: (credential, signal) => revoke(gitlab, credential, signal),
  }
}

interface Instance {
  readonly name: string
  readonly clock: Clock
  /** @param path below `/api/v4`. */
  ask(method: 'POST' | 'DELETE', path: string, signal: AbortSignal, body?: unknown): Promise<IssuerAnswer>
}

function instance(config: GitlabConfig, { fetchFor, clock, readSecret }: GitlabTools): Instance {
  const base = config.url.replace(/\/+$/, '')
  const name = `GitLab at ${new URL(base).host}`
  const fetch = fetchFor(config.addresses)
  return {
    name,
    clock,
    async ask(method, path, signal, body) {
      const token = await readSecret(config.token, signal)
      const headers = { Accept: 'application/json', 'PRIVATE-TOKEN': token.reveal(), 'User-Agent': 'keyless' }
      const answer = await exchange(fetch, name, { url: `${base}/api/v4${path}`, method, headers, body, signal })
      if (isPassing(answer.status)) throw unavailable(name, `answered ${answer.status}`, answer.retryAfterMs)
      return answer
    },
  }
}

/** Members that are not looked at are ignored. */
const answered = z.object({
  id: z.int().positive(),
  token: z.string().min(1),
  scopes: z.array(z.string()),
  access_level: z.int(),
  expires_at: z.iso.date(),
})

async function issue(gitlab: Instance, request: IssueRequest, signal: AbortSignal): Promise<Credential> {
  if (request.role === undefined)
    throw new GatewayError('credential_unconfigured', 'A token of GitLab is issued for a call, and none is known.')
  const role = parseGitlabRole(request.role)
  const endsAtS = midnightAfter(gitlab.clock.nowMs() / 1000 + Math.min(request.ttlS, LONGEST_USE_S) + LEAST_LEFT_S)
  const expiresOn = new Date(endsAtS * 1000).toISOString().slice(0, 10)
  const body = {
    // Shown in the project's list of members and tokens: the lineage at the upstream.
    name: `keyless ${request.grant.task.id}`.slice(0, 100),
    scopes: [role.scope],
    access_level: role.accessLevel,
    expires_at: expiresOn,
  }
  const path = `/${role.kind}/${encodeURIComponent(role.id)}/access_tokens`
  const answer = await gitlab.ask('POST', path, signal, body)
  if (answer.status < 200 || answer.status > 299) throw refused(answer.status, gitlab, role)
  // A page of something in between is none of GitLab's: it may be gone the next time.
  const { success, data } = answered.safeParse(answer.status === 201 ? answer.json : undefined)
  if (!success) throw unavailable(gitlab.name, 'answered something that is not a token')
  const credential = {
    secret: new Secret(data.token),
    // Who issued it, and as what, is needed again to end it.
    parts: { path: new Secret(`${path}/${data.id}`) },
    // An instance may allow no more than an earlier day.
    expiresAt: Math.min(endsAtS, Date.parse(data.expires_at) / 1000),
    ephemeral: true,
    scope: `${role.id} ${role.scope} ${role.accessLevel}`,
  }
  const isWider =
    data.scopes.some((scope) => scope !== role.scope) ||
    data.access_level > role.accessLevel ||
    data.expires_at > expiresOn
  if (!isWider) return credential
  await revoke(gitlab, credential, signal).catch(() => undefined)
  throw new GatewayError(
    'credential_too_wide',
    `${gitlab.name} gave a token with more scope, a higher role or a later end than was asked for. It was revoked.`,
  )
}

/** "Project access tokens expire on the date you define, at midnight UTC." @returns epoch seconds. */
function midnightAfter(nowS: number): number {
  return (Math.floor(nowS / DAY_S) + 1) * DAY_S
}

async function revoke(gitlab: Instance, { parts }: Credential, signal: AbortSignal): Promise<void> {
  if (parts?.path === undefined) throw new Error('a token of GitLab has lost its id')
  const { status } = await gitlab.ask('DELETE', parts.path.reveal(), signal)
  // 404: it has ended already.
  if (status !== 204 && status !== 404)
    throw unavailable(gitlab.name, `answered ${status} when a token was to be revoked`)
}

function refused(status: number, { name }: Instance, { id, kind, scope, accessLevel }: GitlabRole): GatewayError {
  const what = kind === 'projects' ? `project ${id}` : `group ${id}`
  const advice: Readonly<Record<number, string>> = {
    400: `it does not give scope ${scope} with access level ${accessLevel} at ${what}, or not until tomorrow. Check the instance's limits`,
    401: 'it does not accept the token that settings name. Make a new one with scope api',
    403: `the token that settings name may not make others at ${what}. It needs scope api, and its owner the role Maintainer; project access tokens must be allowed`,
    404: `the owner of the token that settings name does not see ${what}`,
  }
  return new GatewayError(
    'credential_rejected',
    `${name} gave no token: ${advice[status] ?? `it answered ${status}. Check url`}.`,
  )
}

function identityOf(config: GitlabConfig): string {
  return JSON.stringify(['gitlab', config.url, config.addresses, referenceIdentity(config.token), config.group ?? null])
}
