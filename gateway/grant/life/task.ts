/**
 * Tasks as they live, who may speak for one, and the names whose end ends a grant. A task outlives its root grants: a change of
 * intent and a resumption put a fresh one in place of the old.
 */
import type { Grant } from '../../protocol/grant.ts'
import type { Mandate } from '../../protocol/instruction.ts'
import { GatewayError } from '../../protocol/problem.ts'
import type { Room } from '../room.ts'
import type { TaskRecord } from '../store/record.ts'

/** Seconds that a suspended task waits for whoever has to approve; then it is over. */
export const SUSPENDED_S = 7 * 24 * 3600

/** Steps of a task share its grants' fate by name; one name per task and step. */
export function stepMark(task: string, step: string): string {
  return `${task}/${step}`
}

/** Names whose end ends this grant: itself, everything above it, or beside which it was given, its task, its step. */
export function marksOf(grant: Grant): readonly string[] {
  const marks = [grant.id, ...grant.ancestry.map(({ id }) => id), grant.task.id]
  for (let by = grant.beside; by !== undefined; by = by.beside) marks.push(...by.grants)
  if (grant.step !== undefined) marks.push(stepMark(grant.task.id, grant.step))
  return marks
}

type Shelf = Pick<Room, 'store' | 'records' | 'clock'>

/** The task as it is now. @throws {GatewayError} `task_unknown` for one that never was, has expired or has ended. */
export async function livingTask(tenant: string, id: string, room: Shelf): Promise<TaskRecord> {
  const known = await room.store.task(tenant, id)
  if (known === undefined) throw unknown('There is no such task.')
  if (known.ended !== undefined) throw unknown(`The task has ended (${known.ended.replaceAll('_', ' ')}).`)
  const task = room.records.openTask(known)
  if (task.id !== id || task.tenant !== tenant) throw unknown('The store has another task in its place.')
  if (task.expiresAt * 1000 <= room.clock.nowMs()) throw unknown('The task has expired.')
  return task
}

/**
 * The task, for the owner of the socket or the holder of its root grant. Whoever holds a grant of another task learns nothing.
 * @throws {GatewayError} `grant_missing`, `task_unknown`, `delegation_refused`
 */
export async function mandated(
  i: { readonly tenant: string; readonly task: string; readonly by: Mandate },
  room: Shelf,
): Promise<TaskRecord> {
  if ('client' in i.by)
    throw new GatewayError('grant_missing', 'Nobody is known to give this instruction. Send the grant of the task.')
  const holder = 'holder' in i.by ? i.by.holder : undefined
  if (holder !== undefined && holder.task.id !== i.task) throw unknown('There is no such task.')
  const task = await livingTask(i.tenant, i.task, room)
  if (holder === undefined || holder.id === task.root.id) return task
  throw new GatewayError(
    'delegation_refused',
    'Only the holder of the root grant speaks for the whole task. A delegated grant can be revoked by its own holder.',
  )
}

function unknown(what: string): GatewayError {
  return new GatewayError('task_unknown', `${what} \`keyless task list\` shows the tasks that are alive.`)
}
