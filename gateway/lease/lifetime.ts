/** How long a lease may be used, and when to start renewing it. Pure arithmetic: no clock. */

/** Largest part of a credential's life that is given away to clocks that differ, in milliseconds. */
const MAX_SKEW_MS = 60_000

/** A credential with less than this left, in milliseconds, would die on its way to the upstream. */
const LEAST_USEFUL_MS = 5_000

/** Renewal begins when this part of the life is over, or by its place in the spread up to so much earlier; never later. */
const RENEW_AFTER = 0.75
const RENEWAL_SPREAD = 0.15

export interface Bounds {
  readonly nowMs: number
  /** Seconds from now, from the policy's obligation; undefined: policy says nothing. */
  readonly policyTtlS: number | undefined
  /** Epoch seconds. */
  readonly grantExpiresAt: number
  /** Epoch seconds; Infinity for a standing key. */
  readonly credentialExpiresAt: number
  /** In [0, 1), of the lease key (`backoff.ts`): what ends at one time is not renewed at one time. */
  readonly spread: number
}

export interface Lifetime {
  /** Milliseconds since the epoch: the first instant at which the lease is not used any more. */
  readonly untilMs: number
  /** Milliseconds since the epoch: from here on a renewal is worth its request; Infinity when the grant ends first anyway. */
  readonly renewAtMs: number
}

/**
 * The earliest of policy, grant and upstream expiry. Only the upstream's is moved forward, by the smaller of a minute and a
 * tenth of what is left: its clock is not ours; policy and grant are measured by our own.
 */
export function lifetimeOf(bounds: Bounds): Lifetime {
  const credentialUntilMs = trustedUntilMs(bounds)
  const policyUntilMs =
    bounds.policyTtlS === undefined ? Number.POSITIVE_INFINITY : bounds.nowMs + bounds.policyTtlS * 1000
  const grantUntilMs = bounds.grantExpiresAt * 1000
  const untilMs = Math.min(grantUntilMs, policyUntilMs, credentialUntilMs)
  const renewAfter = RENEW_AFTER - RENEWAL_SPREAD * bounds.spread
  // Nothing is renewed that the grant ends anyway.
  const isWorthIt = untilMs < grantUntilMs
  const renewAtMs = isWorthIt ? bounds.nowMs + (untilMs - bounds.nowMs) * renewAfter : Number.POSITIVE_INFINITY
  return { untilMs, renewAtMs }
}

/** Whether the issuer gave too little: less than 5 s would remain after allowing for clocks that differ. */
export function isTooShort(bounds: Bounds): boolean {
  // Not a number is no life either.
  return !(trustedUntilMs(bounds) - bounds.nowMs >= LEAST_USEFUL_MS)
}

function trustedUntilMs({ nowMs, credentialExpiresAt }: Bounds): number {
  const expiresAtMs = credentialExpiresAt * 1000
  // Infinity minus a bounded skew stays Infinity.
  return expiresAtMs - Math.min(MAX_SKEW_MS, Math.max(0, expiresAtMs - nowMs) / 10)
}
