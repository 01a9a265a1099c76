/** On whose authority a credential is asked for, and from whom: made for each call that this process cannot serve at once. */
import type { KeyObject } from 'node:crypto'
import type { Permit } from '../policy/decision.ts'
import { DOWNSCOPES, isSingleUse } from '../protocol/decision.ts'
import type { Grant } from '../protocol/grant.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { Service } from '../protocol/service.ts'
import type { Provider } from '../provider/provider.ts'
import type { LeaseKey } from './cache.ts'
import { leaseKey } from './key.ts'

export interface Claim {
  readonly key: LeaseKey
  readonly grant: Grant
  readonly service: Service
  /** Name of the credential in settings. */
  readonly name: string
  readonly provider: Provider
  /** Seconds, from the policy's obligation. */
  readonly ttlS: number | undefined
  /** What `Provider.role` said of the call. */
  readonly role: string | undefined
}

/** What claims are made with. */
export interface Sources {
  /** By name in settings. */
  readonly providers: ReadonlyMap<string, Provider>
  /** Name → name of the credential that is asked for while its issuer is away. Without a cycle. */
  readonly fallbacks: ReadonlyMap<string, string>
  readonly macKey: KeyObject
}

/**
 * The claim on the service's credential, then on those that stand in for it while its issuer is away, each made when it is wanted.
 * @throws {GatewayError} `credential_unconfigured` when settings have no credential of the service's name; what `Provider.role` throws.
 */
export function* claimsOf(permit: Permit, sources: Sources): Generator<Claim, void> {
  const { credential } = permit.endpoint.service
  for (let name = credential; name !== undefined; name = sources.fallbacks.get(name))
    yield claimOn(name, permit, sources)
}

function claimOn(name: string, permit: Permit, { providers, macKey }: Sources): Claim {
  const { grant, endpoint, decision } = permit
  const { service } = endpoint
  const provider = providers.get(name)
  if (provider === undefined) throw unconfigured(service, name)
  requireNarrow(provider, permit)
  const { ttlS } = decision.obligations
  const role = provider.role?.(endpoint, grant)
  const authority = {
    tenant: grant.tenant,
    service: service.name,
    credential: name,
    provider: provider.name,
    identity: provider.identity,
    role,
    grant: grant.id,
    lineageHash: grant.lineageHash,
    singleUse: isSingleUse(decision),
    ttlS,
  }
  return { key: { id: leaseKey(authority, macKey), grant: grant.id }, grant, service, name, provider, ttlS, role }
}

/**
 * What policy obliges to (`@downscope`), before anything is taken from a cache: what lies there serves other calls too.
 * @throws {GatewayError} `credential_too_wide`
 */
export function requireNarrow({ name, narrows }: Provider, { endpoint, decision }: Permit): void {
  const { downscope: least } = decision.obligations
  if (least === undefined) return
  if (narrows !== 'none' && DOWNSCOPES.indexOf(narrows) >= DOWNSCOPES.indexOf(least)) return
  const can = narrows === 'none' ? 'does not narrow it at all' : `narrows it by ${narrows}`
  throw new GatewayError(
    'credential_too_wide',
    `Policy lets ${endpoint.operation.name} use only a credential that is narrowed by ${least}, and the provider ${name} ${can} as it is configured. Ask the operator of this gateway to configure one that does.`,
  )
}

function unconfigured(service: Service, name: string): GatewayError {
  const variable = Object.keys(service.placeholders)[0] ?? `${name.toUpperCase().replaceAll(/[^A-Z0-9]/g, '_')}_TOKEN`
  return new GatewayError(
    'credential_unconfigured',
    `Service ${service.name} needs credential "${name}", and settings have none at credentials.${name}. For example: credentials: { ${name}: { provider: static, value: { env: ${variable} } } }`,
  )
}
