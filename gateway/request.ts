/**
 * FLOW 1: one proxied request. Decide, record, lease, attach: no credential exists before its decision is durable.
 * Forward, intercepted and reverse requests differ only in how their `Inbound` was made.
 */
import { isDeepStrictEqual } from 'node:util'
import type { CallEvent, Receipt } from './audit/event.ts'
import type { Lease } from './lease/lease.ts'
import { type Permit, requirePermit } from './policy/decision.ts'
import type { Approved } from './protocol/approval.ts'
import type { Ask, Decision, Facts, Needs, Obligations, Standing } from './protocol/decision.ts'
import type { Grant } from './protocol/grant.ts'
import type { AnswerHead, Inbound, Outbound, Outcome, Reply, TurnedAway } from './protocol/message.ts'
import { Meter, type Traffic } from './protocol/meter.ts'
import { asGatewayError, GatewayError } from './protocol/problem.ts'
import { needsBody } from './protocol/reach.ts'
import type { Endpoint, Operation } from './protocol/service.ts'
import { traceIdOf } from './protocol/trace.ts'
import { needsContent, readContent, readForm, readWhole } from './upstream/content.ts'
import { cleanse } from './upstream/headers.ts'
import type { Inspection } from './upstream/inspection.ts'

/** The few methods that the flow needs of each room; `house.ts` hands them over. */
export interface RequestRooms {
  readonly audit: {
    openCall(inbound: Inbound): CallEvent
    /** Default: nobody counts what never became a request. */
    turnedAway?(why: TurnedAway): void
  }
  readonly catalogue: {
    locate(inbound: Inbound): Endpoint
    /** The same without what an agent put into the path in place of a credential. */
    veiled(inbound: Inbound): Inbound
  }
  readonly grants: {
    authenticate(inbound: Inbound): Grant | Promise<Grant>
    /** One of the agent's seats, or a refusal when too many of its calls are under way. */
    seat(grant: Grant, reply: Reply): Disposable | Promise<Disposable>
    /**
     * Spend a call from every budget above it, and count it in its task. @returns the bytes left to it, when some budget counts bytes;
     * `moved` when nothing was spent, because other calls of the task came first and the decision rests on what was before.
     */
    debit(permit: Permit): Debit | Promise<Debit>
    /** What the call carried, added to every budget of bytes above it. Never throws. */
    settle(permit: Permit, traffic: Traffic): void
  } & Facts
  readonly policy: {
    /** Of the policies in force now; a decision under others is asked for again. */
    readonly digest: string
    /** What has to be known of a call of the operation before it can be decided. */
    needs(operation: Operation): Needs
    /** The same with what policies want to know besides. @throws {GatewayError} `store_unavailable` */
    informed(ask: Ask, from: Facts): Ask | Promise<Ask>
    evaluate(ask: Ask): Decision | Promise<Decision>
    /** @throws {GatewayError} when the call would not be let through now as it was. */
    again(call: Standing): Promise<void>
  }
  readonly approvals: {
    /**
     * Have humans approve this very request, and wait for them, counted from `sinceMs`, as long as settings say.
     * @returns true when it can be taken up at once; false when time has passed, and everything has to be decided anew.
     * @throws {GatewayError} `approval_required`, `approval_denied`, `approval_expired`; why the grant ended meanwhile
     */
    sought(call: Decided, sinceMs: number): Promise<boolean>
    /**
     * What lets this very request through, taken up, where the decision takes an approval; undefined where it does not.
     * @throws {GatewayError} `approval_required` when there is none, or another call has taken it up.
     */
    approved(call: Decided): Approved | undefined | Promise<Approved | undefined>
  }
  readonly revocations: {
    /**
     * Ends what the decision says is to be ended.
     * @throws {GatewayError} `access_blocked`, `grant_revoked`: what the call needs was ended or closed since it began.
     */
    require(call: Omit<Decided, 'inbound'>): void
  }
  readonly leases: { acquire(permit: Permit, receipt: Receipt, inbound: Inbound): Lease | Promise<Lease> }
  readonly upstream: {
    inspect(inbound: Inbound, endpoint: Endpoint, obligations: Obligations): Inspection | undefined
    forward(
      outbound: Outbound,
      reply: Reply,
      reissue: (answer: AnswerHead) => Promise<Outbound | null>,
      leaked: () => void,
    ): Promise<Outcome>
  }
  readonly refusals: {
    /** Never fails. @param grant of the agent that is told, if that is known: what it may do instead is told along. */
    write(inbound: Inbound, refusal: GatewayError, endpoint?: Endpoint, grant?: Grant): void | Promise<void>
  }
  readonly nowMs: () => number
}

/** A call that policy has decided on. */
export interface Decided {
  readonly inbound: Inbound
  readonly grant: Grant
  readonly endpoint: Endpoint
  readonly decision: Decision
  /** On what it was decided. */
  readonly ask?: Ask
}

type Debit = Allowance | undefined | 'moved'

interface Allowance {
  readonly bytes: number
  /** Whether these fit beside what other calls are carrying. */
  take(bytes: number): boolean
}

