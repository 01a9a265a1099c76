/** End a credential at its issuer, where the issuer offers it, and record how that went. */
import type { RecordLease, Unused } from './issue.ts'

/** Milliseconds that one revocation may take. */
const REVOKE_TIMEOUT_MS = 5_000

/** Never rejects: failure is recorded, and the credential ends by expiring. */
export async function revokeUnused(
  { claim, credential, credentialId, reason }: Unused,
  record: RecordLease,
): Promise<void> {
  const outcome = await revokeUpstream(claim.provider, credential)
  const fields = {
    provider: claim.provider.name,
    credential: claim.name,
    cred_id: credentialId,
    grant: claim.grant.id,
    reason,
    /** `revoked` at its issuer; `failed` to be; `expires`: nobody can revoke it. */
    outcome,
  }
  await record('lease.revoked', claim.grant.tenant, fields).catch(() => undefined)
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
