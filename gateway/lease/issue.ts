/**
 * From claim to credential: ask the provider, bound the life, record, store sealed. Nothing that leaves this file is used
 * before `lease.issued` is in the log.
 */

import type { Clock } from '../protocol/clock.ts'
import type { Grant } from '../protocol/grant.ts'
import { asGatewayError, GatewayError } from '../protocol/problem.ts'
import type { Service } from '../protocol/service.ts'
import type { Credential, Provider } from '../provider/provider.ts'
import type { LeaseCache } from './cache.ts'
import type { Claim } from './claim.ts'
import { type Cause, type Held, hold, type LeaseEnd } from './held.ts'
import { isTooShort, type Lifetime, lifetimeOf } from './lifetime.ts'
import type { Seal } from './seal.ts'

export type Fields = Record<string, string | number | boolean | null>
/** Under the grant that the credential is for: the entry has its whole chain of authority. */
export type RecordLease = (kind: LeaseKind, grant: Grant, fields: Fields) => Promise<unknown>
export type LeaseKind = 'lease.issued' | 'lease.renewed' | 'lease.failed' | 'lease.captured' | 'lease.revoked'

export interface IssueRooms {
  readonly cache: LeaseCache
  readonly seal: Seal
  readonly clock: Clock
  readonly record: RecordLease
  /** Milliseconds that a provider may take. */
  readonly timeoutMs: number
  /** Aborted when the gateway shuts down. */
  readonly closing: AbortSignal
  /** Whether the grant was purged in this process. */
  isEnded(grant: string): boolean
  /** Give back a credential that must not be used. */
  discard(unused: Unused): void
}

/** A credential that nobody will use: what is needed to end it and to say so. */
export interface Unused {
  readonly claim: Pick<Claim, 'name' | 'grant'> & {
    readonly provider: Pick<Provider, 'name' | 'revoke'>
    /** Absent: it was found in the shared cache, where it is kept by credential. */
    readonly service?: Pick<Service, 'name'>
  }
  readonly credential: Pick<Credential, 'secret' | 'parts' | 'expiresAt' | 'ephemeral'>
  readonly credentialId: string
  readonly reason: 'grant_ended' | 'single_use' | 'unusable' | 'unrecorded' | 'leaked'
}

interface Issued {
  readonly credential: Credential
  readonly credentialId: string
  readonly lifetime: Lifetime
}

/** A credential for one call, known to nobody else. */
export async function issueAlone(rooms: IssueRooms, claim: Claim, cause: Cause, end: LeaseEnd): Promise<Held> {
  return held(rooms, claim, await issue(rooms, claim, cause), { cause, end, sealed: undefined, isFresh: true })
}

/** A credential for this authority, left in the shared cache for the others. `fence` as in `StoreTerms`. */
export async function issueShared(
  rooms: IssueRooms,
  claim: Claim,
  terms: { readonly cause: Cause; readonly end: LeaseEnd; readonly fence: number | null },
): Promise<Held> {
  const issued = await issue(rooms, claim, terms.cause)
  const sealed = await store(rooms, claim, issued, terms.fence)
  return held(rooms, claim, issued, { ...terms, sealed, isFresh: true })
}

/** What the shared cache has for this authority; undefined unless its seal opens and it is still of use. */
export async function readShared(rooms: IssueRooms, claim: Claim, end: LeaseEnd): Promise<Held | undefined> {
  const sealed = await rooms.cache.get(claim.key)
  const value = sealed === undefined ? undefined : rooms.seal.open(claim.key.id, sealed)
  if (value === undefined || value.untilMs <= rooms.clock.nowMs()) return undefined
  const { secret, parts, expiresAt, ephemeral, scope } = value
  const credential = { secret, expiresAt, ephemeral, ...(parts && { parts }), ...(scope !== undefined && { scope }) }
  const issued = { credential, credentialId: rooms.seal.credentialId(secret), lifetime: value }
  return held(rooms, claim, issued, { cause: 'needed', end, sealed, isFresh: false })
}

async function issue(rooms: IssueRooms, claim: Claim, cause: Cause): Promise<Issued> {
  const startedMs = rooms.clock.elapsedMs()
  const tookMs = () => Math.round(rooms.clock.elapsedMs() - startedMs)
  const credential = await ask(rooms, claim).catch((error) => failed(rooms, claim, { cause, error, ms: tookMs() }))
  // The issuer has given a credential and the log does not know yet. A crash here leaves one that nobody has used: safe.
  const credentialId = rooms.seal.credentialId(credential.secret)
  let reason: Unused['reason'] = 'unusable'
  try {
    const lifetime = lifetimeFor(rooms, claim, credential)
    reason = 'unrecorded'
    await rooms.record(cause === 'renewal' ? 'lease.renewed' : 'lease.issued', claim.grant, {
      ...namesOf(claim),
      cred_id: credentialId,
      ephemeral: credential.ephemeral,
      expires: Math.floor(lifetime.untilMs / 1000),
      cause,
      ms: tookMs(),
    })
    reason = 'grant_ended'
    if (rooms.isEnded(claim.grant.id)) throw endedMeanwhile()
    return { credential, credentialId, lifetime }
  } catch (error) {
    rooms.discard({ claim, credential, credentialId, reason })
    throw error
  }
}

