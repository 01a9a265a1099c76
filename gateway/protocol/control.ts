/** JSON of the control door, snake_case as on the wire: what its routes take and answer, and what its clients read. */

/** `POST /tasks`. */
export interface OpenTaskBody {
  /** Registered agent id. Default: the first agent of the settings. */
  readonly agent?: string
  /** Declared intent in plain words, 1 to 500 characters. */
  readonly purpose: string
  /** Space-separated operation names or patterns: `github:issues.read openai:*`. */
  readonly scope: string
  /** Seconds. Default and upper bound are the settings `grants.ttl_s` and `grants.max_ttl_s`. */
  readonly ttl_s?: number
  /** The opener promises heartbeats; the task ends when none arrives for 2 × `heartbeat_s`. Default false. */
  readonly heartbeat?: boolean
}

/** 201 of `POST /tasks`: the only time that handle and token are shown. */
export interface OpenedTask {
  readonly task: string
  readonly grant: string
  readonly agent: string
  readonly human: string
  readonly scope: string
  readonly handle: string
  readonly token: string
  /** Epoch seconds. */
  readonly expires_at: number
  /** Seconds. */
  readonly expires_in: number
  /** Seconds between heartbeats; only when they were promised. */
  readonly heartbeat_s?: number
  /** Who authorised whom for what, as a sentence. */
  readonly lineage: string
}

export type CompletionReason = 'completed' | 'crashed' | 'revoked'

/** One element of `GET /tasks` → `{tasks: […]}`. */
export interface TaskView {
  readonly task: string
  readonly grant: string
  readonly agent: string
  readonly human: string
  readonly purpose: string
  readonly scope: string
  /** Epoch seconds. */
  readonly issued_at: number
  /** Epoch seconds. */
  readonly expires_at: number
  readonly heartbeat: boolean
}

export interface ServiceView {
  readonly name: string
  readonly hosts: readonly string[]
  /** Environment variable → placeholder that passes the SDK's start-up check. */
  readonly placeholders: Readonly<Record<string, string>>
  /** Environment variables by which an SDK is pointed at a reverse route. */
  readonly base_urls: readonly string[]
  readonly credential_configured: boolean
  /** Why the gateway cannot use the configured credential as things are, as far as it can tell without asking the issuer. */
  readonly credential_problem?: string
}

/** `GET /status`, on the unix socket only. */
export interface StatusView {
  readonly version: string
  /** `http://127.0.0.1:8080` */
  readonly proxy: string
  /** `http://127.0.0.1:8081` */
  readonly control: string
  readonly data_dir: string
  readonly audit_dir: string
  /** The interception CA's certificate: PEM text, not a path. */
  readonly ca_pem: string
  /** Epoch seconds on the gateway's clock. */
  readonly now: number
  readonly services: readonly ServiceView[]
  /** Names of the environment variables that settings read secrets from; a launcher removes them from its child. */
  readonly secret_env: readonly string[]
  readonly agents: readonly string[]
  readonly default_agent: string | null
  readonly redis: { readonly configured: boolean; readonly ok: boolean }
  readonly audit: { readonly ok: boolean; readonly size: number; readonly origin: string }
}

/** `GET /health/ready`: 200 when `ready`, 503 when not. Names and yes or no, nothing else: anyone may ask. */
export interface ReadyView {
  readonly ready: boolean
  readonly checks: Readonly<Record<string, boolean>>
}
