/**
 * From claim to credential: ask the provider, bound the life, record, store sealed. Nothing that leaves this file is used
 * before `lease.issued` is in the log.
 */

import { asGatewayError, GatewayError } from '../protocol/problem.ts'
import type { Credential } from '../provider/provider.ts'
import { type AskRooms, ask } from './ask.ts'
import { spreadOf } from './backoff.ts'
import type { LeaseCache } from './cache.ts'
import type { Claim } from './claim.ts'
import type { Failures } from './failures.ts'
import { type Bare, type Cause, type Held, hold, type LeaseEnd } from './held.ts'
import type { Issuers } from './issuers.ts'
import { isTooShort, type Lifetime, lifetimeOf } from './lifetime.ts'
import type { Fields, RecordLease } from './record.ts'
import type { Revocations } from './revocations.ts'
import type { Unused } from './revoke.ts'
import type { SetBacks } from './set-back.ts'

export interface IssueRooms extends AskRooms {
  readonly cache: LeaseCache
  readonly record: RecordLease
  readonly issuers: Pick<Issuers, 'ask'>
  readonly failures: Failures
  readonly revocations: Pick<Revocations, 'keep' | 'shared'>
  readonly setBacks: Pick<SetBacks, 'canTell' | 'count'>
  /** Whether the grant was purged in this process. */
  isEnded(grant: string): boolean
}

/** Why a credential is wanted, and in place of which other one. */
export interface Need {
  readonly cause: Cause
  readonly instead?: Bare | undefined
}

interface Issued {
  readonly credential: Credential
  readonly credentialId: string
  readonly lifetime: Reckoned
}

/** By both clocks in one moment: neither may be read later, when one of them was set. */
interface Reckoned extends Lifetime {
  /** Milliseconds since the epoch. */
  readonly sinceMs: number
  readonly untilElapsedMs: number
}

/** A credential for one call, known to nobody else. */
export async function issueAlone(rooms: IssueRooms, claim: Claim, cause: Cause, end: LeaseEnd): Promise<Held> {
  rooms.failures.requireNone(claim.key.id)
  return held(rooms, claim, await issue(rooms, claim, { cause }), { cause, end, sealed: undefined, isFresh: true })
}

/** A credential for this authority, left in the shared cache for the others. `fence` as in `StoreTerms`. */
export async function issueShared(
  rooms: IssueRooms,
  claim: Claim,
  terms: Need & { readonly end: LeaseEnd; readonly fence: number | null },
): Promise<Held> {
  const issued = await issue(rooms, claim, terms)
  const sealed = await store(rooms, claim, issued, terms.fence)
  return held(rooms, claim, issued, { ...terms, sealed, isFresh: true })
}

/** What the shared cache has for this authority; undefined unless its seal opens and it is still of use. */
export async function readShared(rooms: IssueRooms, claim: Claim, end: LeaseEnd): Promise<Held | undefined> {
  const sealed = await rooms.cache.get(claim.key)
  const value = sealed === undefined ? undefined : rooms.seal.open(claim.key.id, sealed)
  if (value === undefined || value.untilMs <= rooms.clock.nowMs()) return undefined
  // From the future, or from before a clock was set back: it would live for longer than its issuer said.
  if (!rooms.setBacks.canTell(value.sinceMs)) return undefined
  const { secret, parts, expiresAt, ephemeral, scope } = value
  const credential = { secret, expiresAt, ephemeral, ...(parts && { parts }), ...(scope !== undefined && { scope }) }
  const credentialId = rooms.seal.credentialId(secret)
  const issued = { credential, credentialId, lifetime: reckoned(rooms, value) }
  return held(rooms, claim, issued, { cause: 'needed', end, sealed, isFresh: false })
}

