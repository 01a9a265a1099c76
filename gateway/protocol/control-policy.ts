/** JSON of the control door about the policies in force, snake_case as on the wire. */

/** `GET /policy` and the answer of `POST /policy/reload`, on the unix socket only. */
export interface PolicyView {
  /** `sha256:…` over policies, schema and services. */
  readonly policy_set: string
  /** How many policies; 0 denies everything. */
  readonly policies: number
  /** Epoch seconds at which it began to decide. */
  readonly loaded_at: number
  /** Why what was offered last is not in force; absent: nothing is wrong. */
  readonly trouble?: string
  /** Settings that have changed in the file and that only a restart takes up. */
  readonly needs_restart?: readonly string[]
  /** Absent: there is no candidate. */
  readonly shadow?: ShadowView
  /** Absent: the files that settings name decide. */
  readonly source?: SourceView
}

/** A candidate that is evaluated beside what decides. */
export interface ShadowView {
  /** Absent: it could not be loaded. */
  readonly policy_set?: string
  readonly policies?: number
  /** Why it could not. */
  readonly trouble?: string
  /** Decisions that were compared since it was loaded, and those that could not be. */
  readonly same: number
  readonly differed: number
  readonly skipped: number
  readonly unknown: number
}

export interface SourceView {
  readonly kind: 'dir' | 'http' | 'git'
  /** Path or address. */
  readonly place: string
  /** Epoch seconds of the last look at it; null: none yet. */
  readonly looked_at: number | null
  /** What is in force; absent: nothing was taken yet, or it has ended. */
  readonly bundle?: BundleView
}

/** A signed bundle. */
export interface BundleView {
  readonly name: string
  readonly version: number
  /** Commit or entity tag. */
  readonly revision?: string
  /** Ids of the keys that signed it. */
  readonly signed_by: readonly string[]
  /** Epoch seconds. */
  readonly issued_at: number
  readonly not_after?: number
}
