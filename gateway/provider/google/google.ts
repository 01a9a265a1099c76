/**
 * Google: a token of a service account, by its key or by federation, then by impersonation, then within an access boundary of Cloud
 * Storage: each step asked for once, none kept. `developers.google.com/identity/protocols/oauth2/service-account`,
 * `cloud.google.com/iam/docs/reference`.
 */
import { GatewayError } from '../../protocol/problem.ts'
import type { Credential, Provider } from '../provider.ts'
import { referenceIdentity } from '../reference.ts'
import { accessBoundary, parseStorageRole, storageRole } from './boundary.ts'
import type { GoogleConfig } from './schema.ts'
import {
  federatedToken,
  type GoogleTools,
  googleFar,
  impersonatedToken,
  keyToken,
  type Step,
  selfSignedToken,
  withinBoundary,
} from './token.ts'

/** Token that is only good for getting another one. */
const PLATFORM_SCOPE = 'https://www.googleapis.com/auth/cloud-platform'

export function createGoogle(config: GoogleConfig, tools: GoogleTools): Provider {
  const far = googleFar(config, tools)
  const { storage } = config
  return {
    name: 'google',
    narrows: storage === undefined ? 'scope' : 'resource',
    identity: identityOf(config),
    ...(storage !== undefined && { role: (endpoint, grant) => storageRole(endpoint, grant, storage) }),
    async issue(request, signal) {
      const step = { far, request, signal }
      if (config.self_signed) return selfSignedToken(step)
      return bounded(config, await tokenFor(config, step), step)
    },
    attach: (credential, outbound) => tools.placement.place(credential, outbound),
    derived: (credential, service) => tools.placement.derived(credential, service),
  }
}

async function tokenFor(config: GoogleConfig, step: Step): Promise<Credential> {
  // An access boundary is drawn around a token for the whole platform; then the boundary says what it can do.
  const scope = config.scope ?? PLATFORM_SCOPE
  const ownScope = config.impersonate === undefined ? scope : PLATFORM_SCOPE
  const own = await (config.federation === undefined
    ? keyToken(step, ownScope)
    : federatedToken(step, config.federation, ownScope))
  return config.impersonate === undefined ? own : impersonatedToken(step, own, scope)
}

async function bounded(config: GoogleConfig, token: Credential, step: Step): Promise<Credential> {
  if (config.storage === undefined) return token
  if (step.request.role === undefined)
    throw new GatewayError(
      'credential_unconfigured',
      'A token within an access boundary of Cloud Storage is issued for a call, and none is known.',
    )
  return withinBoundary(step, token, accessBoundary(parseStorageRole(step.request.role)))
}

function identityOf(config: GoogleConfig): string {
  return JSON.stringify([
    'google',
    config.key === undefined ? null : referenceIdentity(config.key),
    config.federation ?? null,
    config.scope?.split(' ').sort() ?? null,
    config.impersonate ?? null,
    config.delegates,
    config.self_signed,
    config.subject ?? null,
    config.storage ?? null,
    [config.token_url, config.sts_url, config.iam_url],
    config.addresses,
  ])
}
