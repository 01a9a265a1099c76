/**
 * One event per call or instruction, opened before the first possible refusal, filled as knowledge grows, committed once
 * before a credential is attached, closed exactly once. A `Receipt` exists only after the decision is durable.
 */
import type { Approved } from '../../protocol/approval.ts'
import type { Clock } from '../../protocol/clock.ts'
import type { Decision } from '../../protocol/decision.ts'
import type { Grant, Human } from '../../protocol/grant.ts'
import type { Proposal } from '../../protocol/instruction.ts'
import type { Inbound, Outcome, Sighting } from '../../protocol/message.ts'
import { asGatewayError, type GatewayError } from '../../protocol/problem.ts'
import type { Endpoint } from '../../protocol/service.ts'
import type { Draft } from '../canonical.ts'
import { foreignDraft, leakDraft } from './leak.ts'
import type { Letterhead } from './letterhead.ts'
import { decisionDraft, type LeaseFacts, outcomeDraft } from './record.ts'
import type { Tally } from './tally.ts'

export type { LeaseFacts } from './record.ts'

declare const durable: unique symbol

/** Proof that the decision is in the log. Made only in this room. */
export interface Receipt {
  readonly [durable]: true
  readonly event: string
  /** Index of the decision entry in the log. */
  readonly seq: number
}

/** Whoever looks for credentials in a request. */
interface Sighted {
  readonly sightings: readonly Sighting[]
}

/** Methods that learn something return what they were given, so that the flow reads as one line a step. */
export interface CallEvent {
  readonly id: string
  readonly endpoint: Endpoint | undefined
  readonly grant: Grant | undefined
  located(endpoint: Endpoint): Endpoint
  authenticated(grant: Grant): Grant
  decided(decision: Decision): Decision
  approved(approved: Approved | undefined): Approved | undefined
  /** @throws {GatewayError} `audit_unavailable` when the entry cannot be made durable. */
  commit(): Promise<Receipt>
  /** What it finds in the request by then is recorded with the end of the call. */
  inspected<I extends Sighted | undefined>(inspection: I): I
  leased<L extends { readonly facts: LeaseFacts }>(lease: L): L
  /** A credential came back in the answer and was overwritten. `leak.detected` says so before the outcome, passed on or not. */
  burnt(fate: string): void
  /** The outcome entry. Idempotent: only the first of `closed` and `refused` writes. */
  closed(outcome: Outcome): void
  /**
   * The refusal entry: a denied decision before `commit`, an outcome after it.
   * @returns the refusal to send: the one given, or `audit_unavailable` when it could not be recorded.
   */
  refused(refusal: GatewayError): Promise<GatewayError>
}

export interface InstructionEvent {
  readonly id: string
  proposed(proposal: Proposal): Proposal
  decided(decision: Decision): Decision
  approved(approved: Approved | undefined): Approved | undefined
  commit(): Promise<Receipt>
  /** It has taken effect. */
  performed<I>(issued: I): I
  refused(refusal: GatewayError): Promise<GatewayError>
}

/** What events need of the log, and what they write with. */
export interface Desk {
  readonly paper: Letterhead
  readonly clock: Clock
  readonly tally: Tally
  /** Before anybody is named; undefined: at once. @throws {GatewayError} `audit_unavailable` */
  ready(human: Human | undefined, owner?: string): Promise<void> | undefined
  readonly log: { append(draft: Draft): Promise<number>; enqueue(draft: Draft): void }
}

/** Append durably; only then is there a receipt. */
export async function receiptFor(desk: Desk, event: string, draft: Draft): Promise<Receipt> {
  const seq = await desk.log.append(draft)
  return { event, seq } as Receipt
}

/** `open`: nothing is written. `committed`: the decision is. `closed`: so is the end. */
export type Stage = 'open' | 'committed' | 'closed'

export class RecordedCall implements CallEvent {
  readonly #desk: Desk
  readonly #inbound: Inbound
  readonly #startedMs: number
  #stage: Stage = 'open'
  #endpoint: Endpoint | undefined
  #grant: Grant | undefined
  #decision: Decision | undefined
  #approved: Approved | undefined
  #lease: LeaseFacts | undefined
  #fate: string | undefined
  #inspection: Sighted | undefined

  constructor(desk: Desk, inbound: Inbound) {
    this.#desk = desk
    this.#inbound = inbound
    this.#startedMs = desk.clock.elapsedMs()
  }

  get id(): string {
    return this.#inbound.id
  }

  get endpoint(): Endpoint | undefined {
    return this.#endpoint
  }

