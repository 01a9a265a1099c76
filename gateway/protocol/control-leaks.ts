/** JSON of `POST /leaks`, snake_case as on the wire. */
import type { LeakKind, LeakOutcome, LeakReport } from './leak.ts'

/** Of 1 to 1000. */
export interface LeakReportsBody {
  readonly leaks: readonly LeakReport[]
}

/** One of `{results: […]}`, in the order of the reports. */
export interface LeakReportView {
  /** Hex SHA-256 of the token. */
  readonly token_hash: string
  readonly kind: LeakKind
  readonly outcome: LeakOutcome
}

/** What GitHub takes as feedback on its reports. */
export interface FeedbackView {
  readonly token_hash: string
  readonly token_type: string
  readonly label: 'true_positive' | 'false_positive'
}
