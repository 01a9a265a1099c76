/** The charge that counts a call among those of its task. Pure. */
import type { Past } from '../../protocol/decision.ts'
import type { Grant } from '../../protocol/grant.ts'
import { fieldsOf } from '../../protocol/past.ts'
import type { PastCharge } from '../store/store.ts'
import { SUSPENDED_S } from './task.ts'

/** What of an operation is counted. */
export type Counted = Parameters<typeof fieldsOf>[0]

/** @param seen fields that the decision rests on, and what they counted. */
export function pastCharge(grant: Grant, operation: Counted, seen: Past): PastCharge {
  return { name: pastName(grant), kind: 'past', ...fieldsOf(operation), seen, untilS: grant.expiresAt + SUSPENDED_S }
}

export function pastName({ task }: Pick<Grant, 'task'>): string {
  return `past/${task.id}`
}
