/**
 * The part of the composition root that has humans approve what policy wants approved: says what of a request they are asked
 * about, keeps that where the grants are, and wakes what waits.
 */
import { isUtf8 } from 'node:buffer'
import { hash } from 'node:crypto'
import { join } from 'node:path'
import type { Redis } from 'ioredis'
import { type ApprovalRoom, createApprovals } from '../approval/approvals.ts'
import { requestForm, spokenFields } from '../approval/fingerprint.ts'
import type { Waiter } from '../approval/holding.ts'
import type { Identity, People } from '../approval/people.ts'
import { createApprovalSeal } from '../approval/seal.ts'
import type { Asked } from '../approval/seeking.ts'
import { openRedisApprovals } from '../approval/store-redis.ts'
import { openSqliteApprovals } from '../approval/store-sqlite.ts'
import type { Audit } from '../audit/audit.ts'
import type { Grants } from '../grant/grants.ts'
import type { GrantStore } from '../grant/store/store.ts'
import type { InstructionRooms } from '../instruction.ts'
import { type ApprovalFacts, type ApprovalTerms, type Approved, ROOT_HUMAN } from '../protocol/approval.ts'
import type { Clock } from '../protocol/clock.ts'
import { type Decision, isAllowed } from '../protocol/decision.ts'
import type { Grant } from '../protocol/grant.ts'
import type { Instruction, Proposal } from '../protocol/instruction.ts'
import { asGatewayError } from '../protocol/problem.ts'
import type { Decided, RequestRooms } from '../request-rooms.ts'
import type { Keys } from '../settings/keys.ts'
import type { Settings } from '../settings.ts'
import { cleanse } from '../upstream/headers.ts'
import { operator } from './audit.ts'

/** UTF-16 units of what agents say. */
const INTENT_CHARS = 500
const AGENT_CHARS = 200
const CONTENT_CHARS = 4096

interface Parts {
  readonly audit: Pick<Audit, 'record' | 'recordUnder' | 'administer'>
  readonly grants: Pick<Grants, 'aside' | 'task' | 'named'>
  readonly watch: Grants['watch']
  readonly store: Pick<GrantStore, 'spend'>
  readonly keys: Pick<Keys, 'store'>
  readonly redis: Redis | undefined
  readonly clock: Clock
}

export interface HouseApprovals {
  readonly room: ApprovalRoom
  /** What the flows need of it. */
  readonly flow: RequestRooms['approvals'] & InstructionRooms['approvals']
}

export function openHouseApprovals(settings: Settings, parts: Parts): HouseApprovals {
  const { tenant, publicUrl, approvals } = settings
  const { audit, grants, store, clock, redis } = parts
  const path = join(settings.dataDir, 'approvals.sqlite')
  const room = createApprovals({
    ...{ tenant, clock, seal: createApprovalSeal(parts.keys.store), people: peopleOf(settings) },
    ...{ lifeMs: approvals.lifeMs, maxPending: approvals.maxPending },
    store: redis ? openRedisApprovals({ redis, clock }) : openSqliteApprovals({ path, clock }),
    statusUrl: (id) => `${publicUrl}/approvals/${id}/status`,
    log: {
      under: (kind, grant, facts) => audit.recordUnder(kind, grant, facts),
      decided: (who, facts) => audit.administer('approval.decided', who, facts),
      expired: (of, facts) => audit.record('approval.expired', of, facts),
    },
    async paced({ tenant: of, agent, task }) {
      const untilS = Math.ceil(clock.nowMs() / 1000) + 3600
      const rate = { kind: 'rate', n: approvals.maxPerHour, perS: 3600, untilS } as const
      // By task as well: who delegates does not get as many again for every child.
      const names = [`approvals/${agent.id}`, `approvals-of-task/${task.id}`]
      return (
        (await store.spend(
          of,
          names.map((name) => ({ ...rate, name })),
        )) === -1
      )
    },
    isWanted: (facts, of) => isWanted(facts, of, grants),
  })
  return {
    room,
    flow: {
      sought: (call, sinceMs) =>
        room.seek(askedBy(call), { waiter: waiterOf(call, parts), untilMs: sinceMs + approvals.holdMs }),
      approved: (call) =>
        call.decision.obligations.approval && isAllowed(call.decision) ? room.take(askedBy(call)) : undefined,
      instructed: (instruction, proposal, decision) => instructed(room, { instruction, proposal, decision }),
    },
  }
}

function peopleOf({ approvals: { approvers, groups } }: Settings): People {
  return { groups, approvers: approvers.map((one) => ({ name: one.name, identities: identitiesOf(one) })) }
}

/** Of one approver. A user of this machine is who can open the socket as that user: known by the name that the socket gives. */
export function identitiesOf({ local, identities }: Settings['approvals']['approvers'][number]): readonly Identity[] {
  return local === undefined ? identities : [...identities, { iss: operator().iss, sub: local }]
}

function waiterOf({ inbound, grant, endpoint }: Decided, { grants, watch }: Parts): Waiter {
  return {
    client: inbound.reply,
    watch: (cut) => watch(grant, cut, endpoint.service),
    agent: `${grant.tenant} ${grant.agent.id}`,
    bytes: inbound.content?.bytes.length ?? 0,
    aside: () => grants.aside(grant),
  }
}

