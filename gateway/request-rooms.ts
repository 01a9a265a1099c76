/** What FLOW 1 needs of each room, and what its steps hand on. No room may be left out: one that is forgotten would let everything through. */
import type { CallEvent, Receipt } from './audit/entries/event.ts'
import type { Lease } from './lease/lease.ts'
import type { Permit } from './policy/decision.ts'
import type { Approved } from './protocol/approval.ts'
import type { Ask, Decision, Facts, Needs, Obligations, Standing } from './protocol/decision.ts'
import type { Grant } from './protocol/grant.ts'
import type { AnswerHead, Inbound, Outbound, Outcome, Reply, TurnedAway } from './protocol/message.ts'
import type { Traffic } from './protocol/meter.ts'
import type { GatewayError } from './protocol/problem.ts'
import type { Endpoint, Operation } from './protocol/service.ts'
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
    /** Before humans are asked about it: no budget above the call is used up for good. Spends nothing. @throws {GatewayError} `use_spent`, `limit_exceeded` */
    afford(call: Pick<Decided, 'grant' | 'endpoint' | 'decision'>): Promise<void>
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
     * @throws {GatewayError} `access_blocked`, `grant_revoked`: what the call needs was ended or blocked since it began.
     */
    require(call: Omit<Decided, 'inbound'>): void
    /** Nothing was since, while its credential took its time. @throws {GatewayError} as `require` */
    still(call: Pick<Decided, 'grant' | 'endpoint'>): void
  }
  readonly leases: { acquire(permit: Permit, receipt: Receipt, inbound: Inbound): Lease | Promise<Lease> }
  readonly upstream: {
    inspect(inbound: Inbound, endpoint: Endpoint, obligations: Obligations, grant: Grant): Inspection | undefined
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
  readonly ask: Ask
}

export type Debit = Allowance | undefined | 'moved'

export interface Allowance {
  readonly bytes: number
  /** Whether these fit beside what other calls are carrying. */
  take(bytes: number): boolean
}
