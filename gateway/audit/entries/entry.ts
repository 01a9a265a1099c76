/** An entry read back from the log. What it says is only as good as the proof that it is in the log (`verify.ts`). */
import type { JsonValue } from '../canonical.ts'

export interface Step {
  readonly n?: number
  readonly type?: string
  readonly id?: string
  readonly grant?: string
  /** The gateway attested this delegation for a holder without a key. */
  readonly on_behalf?: boolean
  /** Hash of the attestation of this step, in entries about grants and leases. */
  readonly att?: string
  /** In place of steps that did not fit: how many. */
  readonly cut?: number
}

/** Members of `ar/1` that readers use; docs/log.md has all. Only `v`, `seq`, `ts`, `kind` are in every entry. */
export interface Entry {
  readonly v: string
  readonly seq: number
  /** RFC 3339, UTC, milliseconds: when the entry got its place. */
  readonly ts: string
  readonly kind: string
  readonly log?: string
  /** Links decision and outcome, and is the `instance` of a refusal. */
  readonly req?: string
  readonly tenant?: string
  readonly human?: { readonly iss: string; readonly sub: string }
  readonly task?: { readonly id: string; readonly purpose: string }
  readonly lineage?: readonly Step[]
  /** base64url SHA-256 over the RFC 8785 bytes of the steps, without their `att`. */
  readonly lineage_hash?: string
  /** Which replica wrote it, of which version, in which run. */
  readonly gw?: { readonly node: string; readonly ver: string; readonly boot: string }
  readonly client?: {
    readonly ip: string
    readonly mode: string
    readonly auth?: string
    readonly ua?: string
    /** Grant that was presented and refused. */
    readonly grant?: string
  }
  readonly target?: {
    readonly scheme: string
    readonly host: string
    readonly port: number
    readonly method: string
    readonly path: string
    readonly service?: string
    readonly operation?: string
  }
  readonly decision?: {
    readonly effect: string
    readonly code?: string
    readonly detail?: string
    readonly status?: number
    readonly policy_ids?: readonly string[]
    readonly policy_set?: string
  }
  /** The grant that an instruction is about. */
  readonly grant?: {
    readonly id: string
    readonly parent?: string
    readonly depth?: number
    readonly max_depth?: number
    readonly delegable?: boolean
    readonly authority?: JsonValue
    readonly step?: string
    /** Epoch seconds. */
    readonly expires?: number
  }
  readonly cred?: {
    readonly provider: string
    readonly credential: string
    readonly cache: string
    readonly ephemeral: boolean
    /** HMAC of the credential: equal ones can be found. */
    readonly cred_id?: string
    /** Of the lease, epoch seconds. */
    readonly expires?: number | null
  }
  readonly outcome?: {
    readonly status: number
    readonly error: string | null
    readonly dur_ms: number
    readonly bytes_in?: number
    readonly bytes_out?: number
    /** Credentials that the answer held, and that were overwritten. */
    readonly scrubbed?: number
  }
  readonly facts?: { readonly [name: string]: JsonValue }
}

const KIND = /^[a-z_]+(\.[a-z_]+)+$/
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/

/** The entry in these bytes, or undefined if they are not one at all. Says nothing of canonical form or of proof. */
export function parseEntry(bytes: Buffer): Entry | undefined {
  try {
    const value = JSON.parse(bytes.toString('utf8')) as Entry
    const isEntry =
      Number.isSafeInteger(value.seq) && typeof value.v === 'string' && KIND.test(value.kind) && TIME.test(value.ts)
    return isEntry ? value : undefined
  } catch {
    return undefined
  }
}

const TAIL = /"ts":"([^"]{24})","v":"ar\/1"\}$/

/** Milliseconds since the epoch, read from the end of the line without parsing it; 0 when there is no time. */
export function timeOf(bytes: Buffer): number {
  const time = TAIL.exec(bytes.toString('latin1', Math.max(0, bytes.length - 48)))?.[1]
  return (time && Date.parse(time)) || 0
}