/**
 * The issuer gave none: in the log also when no call waits for it, as when a credential is renewed ahead of its end.
 * @throws what was thrown.
 */
async function failed(
  { record }: IssueRooms,
  claim: Claim,
  { cause, error, ms }: { readonly cause: Cause; readonly error: unknown; readonly ms: number },
): Promise<never> {
  const { code } = asGatewayError(error)
  if (code === 'draining') throw error // nobody was asked
  // Nothing was issued, so a log that cannot be written changes nothing.
  await record('lease.failed', claim.grant, { ...namesOf(claim), cause, code, ms }).catch(() => undefined)
  throw error
}

function namesOf({ provider, name, service }: Claim): Fields {
  return { provider: provider.name, credential: name, service: service.name }
}

/** The provider's answer, or a coded refusal within `timeoutMs`, whatever the provider does about its signal. */
async function ask({ timeoutMs, closing, clock }: IssueRooms, claim: Claim): Promise<Credential> {
  const { grant, provider, service, ttlS, role } = claim
  if (closing.aborted) throw draining()
  const signal = AbortSignal.any([closing, AbortSignal.timeout(timeoutMs)])
  const leftS = Math.max(1, Math.floor(grant.expiresAt - clock.nowMs() / 1000))
  try {
    const request = { service, grant, ttlS: Math.min(leftS, ttlS ?? leftS), role }
    return await Promise.race([provider.issue(request, signal), rejection(signal)])
  } catch (cause) {
    if (closing.aborted)
      throw new GatewayError('draining', 'The gateway is shutting down; no new credential is issued.')
    if (cause instanceof GatewayError) throw cause
    const why = signal.aborted ? `did not answer within ${timeoutMs / 1000} s` : 'failed in an unexpected way'
    throw new GatewayError('credential_unavailable', `Provider ${provider.name} for credential ${claim.name} ${why}.`, {
      cause: framesOf(cause),
    })
  }
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

function lifetimeFor({ clock }: IssueRooms, { grant, name, ttlS }: Claim, credential: Credential): Lifetime {
  const nowMs = clock.nowMs()
  const bounds = { nowMs, policyTtlS: ttlS, grantExpiresAt: grant.expiresAt, credentialExpiresAt: credential.expiresAt }
  if (isTooShort(bounds)) {
    const leftS = Math.max(0, Math.floor(credential.expiresAt - nowMs / 1000))
    throw new GatewayError(
      'credential_unavailable',
      `The issuer of credential ${name} gave one that ends in ${leftS} s: too short to be used safely. Raise its token lifetime, and check the clocks.`,
    )
  }
  const lifetime = lifetimeOf(bounds)
  if (lifetime.untilMs <= nowMs)
    throw new GatewayError('grant_expired', 'The grant expired before a credential was issued.')
  return lifetime
}

/** @returns what was stored; undefined when the store is away or somebody else's value has its place. */
async function store(
  rooms: IssueRooms,
  claim: Claim,
  issued: Issued,
  fence: number | null,
): Promise<Buffer | undefined> {
  const { credential, credentialId, lifetime } = issued
  const { secret, parts, expiresAt, ephemeral, scope } = credential
  const names = { tenant: claim.grant.tenant, name: claim.name }
  const sealed = rooms.seal.seal(claim.key.id, { ...names, ...lifetime, secret, parts, expiresAt, ephemeral, scope })
  const terms = { ttlMs: lifetime.untilMs - rooms.clock.nowMs(), fence }
  try {
    const outcome = await rooms.cache.set(claim.key, sealed, terms)
    if (outcome === 'ended') {
      rooms.discard({ claim, credential, credentialId, reason: 'grant_ended' })
      throw endedMeanwhile()
    }
    return outcome === 'stored' ? sealed : undefined
  } catch (cause) {
    // Recorded but not stored: this process uses it, the next one issues its own. A dead cache refuses no call.
    if (asGatewayError(cause).code !== 'store_unavailable') throw cause
    return undefined
  }
}

function endedMeanwhile(): GatewayError {
  return new GatewayError('grant_revoked', 'The task ended while a credential was being issued for it.')
}

type Circumstances = Pick<Held, 'cause' | 'sealed' | 'isFresh'> & { readonly end: LeaseEnd }

function held(
  { clock }: IssueRooms,
  claim: Claim,
  issued: Issued,
  { end, cause, sealed, isFresh }: Circumstances,
): Held {
  const { credential, credentialId, lifetime } = issued
  const sinceElapsedMs = clock.elapsedMs()
  const untilElapsedMs = sinceElapsedMs + (lifetime.untilMs - clock.nowMs())
  const { untilMs, renewAtMs } = lifetime
  return hold(
    { claim, credential, credentialId, untilMs, untilElapsedMs, renewAtMs, sealed, cause, isFresh, sinceElapsedMs },
    end,
  )
}