  get grant(): Grant | undefined {
    return this.#grant
  }

  located(endpoint: Endpoint): Endpoint {
    this.#endpoint = endpoint
    return endpoint
  }

  authenticated(grant: Grant): Grant {
    this.#grant = grant
    return grant
  }

  decided(decision: Decision): Decision {
    this.#decision = decision
    return decision
  }

  approved(approved: Approved | undefined): Approved | undefined {
    this.#approved = approved
    return approved
  }

  async commit(): Promise<Receipt> {
    const ready = this.#ready()
    if (ready) await ready
    const seq = await this.#desk.log.append(this.#draft(undefined))
    this.#stage = 'committed'
    const { tally } = this.#desk
    tally.allowed += 1
    tally.open += 1
    tally.watcher?.allowed(this.#service, this.#elapsedMs)
    return { event: this.id, seq } as Receipt
  }

  inspected<I extends Sighted | undefined>(inspection: I): I {
    this.#inspection = inspection
    return inspection
  }

  leased<L extends { readonly facts: LeaseFacts }>(lease: L): L {
    this.#lease = lease.facts
    this.#desk.tally.watcher?.leased(this.#service, lease.facts, this.#elapsedMs)
    return lease
  }

  burnt(fate: string): void {
    this.#fate = fate
  }

  closed(outcome: Outcome): void {
    if (this.#stage === 'open') throw new Error('a call was closed before its decision was recorded')
    this.#end(outcome, undefined)
  }

  async refused(refusal: GatewayError): Promise<GatewayError> {
    if (this.#stage !== 'open') {
      this.#end(undefined, refusal)
      return refusal
    }
    this.#stage = 'closed'
    const { tally } = this.#desk
    tally.refused += 1
    tally.watcher?.refused(this.#endpoint?.service.name, refusal.code, this.#grant !== undefined)
    return recorded(refusal, this.#append(refusal))
  }

  async #append(refusal: GatewayError): Promise<number> {
    await this.#ready()
    this.#sighted(refusal.sightings)
    return this.#desk.log.append(this.#draft(refusal))
  }

  #ready(): Promise<void> | undefined {
    return this.#desk.ready(this.#grant?.human)
  }

  /** Of an allowed call, which has one. */
  get #service(): string {
    return this.#endpoint?.service.name ?? ''
  }

  get #elapsedMs(): number {
    return this.#desk.clock.elapsedMs() - this.#startedMs
  }

  #draft(refusal: GatewayError | undefined): Draft {
    const { paper } = this.#desk
    return decisionDraft(paper, {
      inbound: this.#inbound,
      endpoint: this.#endpoint,
      grant: this.#grant,
      decision: this.#decision,
      approved: this.#approved,
      refusal,
    })
  }

  get #call() {
    return { inbound: this.#inbound, endpoint: this.#endpoint, grant: this.#grant, lease: this.#lease }
  }

  #sighted(sightings: readonly Sighting[] = []): void {
    if (sightings.length > 0) this.#desk.log.enqueue(foreignDraft(this.#desk.paper, this.#call, sightings))
  }

  #leaked(fate: string, outcome: Outcome | undefined, refusal: GatewayError | undefined): void {
    const leaks = outcome?.leaks ?? refusal?.leaks
    this.#desk.log.enqueue(leakDraft(this.#desk.paper, this.#call, { fate, leaks, outcome }))
    this.#desk.tally.watcher?.leaked(this.#service, fate)
  }

  #end(outcome: Outcome | undefined, refusal: GatewayError | undefined): void {
    if (this.#stage === 'closed') return
    this.#stage = 'closed'
    if (this.#fate !== undefined) this.#leaked(this.#fate, outcome, refusal)
    this.#sighted(this.#inspection?.sightings ?? refusal?.sightings)
    const durationMs = this.#elapsedMs
    this.#desk.tally.open -= 1
    this.#desk.tally.watcher?.ended(this.#service, refusal?.code, durationMs)
    const lease = this.#lease
    this.#desk.log.enqueue(
      outcomeDraft(this.#desk.paper, {
        inbound: this.#inbound,
        grant: this.#grant,
        lease,
        outcome,
        refusal,
        durationMs,
      }),
    )
  }
}

/** The refusal to send: that it could not be recorded outweighs what it was. */
export async function recorded(refusal: GatewayError, written: Promise<number>): Promise<GatewayError> {
  try {
    await written
    return refusal
  } catch (cause) {
    return refusal.code === 'audit_unavailable' ? refusal : asGatewayError(cause)
  }
}