/** A call, as it will leave but for the credential. */
function askedBy(decided: Decided): Asked {
  const { inbound, grant, endpoint, decision } = decided
  const terms = decision.obligations.approval as ApprovalTerms // the flow asks for nothing else
  const { body, ...leaving } = cleanse(inbound, decided)
  const bytes = Buffer.isBuffer(body) && body.length > 0 ? body : undefined
  const sha256 = bytes && hash('sha256', bytes, 'base64url')
  const request = { ...leaving, body: bytes, isUpgrade: inbound.upgrade !== undefined }
  const { service, operation } = endpoint
  return {
    ...{ grant, terms, event: inbound.id, operation: operation.name },
    what: requestForm(request, terms, sha256 ?? null),
    describe() {
      const { method, scheme, host, port, path, headers, isUpgrade } = request
      const fields = spokenFields(headers, terms.fields)
      const type = fields.find(([name]) => name === 'content-type')?.[1]
      return {
        facts: {
          ...whoAsks(grant),
          operation: operation.name,
          access: operation.access,
          sensitivity: operation.sensitivity,
          isIrreversible: operation.irreversible,
          request: {
            ...{ service: service.name, method, scheme, host, port, path, fields },
            ...(isUpgrade && { isUpgrade }),
            ...(bytes && sha256 && { body: { bytes: bytes.length, sha256, type } }),
          },
        },
        agentSays: {
          intent: grant.task.purpose.slice(0, INTENT_CHARS),
          ...(inbound.client.userAgent && { userAgent: inbound.client.userAgent.slice(0, AGENT_CHARS) }),
          ...(bytes && isUtf8(bytes) && { content: bytes.toString('utf8').slice(0, CONTENT_CHARS) }),
        },
      }
    },
  }
}

function whoAsks({ human, agent, attested, task, id, lineage }: Grant) {
  const { iss, sub } = human
  return { human: { iss, sub }, agent, isAttested: attested === true, task: { id: task.id }, grant: id, lineage }
}

interface Instructed {
  readonly instruction: Instruction
  readonly proposal: Proposal
  readonly decision: Decision
}

async function instructed(
  room: ApprovalRoom,
  { instruction, proposal, decision }: Instructed,
): Promise<Approved | undefined> {
  const wanted = decision.obligations.approval
  if (wanted === undefined || !('ttlS' in proposal)) return undefined
  const { human } = proposal.grant
  const isOwn = 'human' in instruction && instruction.human.iss === human.iss && instruction.human.sub === human.sub
  const terms = isOwn ? withoutHuman(wanted) : wanted
  const asked = askedOf(instruction.id, proposal, terms)
  if (terms.count === 0 && terms.from.length === 0)
    return { id: instruction.id, by: [human], fingerprint: room.fingerprint(asked) }
  await room.seek(asked)
  return room.take(asked)
}

/** Who gives the instruction says yes to it by that. */
function withoutHuman(terms: ApprovalTerms): ApprovalTerms {
  if (!terms.from.includes(ROOT_HUMAN)) return terms
  const from = terms.from.filter((group) => group !== ROOT_HUMAN)
  return { ...terms, from, count: Math.max(terms.count - 1, from.length > 0 ? 1 : 0) }
}

type Issuing = Extract<Proposal, { readonly ttlS: number }>

/** A grant to be made. Its id, and that of a new task, are of this attempt alone. */
function askedOf(event: string, proposal: Issuing, terms: ApprovalTerms): Asked {
  const { kind, grant, authority, agent, ttlS } = proposal
  const operation = kind === 'grant.delegate' ? 'delegate' : 'mint'
  const { maxDepth, delegable, cnf, preset, step, trace, instance, attested, ancestry } = grant
  const bounds = { maxDepth, delegable, cnf, preset, step, trace, instance, attested }
  const above = kind === 'grant.delegate' ? proposal.parent : kind === 'grant.replace' ? proposal.old : undefined
  // Whoever asks: for a child the grant above it, for a new task nobody but its human and agent.
  const asker: Grant = above ?? {
    ...grant,
    id: '',
    task: { ...grant.task, id: '' },
    lineage: grant.lineage.slice(0, 1),
  }
  return {
    ...{ grant: above ?? grant, terms, event, operation },
    identity: asker,
    what: JSON.parse(
      JSON.stringify({
        kind,
        authority,
        agent: agent.id,
        ttlS,
        bounds,
        purpose: grant.task.purpose,
        above: ancestry.map(({ id }) => id),
      }),
    ) as object,
    describe: () => ({
      facts: {
        ...whoAsks(above ?? grant),
        ...{ agent, operation, access: 'admin', sensitivity: 'internal', isIrreversible: false, authority, ttlS },
      },
      agentSays: { intent: grant.task.purpose.slice(0, INTENT_CHARS) },
    }),
  }
}

/** Whether somebody could still use it: the task that asked lives, and a grant below its root does too. A parked task comes back. */
async function isWanted(facts: ApprovalFacts, tenant: string, { task, named }: Parts['grants']): Promise<boolean> {
  const isNewTask = facts.request === undefined && facts.operation === 'mint'
  if (isNewTask) return true
  try {
    await task(tenant, facts.task.id)
    if (facts.lineage.length > 2) await named(tenant, facts.grant)
    return true
  } catch (cause) {
    const { code } = asGatewayError(cause)
    if (code === 'task_suspended') return true
    if (code === 'task_unknown' || code === 'grant_revoked' || code === 'grant_expired' || code === 'grant_invalid')
      return false
    throw cause
  }
}
