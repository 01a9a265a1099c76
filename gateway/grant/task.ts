/**
 * A task as the gateway remembers it, and the names whose end ends a grant. The record outlives its root grants: a change of
 * intent and a resumption put a fresh one in place of the old.
 */
import type { Authority, Grant } from '../protocol/grant.ts'

/** Sealed at rest (`record.ts`). */
export interface TaskRecord {
  readonly id: string
  readonly tenant: string
  /** The root grant as last issued: human, agent, declared intent, expiry. Whether it lives is in the store. */
  readonly root: Grant
  /** What the human authorised last; a holder that changes its intent stays within. */
  readonly ceiling: readonly Authority[]
  readonly state: 'active' | 'suspended'
  /** Heartbeats were promised; missed ones end the task. None are missed while it is suspended. */
  readonly watched: boolean
  /** Epoch seconds. */
  readonly createdAt: number
  /** Epoch seconds until which it can be worked on: the expiry of its root grant, or later while it is suspended. */
  readonly expiresAt: number
  /** Counts changes from 0; a change that another one has overtaken is refused by the store. */
  readonly version: number
}

/** Seconds that a suspended task waits for whoever has to approve; then it is over. */
export const SUSPENDED_S = 7 * 24 * 3600

/** Steps of a task share its grants' fate by name; one name per task and step. */
export function stepMark(task: string, step: string): string {
  return `${task}/${step}`
}

/** Names whose end ends this grant: itself, everything above it, its task, its step. */
export function marksOf(grant: Grant): readonly string[] {
  const marks = [grant.id, ...grant.ancestry.map(({ id }) => id), grant.task.id]
  if (grant.step !== undefined) marks.push(stepMark(grant.task.id, grant.step))
  return marks
}
