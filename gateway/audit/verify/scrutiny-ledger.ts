/** One of the logs that are verified together, as the checks across entries see it. */
import type { Scrutiny } from './scrutiny.ts'
import type { Findings } from './verdict.ts'

export interface Ledger {
  readonly findings: Findings
  readonly scrutiny: Scrutiny
}
