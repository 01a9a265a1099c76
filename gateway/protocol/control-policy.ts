/** JSON of the control door about the policies in force, snake_case as on the wire. */

/** `GET /policy` and the answer of `POST /policy/reload`, on the unix socket only. */
export interface PolicyView {
  /** `sha256:…` over policies, schema and services. */
  readonly policy_set: string
  /** How many policies. */
  readonly policies: number
  /** Epoch seconds at which it began to decide. */
  readonly loaded_at: number
  /** Why what was offered last is not in force; absent: nothing is wrong. */
  readonly trouble?: string
  /** Settings that have changed in the file and that only a restart takes up. */
  readonly needs_restart?: readonly string[]
}
