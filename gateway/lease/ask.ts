/** One question to a provider: an answer or a coded refusal in bounded time, whatever the provider does. */
import type { Clock } from '../protocol/clock.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { Credential, IssueRequest } from '../provider/provider.ts'
import type { Claim } from './claim.ts'
import type { Unused } from './revoke.ts'
import type { Seal } from './seal.ts'

export interface AskRooms {
  readonly clock: Clock
  readonly seal: Seal
  /** Milliseconds that a provider may take. */
  readonly timeoutMs: number
  /** Aborted when the gateway shuts down. */
  readonly closing: AbortSignal
  /** Give back a credential that must not be used. */
  discard(unused: Unused): void
}

/** The provider's answer, or a coded refusal within `timeoutMs`, whatever the provider does about its signal. */
export async function ask(rooms: AskRooms, claim: Claim, renewed: Credential | undefined): Promise<Credential> {
  const { timeoutMs, closing, clock } = rooms
  const { grant, provider, service, ttlS, role } = claim
  if (closing.aborted) throw draining()
  const signal = AbortSignal.any([closing, AbortSignal.timeout(timeoutMs)])
  const leftS = Math.max(1, Math.floor(grant.expiresAt - clock.nowMs() / 1000))
  const request = { service, grant, ttlS: Math.min(leftS, ttlS ?? leftS), role }
  const answer = renewOrIssue(claim, request, renewed, signal)
  try {
    return await Promise.race([answer, rejection(signal)])
  } catch (cause) {
    answer.then((late) => abandon(rooms, claim, late)).catch(() => undefined)
    if (closing.aborted) throw draining()
    if (cause instanceof GatewayError) throw cause
    const why = signal.aborted ? `did not answer within ${timeoutMs / 1000} s` : 'failed in an unexpected way'
    throw new GatewayError('credential_unavailable', `Provider ${provider.name} for credential ${claim.name} ${why}.`, {
      cause: framesOf(cause),
    })
  }
}

/** What its issuer can prolong is prolonged; what it cannot any more is issued anew. */
async function renewOrIssue(
  { provider }: Claim,
  request: IssueRequest,
  renewed: Credential | undefined,
  signal: AbortSignal,
): Promise<Credential> {
  const longer = renewed && (await provider.renew?.(renewed, request, signal))
  return longer ?? provider.issue(request, signal)
}

/** It came after everybody had stopped waiting. */
function abandon({ discard, seal }: AskRooms, claim: Claim, credential: Credential): void {
  discard({ claim, credential, credentialId: seal.credentialId(credential.secret), reason: 'unusable' })
}

function draining(): GatewayError {
  return new GatewayError('draining', 'The gateway is shutting down; no new credential is issued.')
}

function rejection(signal: AbortSignal): Promise<never> {
  return new Promise((_, fail) => signal.addEventListener('abort', () => fail(signal.reason), { once: true }))
}

/** Where it happened, without the text: the message of an unexpected error may quote anything. */
function framesOf(cause: unknown): Error {
  const bug = new Error(cause instanceof Error ? cause.name : typeof cause)
  const frames = cause instanceof Error ? (cause.stack ?? '').split('\n').filter((line) => /^ {4}at /.test(line)) : []
  bug.stack = [`${bug.name}: ${bug.message}`, ...frames].join('\n')
  return bug
}
