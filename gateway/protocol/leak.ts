/** Credentials that were found where none may be, as scanners report them, and what came of each. */

export interface LeakReport {
  /** What was found. Never written down. */
  readonly token: string
  /** In the words of whoever found it: the name of its kind, where it stood, and in what. */
  readonly type?: string
  readonly url?: string
  readonly source?: string
}

/** What it is to this gateway. `unknown`: nothing that it issued, leased or planted, or it ended long ago. */
export type LeakKind = 'handle' | 'grant' | 'break_glass' | 'credential' | 'canary' | 'unknown'

/**
 * What was done. `ended`: it was over already; `alerted`: somebody has to change it, as a standing key; `blocked`: its calls are refused
 * until somebody lifts that.
 */
export type LeakOutcome = 'revoked' | 'ended' | 'alerted' | 'blocked' | 'unknown' | 'failed'

export interface LeakVerdict {
  readonly kind: LeakKind
  readonly outcome: LeakOutcome
}

/** A canary was seen where nothing legitimate uses it. */
export interface CanarySighting {
  /** Name in the settings. */
  readonly canary: string
  /** `header cookie`, `path or query`, `body`, `grant`. */
  readonly where: string
}
