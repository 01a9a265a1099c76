/**
 * A credential in this process, with everything the hot path needs worked out once: facts for the record, values to scrub,
 * and the two lease objects that all calls share. Also the lease of a service without credential.
 */
import type { LeaseFacts } from '../audit/entries/event.ts'
import type { Grant } from '../protocol/grant.ts'
import type { AnswerHead, Outbound } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { Secret } from '../protocol/secret.ts'
import type { Credential } from '../provider/provider.ts'
import type { Claim } from './claim.ts'
import type { Fate, Lease } from './lease.ts'

/** Why a credential was asked for: a rejected one is not replaced again and again. */
export type Cause = 'needed' | 'renewal' | 'rejected'

export interface Held {
  readonly claim: Claim
  readonly credential: Credential
  readonly credentialId: string
  /** The secret and whatever else travels with it: none of these may come back. */
  readonly secrets: readonly Secret[]
  /** Milliseconds since the epoch. */
  readonly untilMs: number
  /** The same instant on the clock that never goes back: whichever is reached first ends the lease (H24). */
  readonly untilElapsedMs: number
  /** Milliseconds since the epoch. Moved by `supply.ts` alone, when a renewal starts and when it failed. */
  renewAtMs: number
  /** Renewals that failed in a row. The same. */
  failedRenewals: number
  /** As it is in the shared cache; undefined when it is not there. */
  readonly sealed: Buffer | undefined
  readonly cause: Cause
  /** Whether this process asked the issuer for it, or found it in the shared cache. */
  readonly isFresh: boolean
  /** When it came into this process, monotonic. */
  readonly sinceElapsedMs: number
  /** For the calls that found the credential. */
  readonly hit: Lease
  /** For the calls that waited for the issuer. */
  readonly miss: Lease
}

/** Everything but the leases made of it. */
export type Bare = Omit<Held, 'hit' | 'miss'>

/** What a lease does when the upstream says 401, when it repeats the credential, and when the call is over. */
export interface LeaseEnd {
  reissue(held: Bare, plain: Outbound, answer: AnswerHead): Promise<Outbound | null>
  burn(held: Bare, plain: Outbound): Fate
  release(held: Bare): void
}

export function hold(known: Omit<Bare, 'secrets' | 'failedRenewals'>, end: LeaseEnd): Held {
  const { claim, credential, credentialId } = known
  const derived = claim.provider.derived?.(credential, claim.service) ?? []
  const facts = {
    provider: claim.provider.name,
    credential: claim.name,
    credentialId,
    ephemeral: credential.ephemeral,
    // Of the lease, not of the credential: a standing key has no end, its lease does.
    expiresAt: Math.floor(known.untilMs / 1000),
  }
  const held = { ...known, failedRenewals: 0, secrets: [credential.secret, ...derived] }
  return Object.assign(held, {
    hit: leaseOf(held, { ...facts, cache: 'hit' }, end),
    miss: leaseOf(held, { ...facts, cache: 'miss' }, end),
  })
}

/** Stateless, so that one object serves every call: what belongs to a call is found by its `plain` request. */
function leaseOf(held: Bare, facts: LeaseFacts, end: LeaseEnd): Lease {
  return Object.freeze({
    facts: Object.freeze(facts),
    attach: (plain: Outbound) => attachHeld(held, plain),
    reissue: (plain: Outbound, answer: AnswerHead) => end.reissue(held, plain, answer),
    burn: (plain: Outbound) => end.burn(held, plain),
    [Symbol.dispose]: () => end.release(held),
  })
}

/** @returns the request with the credential attached, naming every value that must not come back. */
export function attachHeld(held: Bare, plain: Outbound): Outbound | Promise<Outbound> {
  const { provider } = held.claim
  const secrets = plain.secrets.length === 0 ? held.secrets : [...plain.secrets, ...held.secrets]
  if (provider.isRejection === undefined) return provider.attach(held.credential, { ...plain, secrets })
  return provider.attach(held.credential, { ...plain, secrets, isRejection: provider.isRejection })
}

/** The same request with another credential, if there is one; both must not come back in the answer. */
export async function resend(
  held: Bare,
  plain: Outbound,
  replacement: () => Promise<Held | null>,
): Promise<Outbound | null> {
  try {
    const next = await replacement()
    if (next === null || next.credentialId === held.credentialId) return null
    const outbound = await attachHeld(next, plain)
    return { ...outbound, secrets: [...outbound.secrets, ...held.secrets] }
  } catch (cause) {
    // Nothing better to try: the agent gets the upstream's own 401.
    if (cause instanceof GatewayError) return null
    throw cause
  }
}

/** The lease of a service without credential: attaches nothing and has nothing to give back. */
export function emptyLease(grant: Grant): Lease {
  const facts: LeaseFacts = {
    provider: 'none',
    credential: 'none',
    credentialId: '',
    ephemeral: true,
    expiresAt: grant.expiresAt,
    cache: 'hit',
  }
  return {
    facts,
    attach: (plain) => plain,
    reissue: async () => null,
    burn: () => 'standing',
    [Symbol.dispose]: () => undefined,
  }
}
