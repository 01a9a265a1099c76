/** Quantiles of measured values that were counted by the database. Pure. */

export interface Counted {
  readonly value: number
  /** How often it was measured. */
  readonly count: number
}

/** The smallest value that `share` of all are not above; null of none. @param share 0.5 is the median. */
export function quantile(measured: readonly Counted[], share: number): number | null {
  const sorted = measured.toSorted((a, b) => a.value - b.value)
  const wanted = share * countOf(sorted)
  let passed = 0
  for (const { value, count } of sorted) {
    passed += count
    if (passed >= wanted) return value
  }
  return null
}

export function meanOf(measured: readonly Counted[]): number | null {
  const count = countOf(measured)
  return count === 0 ? null : measured.reduce((sum, one) => sum + one.value * one.count, 0) / count
}

export function countOf(measured: readonly Counted[]): number {
  return measured.reduce((sum, { count }) => sum + count, 0)
}
