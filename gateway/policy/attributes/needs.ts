/** What the policies of a slice look at that is not had for nothing: worked out when they load, so that nobody else pays. */
import { type Needs, NO_NEEDS } from '../../protocol/decision.ts'
import type { Operation } from '../../protocol/service.ts'
import type { Policy } from '../source/policy-file.ts'
import { selectCall } from './attributes.ts'
import { pastFields } from './call.ts'
import type { Reading } from './reads.ts'

export interface SliceNeeds {
  readonly needs: Needs
  /** Fields of the past that a decision rests on. */
  readonly past: readonly string[]
}

export const NEEDS_NOTHING: SliceNeeds = { needs: NO_NEEDS, past: [] }

export function needsOf(
  { parameters = [] }: Operation,
  policies: readonly Policy[],
  readings: ReadonlySet<Reading>,
): SliceNeeds {
  const { names } = selectCall(readings)
  const isShown = policies.some(({ obligations }) => obligations.log === 'full')
  const params = parameters.length > 0 && (isShown || names.includes('context.params'))
  const past = pastFields(names)
  const needs = {
    params,
    body: params && parameters.some(({ from }) => from.place === 'body'),
    left: names.includes('context.calls_left') || names.includes('context.bytes_left'),
    past: past.length > 0,
  }
  return Object.values(needs).includes(true) ? { needs, past } : NEEDS_NOTHING
}
