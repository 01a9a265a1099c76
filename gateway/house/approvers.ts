/**
 * The part of the composition root that lets approvers in: their sign-in at pages, their tokens, and the access that agents ask them for.
 */
import { AccessDesk } from '../approval/access.ts'
import type { Audit } from '../audit/audit.ts'
import type { AccessDoor } from '../control/approve/access-routes.ts'
import type { ApprovalPagesDoor } from '../control/approve/approval-pages.ts'
import type { ApproverDoor } from '../control/approve/approver-routes.ts'
import { createSessions } from '../control/approve/approver-session.ts'
import { requestOf } from '../control/tasks/task-views.ts'
import type { Grants } from '../grant/grants.ts'
import { type InstructionRooms, serveInstruction } from '../instruction.ts'
import type { Wanted } from '../protocol/access.ts'
import type { Decider } from '../protocol/approval.ts'
import type { Clock } from '../protocol/clock.ts'
import type { Grant, Human } from '../protocol/grant.ts'
import { uuidv7 } from '../protocol/id.ts'
import type { Instruction } from '../protocol/instruction.ts'
import { GatewayError } from '../protocol/problem.ts'
import { createSignIn, type Leaving } from '../provider/oauth/sign-in.ts'
import { readTokenDigest } from '../provider/oauth/token-digest.ts'
import type { FetchFor } from '../provider/provider.ts'
import type { ReadSecret } from '../provider/reference.ts'
import { documentsIn } from '../provider/sealed/documents.ts'
import type { Sealed } from '../provider/sealed/sealed.ts'
import type { Keys } from '../settings/keys.ts'
import type { Settings } from '../settings.ts'
import { identitiesOf } from './approvals.ts'

interface Parts {
  readonly approvals: ApproverDoor['approvers']['approvals']
  readonly audit: Pick<Audit, 'administer' | 'recordUnder'> & InstructionRooms['audit']
  readonly grants: Grants
  readonly rooms: InstructionRooms
  readonly sealed: Sealed
  readonly readSecret: ReadSecret
  readonly fetchFor: FetchFor
  readonly keys: Pick<Keys, 'sessions'>
  readonly clock: Clock
}

export interface HouseApprovers {
  readonly approvals: Parts['approvals']
  /** Undefined: settings name no provider to sign in at, and there are no pages. */
  readonly pages: Pick<ApprovalPagesDoor, 'sessions' | 'signIn' | 'recordSignIn'> | undefined
  readonly access: AccessDoor['access']
  /** Name of an approver → SHA-256 of its token. */
  readonly tokens: ReadonlyMap<string, Buffer>
  /** Who comes with such a token. */
  decider(name: string): Decider
}

/** @throws {Error} naming the setting, when a token cannot be read. */
export async function openHouseApprovers(settings: Settings, parts: Parts): Promise<HouseApprovers> {
  const { approvers, channels } = settings.approvals
  const { readSecret } = parts
  const tokens = Object.entries(channels.tokens).map(async ([name, reference]) => {
    try {
      return [name, await readTokenDigest(reference, readSecret)] as const
    } catch (cause) {
      throw new Error(`approvals.tokens.${name}: ${(cause as Error).message}`, { cause })
    }
  })
  return {
    approvals: parts.approvals,
    pages: pagesOf(settings, parts),
    access: accessOf(settings, parts),
    tokens: new Map(await Promise.all(tokens)),
    decider(name) {
      const [human] = approvers.flatMap((one) => (one.name === name ? identitiesOf(one) : []))
      if (human === undefined) throw new TypeError(`${name} is no approver`) // settings were checked
      return { human, via: 'token' }
    },
  }
}

function pagesOf({ approvals, publicUrl, tenant }: Settings, parts: Parts): HouseApprovers['pages'] {
  const { audit, keys, clock } = parts
  const config = approvals.channels.signIn
  if (config === undefined) return undefined
  const signIn = createSignIn(config, parts)
  const { maxAuthAgeS } = signIn
  return {
    signIn,
    sessions: createSessions<Leaving>({ publicUrl, key: keys.sessions, maxAuthAgeS, clock }),
    recordSignIn: async (human, address) => {
      await audit.administer('admin.approver_signed_in', { tenant, human }, { address })
    },
  }
}

function accessOf({ tenant, approvals }: Settings, parts: Parts): AccessDoor['access'] {
  const { audit, clock, rooms } = parts
  const { approvers, channels, groups } = approvals
  const granting = new Set(channels.access.flatMap((group) => groups.get(group) ?? []))
  const granters = approvers.filter(({ name }) => granting.has(name)).flatMap(identitiesOf)
  const desk = new AccessDesk({
    tenant,
    clock,
    maxPerHour: approvals.maxPerHour,
    documents: documentsIn(parts.sealed, 'access/'),
    check: (beside, wanted, human) =>
      check(opening({ beside, wanted, human, id: uuidv7(clock.nowMs()) }), human, parts),
    mayGrant: ({ iss, sub }) => granters.some((one) => one.iss === iss && one.sub === sub),
    log: {
      requested: (grant, facts) => audit.recordUnder('approval.access_requested', grant, facts),
      edited: ({ human }, facts) => audit.administer('admin.access_edited', { tenant, human }, facts),
      decided: ({ human }, facts) => audit.administer('admin.access_decided', { tenant, human }, facts),
    },
  })
  return {
    requests: desk,
    async make(event, holder, id) {
      const { wanted, human } = await desk.handOver(holder, id)
      try {
        const issued = await serveInstruction(opening({ beside: holder, wanted, human, id: event }), rooms)
        if (issued === null) throw new TypeError('task.open issues a grant')
        return issued
      } catch (cause) {
        await desk.takeBack(id).catch(() => undefined) // it stays fetched: less authority than was given, never more
        throw cause
      }
    },
  }
}

interface Given {
  readonly beside: Grant
  readonly wanted: Wanted
  /** Default: the human that the agent works for. */
  readonly human: Human | undefined
  readonly id: string
}

type Opening = Extract<Instruction, { kind: 'task.open' }>

function opening({ beside, wanted, human = beside.human, id }: Given): Opening {
  const { tenant, agent, task } = beside
  const { authorization_details: details, ...plain } = wanted
  const request = requestOf({ ...plain, ...(details && { authorization_details: [...details] }) })
  return { kind: 'task.open', id, tenant, human, agent: agent.id, purpose: task.purpose, request, beside }
}

/** What would come of it, of which nothing happens. @param human who gives it: policy is asked as well. */
async function check(instruction: Opening, human: Human | undefined, { rooms }: Parts): Promise<void> {
  const proposal = await rooms.grants.propose(instruction)
  if (human === undefined) return
  const { effect, errors, code, detail } = await rooms.policy.evaluateInstruction(proposal)
  if (effect !== 'allow' || errors.length > 0) throw new GatewayError(code ?? 'policy_denied', detail)
}
