/** One attempt to end a credential at its issuer, and how what came of it is recorded. */
import type { Clock } from '../protocol/clock.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { Credential, Provider } from '../provider/provider.ts'
import type { Claim } from './claim.ts'
import type { RecordLease } from './record.ts'

/** No provider issued it, and none can end it: an upstream answered with it. */
export const CAPTURED = { name: 'captured', identity: '' } as const

/** Why a credential is ended. `abandoned`: the process that held it was killed. `ordered`: somebody said so. */
export type Reason = 'grant_ended' | 'single_use' | 'unusable' | 'unrecorded' | 'leaked' | 'ordered' | 'abandoned'

/** A credential that nobody will use: what is needed to end it and to say so. */
export interface Unused {
  readonly claim: Pick<Claim, 'name' | 'grant'> & {
    /** Without `revoke` nobody can end it: settings do not have its issuer any more, or its issuer does not offer that. */
    readonly provider: Pick<Provider, 'name' | 'identity' | 'revoke'>
    readonly service: { readonly name: string }
  }
  readonly credential: Pick<Credential, 'secret' | 'parts' | 'expiresAt' | 'ephemeral'>
  readonly credentialId: string
  readonly reason: Reason
}

/** `failed`: tried again until it ends by itself, which is `expired`; `expires`: nobody can end it. */
export type RevocationOutcome = 'revoked' | 'failed' | 'expires' | 'expired'

/** Milliseconds that one attempt may take. */
const REVOKE_TIMEOUT_MS = 5_000

/** What came of an attempt. */
export type Attempted =
  | { readonly outcome: 'revoked' }
  | { readonly outcome: 'failed'; readonly retryAfterMs: number | undefined }

export function isRevocable({ claim, credential }: Pick<Unused, 'credential'> & Pick<Unused, 'claim'>): boolean {
  return credential.ephemeral && claim.provider.revoke !== undefined
}

/** Never rejects. */
export async function revokeUpstream({ claim, credential }: Unused): Promise<Attempted> {
  const signal = AbortSignal.timeout(REVOKE_TIMEOUT_MS)
  try {
    const late = new Promise<never>((_, fail) =>
      signal.addEventListener('abort', () => fail(signal.reason), { once: true }),
    )
    await Promise.race([claim.provider.revoke?.(credential, signal), late])
    return { outcome: 'revoked' }
  } catch (cause) {
    return { outcome: 'failed', retryAfterMs: cause instanceof GatewayError ? cause.retryAfterMs : undefined }
  }
}

/** Never rejects: a log that cannot be written refuses the next call, and ends nothing. */
export async function recordRevocation(
  { claim, credential, credentialId, reason }: Unused,
  outcome: RevocationOutcome,
  { record, clock, startedMs }: { readonly record: RecordLease; readonly clock: Clock; readonly startedMs: number },
): Promise<void> {
  const fields = {
    provider: claim.provider.name,
    credential: claim.name,
    service: claim.service.name,
    cred_id: credentialId,
    ephemeral: credential.ephemeral,
    // A standing key has no end.
    expires: Number.isFinite(credential.expiresAt) ? Math.floor(credential.expiresAt) : null,
    reason,
    outcome,
    ms: Math.round(clock.elapsedMs() - startedMs),
  }
  await record('lease.revoked', claim.grant, fields).catch(() => undefined)
}
