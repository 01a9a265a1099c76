/**
 * GitHub Apps: for each repository and the permissions of the call an installation access token of its own. The app signs a JWT,
 * which is good for asking alone. docs.github.com: "Generating an installation access token for a GitHub App".
 */
import { SignJWT } from 'jose'
import type { Clock } from '../../protocol/clock.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { Secret } from '../../protocol/secret.ts'
import { keptKey } from '../jwt-key.ts'
import { unavailable } from '../oauth/issuer-exchange.ts'
import type { Placement } from '../placement/placement.ts'
import type { Credential, FetchFor, IssueRequest, Provider } from '../provider.ts'
import { type ReadSecret, referenceIdentity } from '../reference.ts'
import { rsaPrivateKey } from '../rsa-key.ts'
import { type GithubApi, githubApi } from './api.ts'
import { createInstallations, type Installation } from './installation.ts'
import { type GithubPermissions, intersection } from './permissions.ts'
import { type GithubRole, githubRole, parseRole } from './role.ts'
import type { GithubAppConfig } from './schema.ts'
import { excessOf, readToken } from './token.ts'

export interface GithubTools {
  readonly fetchFor: FetchFor
  readonly clock: Clock
  readonly readSecret: ReadSecret
  readonly placement: Placement
}

/** "Installation tokens expire one hour from the time you create them." Seconds. */
const TOKEN_LIFE_S = 3600

/** "The time must be no more than 10 minutes into the future"; iat a minute back, for clocks that differ. Seconds. */
const JWT_LIFE_S = 540
const JWT_LEEWAY_S = 60

export function createGithubApp(config: GithubAppConfig, tools: GithubTools): Provider {
  const api = githubApi(config.api_url, tools.fetchFor(config.addresses), tools.clock)
  const installations = createInstallations(api, tools.clock)
  return {
    name: 'github_app',
    narrows: 'resource',
    identity: identityOf(config),
    role: (endpoint, grant) => githubRole(endpoint, grant, config),
    issue: (request, signal) => issue({ config, tools, api, installations }, request, signal),
    attach: (credential, outbound) => tools.placement.place(credential, outbound),
    derived: (credential, service) => tools.placement.derived(credential, service),
    revoke: (credential, signal) => revoke(api, credential.secret, signal),
  }
}

interface Issuing {
  readonly config: GithubAppConfig
  readonly tools: GithubTools
  readonly api: GithubApi
  readonly installations: ReturnType<typeof createInstallations>
}

async function issue(issuing: Issuing, request: IssueRequest, signal: AbortSignal): Promise<Credential> {
  const { config, tools, api } = issuing
  if (request.role === undefined)
    throw new GatewayError(
      'credential_unconfigured',
      'A token of a GitHub App is issued for a call, and none is known.',
    )
  const role = parseRole(request.role)
  const jwt = await appJwt(config, tools, signal)
  const installation = await installationFor(issuing, role, { bearer: jwt, signal })
  const permissions = atMost(role.permissions, installation, config.per)
  // To GitHub no permissions mean all that the installation has.
  if (Object.keys(permissions).length === 0)
    throw refused(422, { api, role, permissions: role.permissions, installation })
  const askedAtS = Math.floor(tools.clock.nowMs() / 1000)
  const body = { permissions, ...(role.repository !== undefined && { repositories: [role.repository] }) }
  const path = `/app/installations/${installation.id}/access_tokens`
  const answer = await api.ask('POST', path, { bearer: jwt, body, signal })
  if (answer.status !== 201) {
    if (answer.status === 404) issuing.installations.forget(installation.id)
    throw refused(answer.status, { api, role, permissions, installation })
  }
  const token = readToken(answer.json)
  if (token === undefined) throw unavailable(api.name, 'answered something that is not a token')
  const excess = excessOf(token, { ...role, permissions })
  if (excess !== undefined) {
    await revoke(api, token.secret, signal).catch(() => undefined)
    throw new GatewayError(
      'credential_too_wide',
      `${api.name} gave a token ${excess}. Look at what installation ${installation.id} is for, and use the name that the repository has now.`,
    )
  }
  // Counted from before the request by our clock, and never beyond what GitHub says by its own.
  return {
    secret: token.secret,
    expiresAt: Math.min(token.expiresAtS, askedAtS + TOKEN_LIFE_S),
    ephemeral: true,
    scope: scopeOf(role, permissions),
  }
}

