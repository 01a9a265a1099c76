/** Grants and tasks as the control door shows them, and what it takes for one. */
import { lineageSentence } from '../../grant/chain/lineage.ts'
import type { TaskRecord } from '../../grant/store/record.ts'
import type {
  DelegateBody,
  GrantBody,
  GrantView,
  HeartbeatView,
  IssuedView,
  TaskDetail,
  TaskView,
} from '../../protocol/control.ts'
import { detailsOf } from '../../protocol/details.ts'
import type { Grant } from '../../protocol/grant.ts'
import type { GrantRequest, IssuedGrant } from '../../protocol/instruction.ts'

export function requestOf(body: GrantBody & Pick<DelegateBody, 'allow_narrowing'>): GrantRequest {
  const { scope, authorization_details: details, ttl_s: ttlS, preset, trace, step, delegable } = body
  const { max_depth: maxDepth, dpop_jkt: jkt, allow_narrowing: allowNarrowing } = body
  return {
    ...(scope !== undefined && { scope }),
    ...(details !== undefined && { details }),
    ...(ttlS !== undefined && { ttlS }),
    ...(preset !== undefined && { preset }),
    ...(trace !== undefined && { trace }),
    ...(step !== undefined && { step }),
    ...(delegable !== undefined && { delegable }),
    ...(maxDepth !== undefined && { maxDepth }),
    ...(allowNarrowing !== undefined && { allowNarrowing }),
    ...(jkt !== undefined && { cnf: { jkt } }),
  }
}

/** @param nowS epoch seconds. */
export function issuedView({ grant, handle, token, narrowed }: IssuedGrant, nowS: number): IssuedView {
  return {
    task: grant.task.id,
    grant: grant.id,
    agent: grant.agent.id,
    human: grant.human.sub,
    scope: scopeOf(grant),
    authorization_details: detailsOf(grant.authority),
    ...(handle !== undefined && { handle }),
    token,
    expires_at: grant.expiresAt,
    expires_in: Math.max(0, Math.floor(grant.expiresAt - nowS)),
    lineage: lineageSentence(grant),
    ...(narrowed !== undefined && { narrowed }),
  }
}

export function taskView({ root, state, watched, createdAt, expiresAt }: TaskRecord): TaskView {
  return {
    task: root.task.id,
    grant: root.id,
    agent: root.agent.id,
    human: root.human.sub,
    purpose: root.task.purpose,
    scope: scopeOf(root),
    state,
    preset: root.preset ?? 'per-task',
    created_at: createdAt,
    issued_at: root.issuedAt,
    expires_at: expiresAt,
    heartbeat: watched,
  }
}

export function heartbeatView({ root, state, expiresAt }: TaskRecord): HeartbeatView {
  return { expires_at: expiresAt, grant: root.id, state }
}

export function taskDetail(task: TaskRecord, grants: readonly Grant[]): TaskDetail {
  return { ...taskView(task), authorization_details: detailsOf(task.root.authority), grants: grants.map(grantView) }
}

export function grantView(grant: Grant): GrantView {
  const parent = grant.ancestry.at(-1)?.id
  const { step, trace, instance, cnf } = grant
  return {
    grant: grant.id,
    task: grant.task.id,
    agent: grant.agent.id,
    human: grant.human.sub,
    purpose: grant.task.purpose,
    scope: scopeOf(grant),
    authorization_details: detailsOf(grant.authority),
    issued_at: grant.issuedAt,
    expires_at: grant.expiresAt,
    depth: grant.depth,
    max_depth: grant.maxDepth,
    delegable: grant.delegable,
    attested: grant.attested === true,
    preset: grant.preset ?? 'per-task',
    ...(parent !== undefined && { parent }),
    ...(step !== undefined && { step }),
    ...(trace !== undefined && { trace }),
    ...(instance !== undefined && { instance }),
    ...(cnf !== undefined && { cnf }),
    actor_proofs: grant.attestations,
    lineage: lineageSentence(grant),
  }
}

function scopeOf(grant: Grant): string {
  return [...new Set(grant.authority.flatMap(({ operations }) => operations))].join(' ')
}
