/**
 * The steps of FLOW 1 by which it is decided on a call: where it goes and what it says, what policy is asked, who has to agree first, and
 * what it costs. Whatever takes time is followed by another look at the grant, which may have ended meanwhile.
 */
import { isDeepStrictEqual } from 'node:util'
import type { CallEvent } from './audit/entries/event.ts'
import { type Permit, requirePermit } from './policy/decision.ts'
import type { Approved } from './protocol/approval.ts'
import type { Ask, Decision } from './protocol/decision.ts'
import type { Grant } from './protocol/grant.ts'
import type { Inbound } from './protocol/message.ts'
import { Meter } from './protocol/meter.ts'
import { GatewayError } from './protocol/problem.ts'
import { needsBody } from './protocol/reach.ts'
import type { Endpoint } from './protocol/service.ts'
import { traceIdOf } from './protocol/trace.ts'
import type { Allowance, Decided, RequestRooms } from './request-rooms.ts'
import { needsContent, readContent, readForm, readWhole } from './upstream/content.ts'

/** Where it goes; with its form, where that says which operation it is. */
export async function located(inbound: Inbound, event: CallEvent, house: RequestRooms) {
  const asked = house.catalogue.locate(inbound)
  const told = asked.service.saysInForms === true ? await readForm(inbound) : inbound
  if (told === inbound) return { told, endpoint: event.located(asked) }
  await house.grants.authenticate(inbound)
  return { told, endpoint: event.located(house.catalogue.locate(told)) }
}

/**
 * With its body where a grant or a policy looks into it, or the service takes credentials there or signs it. All of it also where policy
 * looks at earlier calls: what is said later could come from what is read later.
 */
export async function said(inbound: Inbound, grant: Grant, { service, operation }: Endpoint, house: RequestRooms) {
  const needs = house.policy.needs(operation)
  const isJudged = needs.body || needsBody(grant, operation.name)
  if (!isJudged && !needs.past && !needsContent(service, inbound)) return inbound
  const read = isJudged || needsContent(service, inbound)
  const whole = await readWhole(read ? await readContent(inbound, service, isJudged) : inbound)
  await house.grants.authenticate(inbound) // the agent took its time to send all of it, and its grant may have ended meanwhile
  return whole
}

/**
 * What policy says, and, where somebody has to agree first, what it says once they have: that takes time, in which grants end and
 * policies change.
 */
export async function decide(call: Undecided, event: CallEvent, house: RequestRooms): Promise<Decided> {
  let decided = await evaluated(call, event, house)
  if (!takesApproval(decided.decision)) return decided
  const sinceMs = house.nowMs()
  const inbound = await readWhole(call.inbound) // what is approved is all of it
  if (inbound !== call.inbound) {
    await house.grants.authenticate(inbound) // as in `said`
    decided = await evaluated({ ...call, inbound }, event, house)
  }
  while (takesApproval(decided.decision) && !(await house.approvals.sought(decided, sinceMs))) {
    await house.grants.authenticate(inbound)
    decided = await evaluated({ ...call, inbound }, event, house)
  }
  return decided
}

async function evaluated(call: Undecided, event: CallEvent, house: RequestRooms): Promise<Decided> {
  const { policy, grants } = house
  const asked = await policy.informed(ask(call.inbound, call.grant, call.endpoint, house), grants)
  const deciding = policy.evaluate(asked)
  const decision = event.decided(await deciding)
  if (deciding instanceof Promise) await grants.authenticate(call.inbound) // engines outside took their time, as in `said`
  return { ...call, ask: asked, decision }
}

/** Calls of one task that overtake each other are decided one after the other; more of them at once is more than anybody can follow. */
const MAX_OVERTAKEN = 16

/** Spent; decided anew as often as other calls of the task came first. What a new decision obliges to has to be what was done for the old one. */
export async function paid(
  permit: Permit,
  { approved, ...decided }: Decided & { readonly approved: Approved | undefined },
  event: CallEvent,
  house: RequestRooms,
) {
  for (let now = permit, n = 0; n < MAX_OVERTAKEN; n++) {
    const allowance = await house.grants.debit(now)
    if (allowance !== 'moved') return { permit: now, allowance }
    const { decision } = await evaluated(decided, event, house)
    const { obligations } = permit.decision
    if (decision.effect === 'allow' && !isDeepStrictEqual(decision.obligations, obligations)) break
    now = requirePermit(decided.grant, decided.endpoint, decision, approved)
  }
  throw new GatewayError(
    'too_many_requests',
    'Policy looks at the earlier calls of this task, and others are being made at the same time. Make them one after the other.',
  )
}

type Undecided = Pick<Decided, 'inbound' | 'grant' | 'endpoint'>

function takesApproval({ effect, errors, obligations }: Decision): boolean {
  return effect === 'allow' && errors.length === 0 && obligations.approval !== undefined
}

/** What policy is asked about a call. */
export function ask(inbound: Inbound, grant: Grant, endpoint: Endpoint, house: Pick<RequestRooms, 'nowMs'>): Ask {
  const { method, rawPath, client, content } = inbound
  const traceId = inbound.trace === undefined ? undefined : traceIdOf(inbound.trace)
  return {
    grant,
    endpoint,
    method,
    rawPath,
    sourceAddress: client.address,
    nowMs: house.nowMs(),
    body: content?.json,
    traceId,
    isUpgrade: inbound.upgrade !== undefined,
    mode: inbound.mode,
  }
}

/** Undefined when no budget above this call counts bytes. */
export function meterOf(permit: Permit, allowance: Allowance | undefined, { grants }: RequestRooms): Meter | undefined {
  if (allowance === undefined) return undefined
  return new Meter(
    allowance.bytes,
    (traffic) => grants.settle(permit, traffic),
    (bytes) => allowance.take(bytes),
  )
}
