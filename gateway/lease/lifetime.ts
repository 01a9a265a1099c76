/** How long a lease may be used, and when to start renewing it. Pure arithmetic: no clock. */

/** Largest part of a credential's life that is given away to clocks that differ, in milliseconds. */
const MAX_SKEW_MS = 60_000

/** A credential with less than this left, in milliseconds, would die on its way to the upstream. */
const LEAST_USEFUL_MS = 5_000

export interface Bounds {
  readonly nowMs: number
  /** Seconds from now, from the policy's obligation; undefined: policy says nothing. */
  readonly policyTtlS: number | undefined
  /** Epoch seconds. */
  readonly grantExpiresAt: number
  /** Epoch seconds; Infinity for a standing key. */
  readonly credentialExpiresAt: number
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
  // The last fifth of life is for renewing, unless the grant itself ends then.
  const renewAtMs = untilMs < grantUntilMs ? untilMs - (untilMs - bounds.nowMs) / 5 : Number.POSITIVE_INFINITY
  return { untilMs, renewAtMs }
}

/** Whether the issuer gave too little: less than 5 s would remain after allowing for clocks that differ. */
export function isTooShort(bounds: Bounds): boolean {
  return trustedUntilMs(bounds) - bounds.nowMs < LEAST_USEFUL_MS
}

function trustedUntilMs({ nowMs, credentialExpiresAt }: Bounds): number {
  const expiresAtMs = credentialExpiresAt * 1000
  // Infinity minus a bounded skew stays Infinity.
  return expiresAtMs - Math.min(MAX_SKEW_MS, Math.max(0, expiresAtMs - nowMs) / 10)
}
