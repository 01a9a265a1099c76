/** JSON of the control door about the gateway itself: whether it is ready, what runs in it, which services it has. */
import type { Tool } from './service.ts'

/** One of `StatusView.services`: what launchers and the doctor have to know of an upstream API. */
export interface ServiceView {
  readonly name: string
  readonly hosts: readonly string[]
  readonly ports: readonly number[]
  /** Environment variable → placeholder that passes the SDK's start-up check. */
  readonly placeholders: Readonly<Record<string, string>>
  /** Environment variables by which an SDK is pointed at a reverse route. */
  readonly base_urls: readonly string[]
  /** Tools that a launcher prepares for this service. */
  readonly tools: readonly Tool[]
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
  /** Orders and ends of grants and tasks that are in force here, and that other replicas cannot be told of yet. */
  readonly unstored_revocations: number
  readonly audit: {
    readonly ok: boolean
    readonly size: number
    readonly origin: string
    readonly witnesses: readonly WitnessView[]
    readonly exports: readonly ExportView[]
    /** How far behind the index is; absent: there is none, or it has said nothing yet. */
    readonly index?: { readonly lag_entries: number; readonly lag_seconds: number; readonly trouble?: string }
    /** Verifier key of this gateway as a witness of other logs; absent when it is none. */
    readonly witness_key?: string
  }
}

/** Where the log is sent on to, and how far that has come. */
export interface ExportView {
  /** As in `audit.export`. */
  readonly name: string
  /** Entries that were not delivered, and the age of the oldest of them. */
  readonly lag_entries: number
  readonly lag_seconds: number
  /** Entries set aside since the start, because the receiver does not take them. */
  readonly refused: number
  /** Why nothing is delivered at the moment. */
  readonly trouble?: string
}

/** A witness of this gateway's log. */
export interface WitnessView {
  /** As in `audit.witnesses`. */
  readonly name: string
  readonly url: string
  /** `waiting`: nothing shown yet. `useless`: it cannot be reached, or what it answers is no cosignature. `conflict`: it knows another history. */
  readonly state: 'waiting' | 'cosigning' | 'useless' | 'conflict'
  /** Entries of the checkpoint that it cosigned last. */
  readonly size: number
  /** Epoch seconds by the witness's clock; null: not since the start. */
  readonly cosigned_at: number | null
  /** Why it is not cosigning. */
  readonly trouble?: string
}

/** `GET /health/ready`: 200 when `ready`, 503 when not. Names and yes or no, nothing else: anyone may ask. */
export interface ReadyView {
  readonly ready: boolean
  readonly checks: Readonly<Record<string, boolean>>
}
