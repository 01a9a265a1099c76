/** What an attribute is that policies read, and what making a grant asks of one service. */
import type { CedarValueJson } from '@cedar-policy/cedar-wasm/nodejs'
import type { Agent, Grant } from '../../protocol/grant.ts'
import type { Workload } from '../../protocol/identity.ts'

export type Value = string | number | boolean | readonly Value[] | { readonly [name: string]: Value }

export interface Attribute<A> {
  /** Undefined: the request has no such thing. */
  read(ask: A): Value | undefined
  readonly cedar?: (value: Value) => CedarValueJson
}

export type Table<A> = Readonly<Record<string, Attribute<A>>>

/** `mint`: a root grant. `delegate`: a grant below another. */
export type GrantAction = 'mint' | 'delegate'

/** What making a grant asks of one service. */
export interface GrantAsk {
  readonly action: GrantAction
  readonly service: string
  readonly operations: readonly string[]
  /** As it would be made. */
  readonly grant: Grant
  readonly agent: Agent
  readonly ttlS: number
  /** Agent of the grant above; empty for a root grant. */
  readonly delegator: string
  /** Some hop of the chain, this one included, is attested by the gateway for a holder without a key. */
  readonly isOnBehalf: boolean
  readonly workload: Workload | undefined
  readonly nowMs: number
}
