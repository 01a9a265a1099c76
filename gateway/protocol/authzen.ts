/** AuthZEN 1.0 (Authorization API): what is asked of a decision point, and what it answers. */
import type { Grant } from './grant.ts'

export interface Entity {
  readonly type: string
  readonly id: string
  readonly properties?: Readonly<Record<string, unknown>>
}

/** §5. */
export interface Evaluation {
  readonly subject: Entity
  readonly action: { readonly name: string; readonly properties?: Readonly<Record<string, unknown>> }
  readonly resource: Entity
  readonly context?: Readonly<Record<string, unknown>>
}

/** §6.2: `decision` is a boolean, and whatever else is said stands in the context. */
export interface Evaluated {
  readonly decision: boolean
  readonly context?: Readonly<Record<string, unknown>>
}

/** §7.1.2.1 */
export const SEMANTICS = ['execute_all', 'deny_on_first_deny', 'permit_on_first_permit'] as const
export type Semantics = (typeof SEMANTICS)[number]

/** Who asks: by which name it stands in the log, from where, and with which grant, if that is what it is known by. */
export interface AskedBy {
  readonly name: string
  readonly address: string
  readonly holder?: Grant
}
