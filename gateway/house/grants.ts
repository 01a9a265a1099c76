/** The part of the composition root that knows who acts and for what: the issuers it trusts, and the grants. */
import { join } from 'node:path'
import { createGrants, type Grants } from '../grant/grants.ts'
import { openOrderKeep } from '../grant/store/sqlite-orders.ts'
import { createIdentities } from '../identity/identities.ts'
import type { Clock } from '../protocol/clock.ts'
import type { Settings } from '../settings.ts'
import type { Upstream } from '../upstream/forward.ts'
import type { Ground } from './ground.ts'

type GrantsOptions = Parameters<typeof createGrants>[0]

interface GrantParts
  extends Pick<Ground, 'store' | 'keys' | 'catalogue' | 'policies' | 'redis'>,
    Pick<GrantsOptions, 'serveOffline' | 'onEnded'> {
  /** Closes what is opened. */
  readonly opening: AsyncDisposableStack
  readonly upstream: Upstream
  readonly clock: Clock
}

export function openHouseGrants(settings: Settings, { serveOffline, onEnded, ...parts }: GrantParts) {
  const { opening, store, keys, catalogue, policies, clock } = parts
  const identities = buildIdentities(settings, parts)
  const grants: Grants = createGrants({
    tenant: settings.tenant,
    identities,
    chainKey: (root) => identities.chainKey(root),
    issuer: settings.publicUrl,
    signing: keys.grantKeys,
    storeKey: keys.store,
    store,
    keep: openKeep('orders.sqlite', settings, parts),
    endsKeep: openKeep('ends.sqlite', settings, parts),
    agents: policies.agents,
    knowsOperation: (pattern) => catalogue.knows(pattern),
    ...settings.grants,
    limits: settings.limits,
    policySet: () => policies.live.digest,
    countsPast: () => policies.live.countsPast,
    clock,
    serveOffline,
    onEnded,
  })
  opening.defer(() => grants.close())
  return { identities, grants }
}

type IdentityParts = Pick<GrantParts, 'upstream' | 'store' | 'keys' | 'clock'>

/** Keys of issuers are fetched through the guarded dial; what may be shown once is remembered where grants are. */
function buildIdentities({ trust, publicUrl, tenant }: Settings, { upstream, store, keys, clock }: IdentityParts) {
  return createIdentities({
    trust,
    issuer: publicUrl,
    fetchFor: (addresses) => upstream.fetchFor(addresses),
    once: (name, untilMs) => store.once(tenant, name, untilMs),
    clock,
    nonceKey: keys.record,
  })
}

/** What this replica knows of orders and ends, for when a shared store has lost them, or could not take them. */
function openKeep(file: string, { dataDir }: Settings, { redis, opening }: Pick<GrantParts, 'redis' | 'opening'>) {
  if (redis === undefined) return undefined
  return opening.adopt(openOrderKeep(join(dataDir, file)), async (keep) => keep.close())
}