/** RFC 7515 with RS256, the only algorithm that GitHub takes. */
async function appJwt(config: GithubAppConfig, tools: GithubTools, signal: AbortSignal): Promise<Secret> {
  const pem = (await tools.readSecret(config.private_key, signal)).reveal()
  const key = keptKey(config, pem, () => rsaPrivateKey(pem, 'private_key of the GitHub App'))
  const nowS = Math.floor(tools.clock.nowMs() / 1000)
  const jwt = await new SignJWT({})
    .setProtectedHeader({ alg: 'RS256', typ: 'JWT' })
    .setIssuer(config.client_id ?? String(config.app_id))
    .setIssuedAt(nowS - JWT_LEEWAY_S)
    .setExpirationTime(nowS + JWT_LIFE_S)
    .sign(key)
  return new Secret(jwt)
}

function installationFor(
  { config, installations }: Issuing,
  role: GithubRole,
  asked: { readonly bearer: Secret; readonly signal: AbortSignal },
): Promise<Installation> | Installation {
  const { installation_id: id, per } = config
  // What an installation has bounds what a whole grant could use; for one call, asking for it says the same.
  if (id !== undefined) return per === 'call' ? { id } : installations.byId(id, asked)
  if (role.owner !== undefined) return installations.byOwner({ ...role, owner: role.owner }, asked)
  throw new GatewayError(
    'credential_unconfigured',
    'The call names neither a repository nor an organisation, so nobody knows whose installation it is for. Set installation_id.',
  )
}

/** For one call all of it is needed, and GitHub says what is missing. */
function atMost(
  permissions: GithubPermissions,
  { permissions: bound }: Installation,
  per: GithubAppConfig['per'],
): GithubPermissions {
  return bound === undefined || per === 'call' ? permissions : intersection(permissions, bound)
}

/** RFC 7009 in GitHub's form: "Revokes the installation token you're using to authenticate". */
async function revoke(api: GithubApi, token: Secret, signal: AbortSignal): Promise<void> {
  const { status } = await api.ask('DELETE', '/installation/token', { bearer: token, signal })
  // 401: it has ended already.
  if (status !== 204 && status !== 401) throw unavailable(api.name, `answered ${status} when a token was to be revoked`)
}

interface Refused {
  readonly api: GithubApi
  readonly role: GithubRole
  readonly permissions: GithubPermissions
  readonly installation: Installation
}

function refused(status: number, { api, role, permissions, installation }: Refused): GatewayError {
  if (status === 404 && installation.isRemembered === true)
    return unavailable(api.name, `does not know installation ${installation.id} any more`)
  const asked = scopeOf(role, permissions)
  const advice: Readonly<Record<number, string>> = {
    401: 'it does not accept the JWT of the app. Check client_id or app_id, private_key, and the clock',
    403: `installation ${installation.id} is suspended, or is not one of this app`,
    404: `this app has no installation ${installation.id}. Correct installation_id, or leave it out`,
    422: `installation ${installation.id} does not have ${asked}. Install the app on the repository, and allow it these permissions`,
  }
  return new GatewayError(
    'credential_rejected',
    `${api.name} gave no token: ${advice[status] ?? `it answered ${status}. Check api_url`}.`,
  )
}

/** `acme/site contents:read issues:write`; the owner and nothing more, or `*`, where the call names no repository. */
function scopeOf({ owner, repository }: GithubRole, permissions: GithubPermissions): string {
  const place = repository === undefined ? (owner ?? '*') : `${owner}/${repository}`
  return [place, ...Object.entries(permissions).map(([name, level]) => `${name}:${level}`)].join(' ')
}

function identityOf(config: GithubAppConfig): string {
  return JSON.stringify([
    'github_app',
    config.api_url,
    config.addresses,
    config.client_id ?? config.app_id,
    referenceIdentity(config.private_key),
    config.installation_id ?? null,
    config.per,
    Object.entries(config.otherwise ?? {}).sort(),
  ])
}
