/** Instructions to the gateway itself, and what they would do. */
import type { Agent, Authority, Grant, Human } from './grant.ts'

export type Instruction =
  | {
      readonly kind: 'task.open'
      /** UUIDv7 of this instruction; the event id. */
      readonly id: string
      readonly tenant: string
      readonly human: Human
      /** Registered agent id. */
      readonly agent: string
      readonly purpose: string
      /** Space-separated operation names (RFC 6749 §3.3), the short form of `authorization_details`. */
      readonly scope: string
      readonly ttlS: number
      /** The opener promises heartbeats; without them the task is ended. Default false. */
      readonly heartbeat?: boolean
    }
  | {
      readonly kind: 'task.complete'
      readonly id: string
      readonly tenant: string
      readonly human: Human
      readonly task: string
      readonly reason: 'completed' | 'crashed' | 'heartbeat_missed' | 'revoked'
    }

/** What an instruction would do, checked and complete. */
export type Proposal =
  | {
      readonly kind: 'task.open'
      readonly grant: Grant
      readonly authority: readonly Authority[]
      readonly agent: Agent
      readonly ttlS: number
      readonly heartbeat?: boolean
    }
  | { readonly kind: 'task.complete'; readonly grant: Grant; readonly reason: string }

/** A grant as handed to whoever opened the task. Neither form is stored by the gateway: handles are kept hashed. */
export interface IssuedGrant {
  readonly grant: Grant
  /** Opaque stand-in for the grant: `kh_` and 32 random bytes, base64url. */
  readonly handle: string
  /** The same authority as a signed `at+jwt`. */
  readonly token: string
}
