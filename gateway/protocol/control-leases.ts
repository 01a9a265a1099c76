/** JSON of the control door about credentials by hand, snake_case as on the wire. */

/** `POST /leases/warm`, on the unix socket only. */
export interface WarmBody {
  /** Its root grant. */
  readonly task?: string
  readonly grant?: string
  /** `github`, `github:issues.read`, `GET https://api.github.com/repos/acme/site/issues`. */
  readonly targets: readonly string[]
}

export interface WarmedView {
  readonly target: string
  /** Credentials that lie ready for it, and how many of them were fetched for it. */
  readonly ready: number
  readonly fetched: number
  readonly code?: string
  readonly detail?: string
}

/** `POST /leases/revoke`, on the unix socket only. What is left out narrows nothing; something is said. */
export interface RevokeLeasesBody {
  readonly task?: string
  readonly grant?: string
  /** Name in settings. */
  readonly credential?: string
  readonly service?: string
}

/** One element of `GET /leases/pending` → `{pending: […]}`. */
export interface PendingRevocationView {
  readonly credential: string
  readonly provider: string
  readonly service: string
  readonly cred_id: string
  readonly grant: string
  readonly task: string
  readonly reason: string
  /** Failed ones. */
  readonly attempts: number
  /** Epoch seconds. */
  readonly next_attempt_at: number
  readonly expires_at: number
}
