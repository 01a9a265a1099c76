/** One finding of `keyless doctor`. */

export interface Check {
  readonly name: string
  /** `skipped`: cannot be told here, or does not apply; no reason to fail. */
  readonly state: 'ok' | 'failed' | 'skipped'
  readonly detail: string
  /** What to do; only when it failed. */
  readonly remedy?: string
}

export const ok = (name: string, detail: string): Check => ({ name, state: 'ok', detail })
export const skipped = (name: string, detail: string): Check => ({ name, state: 'skipped', detail })
export const failed = (name: string, detail: string, remedy: string): Check => ({
  name,
  state: 'failed',
  detail,
  remedy,
})
