/** `Retry-After` of an answer (RFC 9110 §10.2.3). Whoever sends it is untrusted: what cannot be read counts as not said. */

/** Nobody is made to wait longer than this on a stranger's word. */
const MAX_MS = 3_600_000

/**
 * Milliseconds that an answer asks to wait, at most an hour. A date is compared with the `Date` of the same answer, so that clocks
 * that differ change nothing; without one it counts as not said.
 */
export function retryAfterMs(headers: Headers): number | undefined {
  const field = headers.get('retry-after')?.trim()
  if (field === undefined) return undefined
  if (/^\d{1,10}$/.test(field)) return Math.min(Number(field) * 1000, MAX_MS)
  const ms = Date.parse(field) - Date.parse(headers.get('date') ?? '')
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(0, ms), MAX_MS)
}