async function issue(rooms: IssueRooms, claim: Claim, need: Need): Promise<Issued> {
  const isRenewal = need.cause === 'renewal'
  const setBacks = rooms.setBacks.count()
  const { credential, ms } = await rooms.issuers.ask(claim, isRenewal, () => askAndTell(rooms, claim, need))
  // The issuer has given a credential and the log does not know yet. A crash here leaves one that nobody has used, for the next
  // process to revoke.
  const credentialId = rooms.seal.credentialId(credential.secret)
  rooms.revocations.keep({ claim, credential, credentialId })
  let reason: Unused['reason'] = 'unusable'
  try {
    if (rooms.setBacks.count() !== setBacks) throw setBackMeanwhile(claim)
    const lifetime = lifetimeFor(rooms, claim, credential)
    reason = 'unrecorded'
    await rooms.record(isRenewal ? 'lease.renewed' : 'lease.issued', claim.grant, {
      ...namesOf(claim),
      cred_id: credentialId,
      ephemeral: credential.ephemeral,
      expires: Math.floor(lifetime.untilMs / 1000),
      cause: need.cause,
      ms,
    })
    reason = 'grant_ended'
    if (rooms.isEnded(claim.grant.id)) throw endedMeanwhile()
    rooms.failures.clear(claim.key.id)
    return { credential, credentialId, lifetime }
  } catch (error) {
    rooms.failures.keep(claim.key.id, error)
    // One that was prolonged is in use as it was, and ends with its grant.
    if (credentialId !== need.instead?.credentialId) rooms.discard({ claim, credential, credentialId, reason })
    throw error
  }
}

/**
 * A failure of the issuer is in the log also when no call waits for it, as when a credential is renewed ahead of its end.
 * @throws what `ask` throws.
 */
async function askAndTell(
  rooms: IssueRooms,
  claim: Claim,
  { cause, instead }: Need,
): Promise<{ readonly credential: Credential; readonly ms: number }> {
  const { clock, record } = rooms
  const startedMs = clock.elapsedMs()
  const tookMs = () => Math.round(clock.elapsedMs() - startedMs)
  try {
    const renewed = cause === 'renewal' ? instead?.credential : undefined
    return { credential: await ask(rooms, claim, renewed), ms: tookMs() }
  } catch (error) {
    const { code } = asGatewayError(error)
    if (code === 'draining') throw error // nobody was asked
    // Nothing was issued, so a log that cannot be written changes nothing.
    const facts = { ...namesOf(claim), cause, code, ms: tookMs() }
    await record('lease.failed', claim.grant, facts).catch(() => undefined)
    throw error
  }
}

function namesOf({ provider, name, service }: Claim): Fields {
  return { provider: provider.name, credential: name, service: service.name }
}

/** @param lifetime by the clock as it is at this moment. */
function reckoned({ clock }: IssueRooms, { untilMs, renewAtMs }: Lifetime): Reckoned {
  const sinceMs = clock.nowMs()
  return { untilMs, renewAtMs, sinceMs, untilElapsedMs: clock.elapsedMs() + (untilMs - sinceMs) }
}

function lifetimeFor(rooms: IssueRooms, { grant, name, ttlS, key }: Claim, credential: Credential): Reckoned {
  const { clock } = rooms
  const nowMs = clock.nowMs()
  const ends = { policyTtlS: ttlS, grantExpiresAt: grant.expiresAt, credentialExpiresAt: credential.expiresAt }
  const bounds = { nowMs, ...ends, spread: spreadOf(key.id) }
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
  return reckoned(rooms, lifetime)
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
  const { untilElapsedMs, ...times } = lifetime
  const { grant, name, provider, service } = claim
  const names = { tenant: grant.tenant, name, identity: provider.identity, service: service.name }
  const sealed = rooms.seal.seal(claim.key.id, {
    ...names,
    ...times,
    secret,
    parts,
    expiresAt,
    ephemeral,
    scope,
  })
  const terms = { ttlMs: untilElapsedMs - rooms.clock.elapsedMs(), fence }
  try {
    const outcome = await rooms.cache.set(claim.key, sealed, terms)
    if (outcome === 'ended') {
      rooms.discard({ claim, credential, credentialId, reason: 'grant_ended' })
      throw endedMeanwhile()
    }
    if (outcome !== 'stored') return undefined
    if (rooms.cache.isShared) rooms.revocations.shared({ claim, credentialId }, lifetime.untilMs)
    return sealed
  } catch (cause) {
    // Recorded but not stored: this process uses it, the next one issues its own. A dead cache refuses no call.
    if (asGatewayError(cause).code !== 'store_unavailable') throw cause
    return undefined
  }
}

function setBackMeanwhile({ name }: Claim): GatewayError {
  return new GatewayError(
    'credential_unavailable',
    `The clock of this gateway was set back while the issuer of credential ${name} was asked, so nobody knows when that ends. Try again.`,
  )
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
  const { untilMs, untilElapsedMs, renewAtMs } = lifetime
  const sinceElapsedMs = clock.elapsedMs()
  return hold(
    { claim, credential, credentialId, untilMs, untilElapsedMs, renewAtMs, sealed, cause, isFresh, sinceElapsedMs },
    end,
  )
}
