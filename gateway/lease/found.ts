/** Sealed values of the shared cache as credentials that can be ended. */
import type { Grant } from '../protocol/grant.ts'
import type { Provider } from '../provider/provider.ts'
import type { Stored } from './cache.ts'
import { issuerOf } from './revocations.ts'
import { CAPTURED, type Reason, type Unused } from './revoke.ts'
import type { Seal } from './seal.ts'

interface Openers {
  readonly seal: Seal
  readonly providers: ReadonlyMap<string, Provider>
}

/** Undefined when it does not open: another key sealed it, or it is not what it says. */
export function openStored(
  { key, value }: Stored,
  of: { readonly grant: Grant; readonly reason: Reason },
  { seal, providers }: Openers,
): Unused | undefined {
  const opened = seal.open(key.id, value)
  if (opened === undefined) return undefined
  const { name, identity, service, secret, parts, expiresAt, ephemeral } = opened
  const configured = providers.get(name)
  const provider = name === '' ? CAPTURED : issuerOf(configured, configured?.name ?? 'unknown', identity)
  return {
    claim: { name, provider, grant: of.grant, service: { name: service } },
    credential: { secret, ...(parts && { parts }), expiresAt, ephemeral },
    credentialId: seal.credentialId(secret),
    reason: of.reason,
  }
}
