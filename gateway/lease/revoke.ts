/** End a credential at its issuer, where the issuer offers it, and record how that went. */
import type { Clock } from '../protocol/clock.ts'
import type { Grant } from '../protocol/grant.ts'
import type { Provider } from '../provider/provider.ts'
import type { Stored } from './cache.ts'
import type { RecordLease, Unused } from './issue.ts'
import type { Seal } from './seal.ts'

/** No provider issued it, and none can end it: an upstream answered with it. */
export const CAPTURED = { name: 'captured' } as const

/** A value that was removed with its grant, as what can be revoked; undefined when it does not open or nobody can revoke it. */
export function openPurged(
  { key, value }: Stored,
  grant: Grant,
  { seal, providers }: { readonly seal: Seal; readonly providers: ReadonlyMap<string, Provider> },
): Unused | undefined {
  const opened = seal.open(key.id, value)
  const provider = opened && (opened.name === '' ? CAPTURED : providers.get(opened.name))
  if (opened === undefined || provider === undefined) return undefined
  const claim = { name: opened.name, provider, grant }
  const { secret, parts, expiresAt, ephemeral } = opened
  const credentialId = seal.credentialId(secret)
  return {
    claim,
    credential: { secret, ...(parts && { parts }), expiresAt, ephemeral },
    credentialId,
    reason: 'grant_ended',
  }
}

/** Milliseconds that one revocation may take. */
const REVOKE_TIMEOUT_MS = 5_000

/** Never rejects: failure is recorded, and the credential ends by expiring. */
export async function revokeUnused(
  { claim, credential, credentialId, reason }: Unused,
  { record, clock }: { readonly record: RecordLease; readonly clock: Clock },
): Promise<void> {
  const startedMs = clock.elapsedMs()
  const outcome = await revokeUpstream(claim.provider, credential)
  const fields = {
    provider: claim.provider.name,
    credential: claim.name,
    ...(claim.service && { service: claim.service.name }),
    cred_id: credentialId,
    ephemeral: credential.ephemeral,
    // A standing key has no end.
    expires: Number.isFinite(credential.expiresAt) ? Math.floor(credential.expiresAt) : null,
    reason,
    /** `revoked` at its issuer; `failed` to be; `expires`: nobody can revoke it. */
    outcome,
    ms: Math.round(clock.elapsedMs() - startedMs),
  }
  await record('lease.revoked', claim.grant, fields).catch(() => undefined)
}

async function revokeUpstream(
  provider: Unused['claim']['provider'],
  credential: Unused['credential'],
): Promise<'revoked' | 'failed' | 'expires'> {
  if (provider.revoke === undefined || !credential.ephemeral) return 'expires'
  const signal = AbortSignal.timeout(REVOKE_TIMEOUT_MS)
  try {
    const late = new Promise<never>((_, fail) =>
      signal.addEventListener('abort', () => fail(signal.reason), { once: true }),
    )
    await Promise.race([provider.revoke(credential, signal), late])
    return 'revoked'
  } catch {
    return 'failed'
  }
}
