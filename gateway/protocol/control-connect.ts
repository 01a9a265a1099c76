/** JSON of the control door about secrets and connections, snake_case as on the wire. */

/** 200 of `GET /secrets`, on the unix socket only: names, never values. */
export interface SecretsView {
  /** `used`: settings refer to it. */
  readonly secrets: readonly { readonly name: string; readonly used: boolean }[]
  /** Names that settings refer to, and nothing is sealed under. */
  readonly missing: readonly string[]
}

/** `POST /connections` and `/connections/disconnect`, on the unix socket only. */
export interface ConnectBody {
  /** Name of the credential in settings. */
  readonly credential: string
  /** Whose connection. Default: the owner of the socket. */
  readonly sub?: string
  /** Who calls them so. */
  readonly iss?: string
  /** By a code that is typed elsewhere (RFC 8628). Default: by a browser here. */
  readonly device?: boolean
}

/** 200 of `POST /connections`. */
export interface BegunView {
  readonly ticket: string
  /** Where the human goes. */
  readonly url: string
  /** What they type there. */
  readonly user_code?: string
  /** Seconds between two questions for progress. */
  readonly interval_s?: number
}

/** 200 of `POST /connections/progress`. */
export interface ProgressView {
  readonly state: 'pending' | 'done' | 'failed'
  readonly interval_s?: number
  readonly why?: string
}

/** One of `GET /connections`. */
export interface ConnectionView {
  readonly credential: string
  /** Null: it serves everybody. */
  readonly human: { readonly iss: string; readonly sub: string } | null
  /** `reauthorize`: it has to be connected again. `unused`: settings have no such credential. */
  readonly state: 'connected' | 'reauthorize' | 'unused'
  readonly scope: string | null
  readonly connected_at: number
  readonly refreshed_at: number | null
}
