/** What can be asked of the records, and how they answer: the same for `keyless log find`, `GET /records` and the reports. */
import type { JsonValue } from '../audit/canonical.ts'
import type { Entry } from '../audit/entries/entry.ts'

/** All members must hold. Texts are compared exactly, but for those that say otherwise. */
export interface Filter {
  readonly tenant?: string
  readonly log?: string
  /** `sub`, or `iss sub`. */
  readonly human?: string
  /** The agent that acted. */
  readonly agent?: string
  readonly task?: string
  /** A human, agent or grant anywhere in the lineage. */
  readonly ancestor?: string
  readonly grant?: string
  readonly service?: string
  /** `github:issues.read`; `github:*` for all of a service. */
  readonly operation?: string
  /** `api.github.com`; `*.github.com` for all below. */
  readonly host?: string
  /** 404, or a class: `4xx`. */
  readonly status?: string
  readonly effect?: 'allow' | 'deny'
  /** `call`, `lease.issued`, or a room: `grant.*`. */
  readonly kind?: string
  /** Name of a credential in settings, or a `cred_id`. */
  readonly credential?: string
  /** W3C trace id, 32 hex digits, or the `traceparent` that has it. */
  readonly trace?: string
  /** Hash of the prompt: `sha256:` and hex or base64url. */
  readonly prompt?: string
  /** Words that must all occur in path, purpose, codes, names, policies, user agent, or what else an entry says. */
  readonly text?: string
  /** Milliseconds since the epoch, inclusive. */
  readonly since?: number
  /** Exclusive. */
  readonly until?: number
}

export interface Query extends Filter {
  /** 1 to 1000. */
  readonly limit: number
  /** `next` of the page before. */
  readonly after?: string
  /** Default newest first. */
  readonly order?: 'newest' | 'oldest'
}

/** One row of `records`, NULLs left out; `policy_ids` and `detail` as what their JSON says. */
export interface Found {
  readonly log: string
  readonly seq: number
  readonly end_seq?: number
  readonly ts: number
  readonly kind: string
  readonly [column: string]: JsonValue | undefined
}

export interface Page {
  readonly records: readonly Found[]
  /** Absent on the last page. Opaque. */
  readonly next?: string
  /** Entries that are in the log and not yet in the index. */
  readonly lag: Lag
}

export interface Lag {
  readonly entries: number
  /** Age of the oldest of them, seconds. */
  readonly seconds: number
}

/** A record whole, as the log has it. */
export interface Told {
  readonly found: Found
  /** Decision and outcome of a call; otherwise the one entry. Those are missing whose text was pruned, or whose log is elsewhere. */
  readonly entries: readonly Entry[]
  /** C2SP tlog-proof of each entry, if it was asked for. */
  readonly proofs?: readonly string[]
}

/** That somebody read the records: who, from where, what was asked, and how many were found. */
export interface Reading {
  readonly reader: string
  readonly address: string
  readonly asked: Readonly<Record<string, string>>
  readonly found: number
}
