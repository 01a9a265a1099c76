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
import type { Endpoint, Service } from './protocol/service.ts'
import { traceIdOf } from './protocol/trace.ts'
import type { Allowance, Debit, Decided, RequestRooms } from './request-rooms.ts'
import { needsContent, readContent, readForm, readWhole } from './upstream/content.ts'

/** Where it goes; with its form, where that says which operation it is. */
export function located(inbound: Inbound, event: CallEvent, house: RequestRooms): Located | Promise<Located> {
  const asked = house.catalogue.locate(inbound)
  if (asked.service.saysInForms === true) return locatedByForm(inbound, asked, event, house)
  return { told: inbound, endpoint: event.located(asked) }
}

async function locatedByForm(inbound: Inbound, asked: Endpoint, event: CallEvent, house: RequestRooms) {
  const told = await readForm(inbound)
  if (told === inbound) return { told, endpoint: event.located(asked) }
  await house.grants.authenticate(inbound)
  return { told, endpoint: event.located(house.catalogue.locate(told)) }
}

/**
 * With its body where a grant or a policy looks into it, or the service takes credentials there or signs it. All of it also where policy
 * looks at earlier calls: what is said later could come from what is read later.
 */
export function said(
  inbound: Inbound,
  grant: Grant,
  { service, operation }: Endpoint,
  house: RequestRooms,
): Inbound | Promise<Inbound> {
  const needs = house.policy.needs(operation)
  const isJudged = needs.body || needsBody(grant, operation.name)
  const read = isJudged || needsContent(service, inbound)
  return read || needs.past ? saidInBody(inbound, read ? { service, isJudged } : undefined, house) : inbound
}

async function saidInBody(inbound: Inbound, read: Reading | undefined, house: RequestRooms): Promise<Inbound> {
  const whole = await readWhole(read ? await readContent(inbound, read.service, read.isJudged) : inbound)
  await house.grants.authenticate(inbound) // the agent took its time to send all of it, and its grant may have ended meanwhile
  return whole
}

/**
 * What policy says, and, where somebody has to agree first, what it says once they have: that takes time, in which grants end and
 * policies change.
 */
export function decide(call: Undecided, event: CallEvent, house: RequestRooms): Decided | Promise<Decided> {
  const decided = evaluated(call, event, house)
  const isLast = !(decided instanceof Promise) && !takesApproval(decided.decision)
  return isLast ? decided : agreed(decided, event, house)
}

async function agreed(first: Decided | Promise<Decided>, event: CallEvent, house: RequestRooms): Promise<Decided> {
  let decided = await first
  if (!takesApproval(decided.decision)) return decided
  await house.grants.afford(decided) // nobody is asked for what cannot be done any more
  const sinceMs = house.nowMs()
  const inbound = await readWhole(decided.inbound) // what is approved is all of it
  const call = { ...decided, inbound }
  if (inbound !== decided.inbound) {
    await house.grants.authenticate(inbound) // as in `said`
    decided = await evaluated(call, event, house)
  }
  while (takesApproval(decided.decision) && !(await house.approvals.sought(decided, sinceMs))) {
    await house.grants.authenticate(inbound)
    decided = await evaluated(call, event, house)
  }
  return decided
}

// Of most calls nothing has to be waited for: then there is neither a promise nor a closure.

function evaluated(call: Undecided, event: CallEvent, house: RequestRooms): Decided | Promise<Decided> {
  const asked = house.policy.informed(ask(call.inbound, call.grant, call.endpoint, house), house.grants)
  return asked instanceof Promise ? judgedLate(call, asked, event, house) : judged(call, asked, event, house)
}

async function judgedLate(call: Undecided, asked: Promise<Ask>, event: CallEvent, house: RequestRooms) {
  return judged(call, await asked, event, house)
}

function judged(call: Undecided, asked: Ask, event: CallEvent, house: RequestRooms): Decided | Promise<Decided> {
  const decision = house.policy.evaluate(asked)
  if (decision instanceof Promise) return judgedOutside({ ...call, ask: asked }, decision, event, house)
  return {
    inbound: call.inbound,
    grant: call.grant,
    endpoint: call.endpoint,
    decision: event.decided(decision),
    ask: asked,
  }
}

async function judgedOutside(
  call: Omit<Decided, 'decision'>,
  deciding: Promise<Decision>,
  event: CallEvent,
  house: RequestRooms,
): Promise<Decided> {
  const decision = event.decided(await deciding)
  await house.grants.authenticate(call.inbound) // engines outside took their time, as in `said`
  return { ...call, decision }
}

/** Calls of one task that overtake each other are decided one after the other; more of them at once is more than anybody can follow. */
const MAX_OVERTAKEN = 16

/** Spent; decided anew as often as other calls of the task came first. What a new decision obliges to has to be what was done for the old one. */
export function paid(permit: Permit, call: Agreed, event: CallEvent, house: RequestRooms): Paid | Promise<Paid> {
  const allowance = house.grants.debit(permit)
  const isLast = !(allowance instanceof Promise) && allowance !== 'moved'
  return isLast ? { permit, allowance } : paidAnew({ permit, allowance }, call, event, house)
}

async function paidAnew(first: Paying, { decided, approved }: Agreed, event: CallEvent, house: RequestRooms) {
  let { permit, allowance } = { ...first, allowance: await first.allowance }
  for (let n = 1; allowance === 'moved'; n++) {
    const { decision } = await evaluated(decided, event, house)
    const { obligations } = permit.decision
    if (decision.effect === 'allow' && !isDeepStrictEqual(decision.obligations, obligations)) throw overtaken()
    permit = requirePermit(decided.grant, decided.endpoint, decision, approved)
    if (n === MAX_OVERTAKEN) throw overtaken()
    allowance = await house.grants.debit(permit)
  }
  return { permit, allowance }
}

function overtaken(): GatewayError {
  return new GatewayError(
    'too_many_requests',
    'Policy looks at the earlier calls of this task, and others are being made at the same time. Make them one after the other.',
  )
}

interface Located {
  readonly told: Inbound
  readonly endpoint: Endpoint
}

/** For whom a body is read. */
interface Reading {
  readonly service: Service
  /** By grant or policy. */
  readonly isJudged: boolean
}

type Undecided = Pick<Decided, 'inbound' | 'grant' | 'endpoint'>

/** A call that policy allows, and by whose consent. */
interface Agreed {
  readonly decided: Decided
  readonly approved: Approved | undefined
}

interface Paid {
  readonly permit: Permit
  readonly allowance: Allowance | undefined
}

interface Paying {
  readonly permit: Permit
  readonly allowance: Debit | Promise<Debit>
}

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
