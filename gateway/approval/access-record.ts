/** One request for access as it is kept, and as it is shown. Pure. */
import { isDeepStrictEqual } from 'node:util'
import type { AccessAsk, AccessState, AccessView, Wanted } from '../protocol/access.ts'
import type { Agent, Grant, Human, LineageStep, Task } from '../protocol/grant.ts'
import { uuidv7 } from '../protocol/id.ts'

/** Milliseconds that a request waits for a human. */
const WAITS_MS = 60 * 60_000
const LONGEST_SAID = 500

/** Milliseconds since the epoch. */
export interface AccessRecord {
  readonly id: string
  readonly tenant: string
  /** The grant that it was asked with. Says what it is, and is no way to use it: handles and tokens are not in it. */
  readonly holder: Grant
  readonly state: Exclude<AccessState, 'expired'>
  readonly wanted: Wanted
  readonly asked?: Wanted
  /** Who changed it last. */
  readonly editedBy?: Pick<Human, 'iss' | 'sub'>
  readonly agent: Agent
  readonly human: Pick<Human, 'iss' | 'sub'>
  readonly task: Task
  readonly lineage: readonly LineageStep[]
  readonly agentSays: AccessView['agentSays']
  readonly decidedBy?: { readonly human: Human; readonly via: string; readonly at: number }
  readonly createdMs: number
  /** Until when it can be decided; once granted, until when it can be fetched. */
  readonly untilMs: number
}

export function wantedOf({ scope, authorization_details, ttl_s }: AccessAsk): Wanted {
  return {
    ...(scope !== undefined && { scope }),
    ...(authorization_details !== undefined && { authorization_details }),
    ...(ttl_s !== undefined && { ttl_s }),
  }
}

export function recordOf(
  holder: Grant,
  asked: AccessAsk,
  { tenant, nowMs }: { readonly tenant: string; readonly nowMs: number },
): AccessRecord {
  const { agent, human, task, lineage } = holder
  return {
    id: uuidv7(nowMs),
    tenant,
    holder,
    state: 'pending',
    wanted: wantedOf(asked),
    agent,
    human: { iss: human.iss, sub: human.sub },
    task,
    lineage,
    agentSays: {
      reason: asked.reason.slice(0, LONGEST_SAID),
      intent: task.purpose.slice(0, LONGEST_SAID),
      ...(asked.event !== undefined && { event: asked.event }),
    },
    createdMs: nowMs,
    untilMs: nowMs + WAITS_MS,
  }
}

export function viewOf(record: AccessRecord, nowMs: number): AccessView {
  const { id, tenant, wanted, asked, agent, human, task, lineage, agentSays, decidedBy, holder } = record
  const isOver = nowMs >= record.untilMs && (record.state === 'pending' || record.state === 'granted')
  return {
    id,
    tenant,
    state: isOver ? 'expired' : record.state,
    wanted,
    ...(asked !== undefined && { asked }),
    agent,
    isAttested: holder.attested === true,
    human,
    task: { id: task.id },
    grant: holder.id,
    lineage,
    agentSays,
    ...(decidedBy && {
      decidedBy: {
        human: { iss: decidedBy.human.iss, sub: decidedBy.human.sub },
        at: decidedBy.at,
        via: decidedBy.via,
      },
    }),
    createdAt: Math.floor(record.createdMs / 1000),
    expiresAt: Math.floor(record.untilMs / 1000),
  }
}

export function sameWanted(one: Wanted, other: Wanted): boolean {
  return isDeepStrictEqual(one, other)
}

const MOST_TOLD = 64

/** Everything that is named in it, for the record. */
export function operationsOf({ scope = '', authorization_details: details = [] }: Wanted): string[] {
  const named = details.flatMap((one) => ('operations' in one && Array.isArray(one.operations) ? one.operations : []))
  const all = [...scope.split(' ').filter(Boolean), ...named.filter((one) => typeof one === 'string')]
  return [...new Set(all)].slice(0, MOST_TOLD)
}
