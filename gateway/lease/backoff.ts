/**
 * When to try again: later after each failure, and spread by the lease key, so that what ends or fails together is not tried
 * together. Pure: a key has its place in the spread on every replica.
 */

/** @returns in [0, 1), evenly spread, because a lease key is an HMAC. */
export function spreadOf(keyId: string): number {
  return Buffer.from(keyId.slice(0, 8), 'base64url').readUIntBE(0, 6) / 2 ** 48
}

export interface Backoff {
  readonly baseMs: number
  readonly maxMs: number
}

/**
 * Milliseconds until the next attempt: doubled by every failure in a row, at most `maxMs`, of which the last half is spread.
 * @param failures in a row, at least 1
 */
export function backoffMs(failures: number, spread: number, { baseMs, maxMs }: Backoff): number {
  return Math.min(maxMs, baseMs * 2 ** (failures - 1)) * (1 - spread / 2)
}