export async function serveRequest(inbound: Inbound, house: RequestRooms): Promise<void> {
  const event = house.audit.openCall(house.catalogue.veiled(inbound)) // first: a refusal is an event too
  try {
    const grant = event.authenticated(await house.grants.authenticate(inbound)) // 1 who, for whom, for which task
    using _seat = await house.grants.seat(grant, inbound.reply) // 2 when it is its turn
    const asked = house.catalogue.locate(inbound) // 3 where to, as which operation
    const told = asked.service.saysInForms === true ? await withForm(inbound, house) : inbound
    const endpoint = event.located(told === inbound ? asked : house.catalogue.locate(told))
    const heard = await said(told, grant, endpoint, house) // 4 saying what, if that counts
    const decided = await decide({ inbound: heard, grant, endpoint }, event, house) // 5 may it
    const { inbound: whole, decision } = decided
    const approved = event.approved(await house.approvals.approved(decided)) // 6 does somebody agree, and nobody has used that
    house.revocations.require({ grant, endpoint, decision }) // and nothing was ended or closed meanwhile
    const granted = requirePermit(grant, endpoint, decision, approved) // 7 or a refusal
    const inspection = event.inspected(house.upstream.inspect(whole, endpoint, decision.obligations)) // 8 no credential but ours
    const { permit, allowance } = await paid(granted, { ...decided, approved }, event, house) // 9 budgets: a call before it is made, bytes as they pass
    using meter = meterOf(permit, allowance, house)
    const receipt = await event.commit() // 10 durable, or stop
    using lease = event.leased(await house.leases.acquire(permit, receipt, whole)) // 11 credential, unseen
    const plain = cleanse(whole, decided, meter, inspection) // 12 strip every credential slot, then attach
    const outbound = await lease.attach(plain)
    if (house.policy.digest !== decision.policySet) await house.policy.again(decided) // others than decided may be in force by now
    const burn = () => event.burnt(lease.burn(plain)) // nobody uses it any more, and the log says so
    const outcome = await house.upstream.forward(
      outbound,
      inbound.reply,
      (answer) => lease.reissue(plain, answer),
      burn,
    ) // 13 guarded dial, stream, scrub; burn at once what came back
    event.closed(outcome) // 14 what became of it
  } catch (cause) {
    await house.refusals.write(inbound, await event.refused(asGatewayError(cause)), event.endpoint, event.grant) // 15 one writer of refusals
  }
}

/** With its form, where that says which operation it is. */
async function withForm(inbound: Inbound, house: RequestRooms): Promise<Inbound> {
  const told = await readForm(inbound)
  if (told !== inbound) await house.grants.authenticate(inbound) // as below
  return told
}

/**
 * With its body where a grant or a policy looks into it, or the service takes credentials there or signs it. All of it also where policy
 * looks at earlier calls: what is said later could come from what is read later.
 */
async function said(inbound: Inbound, grant: Grant, { service, operation }: Endpoint, house: RequestRooms) {
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
async function decide(call: Undecided, event: CallEvent, house: RequestRooms): Promise<Decided> {
  let decided = await evaluated(call, event, house)
  if (!takesApproval(decided.decision)) return decided
  const sinceMs = house.nowMs()
  const inbound = await readWhole(call.inbound) // what is approved is all of it
  decided = { ...decided, inbound }
  while (takesApproval(decided.decision) && !(await house.approvals.sought(decided, sinceMs))) {
    await house.grants.authenticate(inbound)
    decided = await evaluated({ ...call, inbound }, event, house)
  }
  return decided
}

async function evaluated(
  call: Undecided,
  event: CallEvent,
  house: RequestRooms,
): Promise<Decided & { readonly ask: Ask }> {
  const { policy, grants } = house
  const asked = await policy.informed(ask(call.inbound, call.grant, call.endpoint, house), grants)
  return { ...call, ask: asked, decision: event.decided(await policy.evaluate(asked)) }
}

/** Calls of one task that overtake each other are decided one after the other; more of them at once is more than anybody can follow. */
const MAX_OVERTAKEN = 16

/** Spent; decided anew as often as other calls of the task came first. What a new decision obliges to has to be what was done for the old one. */
async function paid(
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
function meterOf(permit: Permit, allowance: Allowance | undefined, { grants }: RequestRooms): Meter | undefined {
  if (allowance === undefined) return undefined
  return new Meter(
    allowance.bytes,
    (traffic) => grants.settle(permit, traffic),
    (bytes) => allowance.take(bytes),
  )
}

/**
 * A CONNECT: only who is calling is settled here, on the proxy connection, where a 407 is understood. Every request inside
 * the tunnel goes through `serveRequest`, so nothing is decided once per tunnel.
 * @returns whether the tunnel may open; if not, the refusal has been written and the connection stays usable.
 */
export async function admitTunnel(inbound: Inbound, house: RequestRooms): Promise<boolean> {
  try {
    await house.grants.authenticate(inbound)
    return true
  } catch (cause) {
    const event = house.audit.openCall(house.catalogue.veiled(inbound))
    await house.refusals.write(inbound, await event.refused(asGatewayError(cause)))
    return false
  }
}
