/** JSON of the control door about orders that end access, snake_case as on the wire. */

/** Exactly one of these. */
export interface TargetBody {
  /** Handle, signed grant, or id. */
  readonly grant?: string
  readonly task?: string
  /** Registered agent id. */
  readonly agent?: string
  readonly human?: { readonly iss: string; readonly sub: string }
  /** Name in the settings. */
  readonly service?: string
  /** Name in the settings. */
  readonly credential?: string
  /** `sha256:…` */
  readonly policy_set?: string
  readonly everything?: true
}

/** `POST /revocations`, on the unix socket only. */
export interface RevokeBody {
  readonly target: TargetBody
  /** 1 to 200 characters. */
  readonly reason: string
  /** Epoch seconds until which what comes anew is refused too; null: until it is lifted. Default: as `RevocationOrder`. */
  readonly until?: number | null
}

/** 200 of `POST /revocations`. */
export interface RevokedView {
  readonly id: string
  readonly tasks: number
  readonly grants: number
  readonly leases: number
  readonly until?: number | null
}

/** `POST /revocations/lift`, on the unix socket only. */
export interface LiftBody {
  readonly target: TargetBody
}

/** One element of `GET /revocations` → `{blocks: […]}`. */
export interface BlockView {
  readonly id: string
  readonly target: TargetBody
  readonly reason: string
  /** Epoch seconds; null: until it is lifted. */
  readonly until: number | null
  /** Epoch seconds. */
  readonly since: number
}
