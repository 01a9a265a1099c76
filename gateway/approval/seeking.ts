/** What asks for consent: finds or makes the approval of a request, waits for humans, and takes their consent up exactly once. */
import type { AgentSays, ApprovalFacts, Approved } from '../protocol/approval.ts'
import type { Clock } from '../protocol/clock.ts'
import type { Grant } from '../protocol/grant.ts'
import { uuidv7 } from '../protocol/id.ts'
import type { GatewayError } from '../protocol/problem.ts'
import { fingerprintOf, holdingOf, type Subject } from './fingerprint.ts'
import type { Holding, Waiter } from './holding.ts'
import { mostPeople, type People, unknownGroups } from './people.ts'
import { type ApprovalRecord, stateAt, taken } from './record.ts'
import type { Words } from './refusals.ts'
import type { ApprovalSeal } from './seal.ts'
import type { Shelf } from './shelf.ts'

type Eventual<T> = T | Promise<T>
export type Facts = Readonly<Record<string, string | number | readonly string[] | undefined>>

/** What is asked for. */
export interface Asked extends Subject {
  /** Of the call or instruction: its `instance`, and its entries' `req`. */
  readonly event: string
  describe(): { readonly facts: ApprovalFacts; readonly agentSays: AgentSays }
}

/** Absent: it does not wait. */
export interface Wait {
  readonly waiter: Waiter
  /** Milliseconds since the epoch. */
  readonly untilMs: number
}

export interface SeekingParts {
  readonly shelf: Shelf
  readonly holding: Holding
  readonly say: Words
  readonly seal: Pick<ApprovalSeal, 'fingerprintKey'>
  readonly people: People
  readonly clock: Clock
  readonly lifeMs: number
  readonly maxPending: number
  count(tenant: string, agent: string): Eventual<number>
  paced(grant: Grant): Eventual<boolean>
  record(kind: 'approval.requested' | 'approval.used', grant: Grant, facts: Facts): Promise<unknown>
}

export class Seeking {
  readonly #o: SeekingParts
  /** fingerprint → asking for it right now, so that of many equal calls at once one asks. */
  readonly #asking = new Map<string, Promise<ApprovalRecord>>()
  /** Taken up here → until when it could be offered again, ms: whoever writes to the store could put an old state back. */
  readonly #spent = new Map<string, number>()

  constructor(o: SeekingParts) {
    this.#o = o
  }

  /** @see ApprovalRoom.seek */
  async seek(asked: Asked, wait: Wait | undefined): Promise<boolean> {
    const record = await this.#find(asked)
    if (this.#requireHope(record) === 'approved') return true
    if (wait === undefined || !this.#o.holding.hasRoom(wait.waiter)) throw this.#o.say.required(record)
    return this.#hold(record, wait)
  }

  /** @see ApprovalRoom.take */
  async take(asked: Asked): Promise<Approved> {
    const { shelf, say } = this.#o
    const { grant } = asked
    const record = await shelf.inSlot(grant.tenant, this.fingerprint(asked), this.#nowMs)
    if (record === undefined) throw say.gone()
    if (this.#requireHope(record) !== 'approved') throw say.required(record)
    const next = taken(record)
    if (next !== record) {
      if (this.#spent.has(record.id) || !(await shelf.change(next))) throw say.gone()
      this.#spend(record)
    }
    const { id, fingerprint, consents } = record
    // A crash before this leaves an approval that is used up and unused: safe.
    await this.#o.record('approval.used', grant, { approval: id, fingerprint, call: asked.event })
    return { id, by: consents.map(({ human }) => human), fingerprint }
  }

  get #nowMs(): number {
    return this.#o.clock.nowMs()
  }

  /** @see ApprovalRoom.fingerprint */
  fingerprint(asked: Subject): string {
    const { seal, people } = this.#o
    return fingerprintOf(seal.fingerprintKey, asked, people.groups)
  }

  /** The approval of this very request: the one that there is, or a new one. */
  async #find(asked: Asked): Promise<ApprovalRecord> {
    const fingerprint = this.fingerprint(asked)
    const found = await this.#o.shelf.inSlot(asked.grant.tenant, fingerprint, this.#nowMs)
    if (found !== undefined) return found
    const asking = this.#asking.get(fingerprint) ?? this.#ask(asked, fingerprint)
    this.#asking.set(fingerprint, asking)
    try {
      return await asking
    } finally {
      this.#asking.delete(fingerprint)
    }
  }

  async #ask(asked: Asked, fingerprint: string): Promise<ApprovalRecord> {
    const { grant, terms, operation } = asked
    const { shelf, say, people, maxPending, lifeMs } = this.#o
    const nobody = unknownGroups(people, terms)
    if (nobody.length > 0) throw say.nobody(operation, nobody)
    const most = mostPeople(people, terms)
    if (most < terms.count) throw say.tooFew(operation, terms, most)
    const nowMs = this.#nowMs
    const record: ApprovalRecord = {
      ...{ id: uuidv7(nowMs), tenant: grant.tenant, fingerprint, holding: holdingOf(grant) },
      ...asked.describe(),
      ...{ terms, consents: [], state: 'pending', version: 0, createdMs: nowMs, untilMs: nowMs + lifeMs },
    }
    if ((await this.#inLine(grant)) >= maxPending || !(await this.#o.paced(grant))) throw say.tooMany(maxPending)
    // A crash after this leaves an entry of something that nobody was asked: the same request asks again.
    await this.#o.record('approval.requested', grant, requestFacts(record, asked.event))
    const added = await shelf.add(record, maxPending)
    if (added === undefined) throw say.tooMany(maxPending)
    return added
  }

  /** Pending ones of its agent, or of its task where those are more: who delegates does not get a queue for every child. */
  async #inLine({ tenant, agent, task }: Grant): Promise<number> {
    const ofAgent = await this.#o.count(tenant, agent.id)
    const all = await this.#o.shelf.pending(tenant)
    const ofTask = all.filter(
      (one) => one.facts.task.id === task.id && stateAt(one, this.#nowMs).state === 'pending',
    ).length
    return Math.max(ofAgent, ofTask)
  }

  /** @returns false: time has passed. */
  async #hold({ tenant, id }: ApprovalRecord, { waiter, untilMs }: Wait): Promise<false> {
    const { clock, holding, shelf, say } = this.#o
    // A client waits by no clock that somebody sets.
    const endMs = clock.elapsedMs() + untilMs - this.#nowMs
    using held = holding.enter(`${tenant} ${id}`, waiter)
    for (;;) {
      const record = await shelf.byId(tenant, id) // after it has begun to wait, so that no change is missed
      if (record === undefined) throw say.gone()
      if (this.#requireHope(record) === 'approved') return false
      const forMs = Math.min(endMs - clock.elapsedMs(), record.untilMs - this.#nowMs)
      if (forMs <= 0) throw say.required(record)
      if (await held.next(forMs)) return false
    }
  }

  /** @throws {GatewayError} unless it is approved, or may still be. */
  #requireHope(record: ApprovalRecord): 'approved' | 'pending' {
    const { state } = stateAt(record, this.#nowMs)
    if (state === 'approved' || state === 'pending') return state
    throw this.#hopeless(record, state)
  }

  #hopeless(record: ApprovalRecord, state: 'denied' | 'expired' | 'used'): GatewayError {
    const { say } = this.#o
    if (state === 'used') return say.gone()
    return state === 'denied' ? say.denied(record) : say.expired(record)
  }

  #spend({ id, untilMs }: ApprovalRecord): void {
    for (const [known, until] of this.#spent) {
      if (until > this.#nowMs) break // about in the order in which they run out: the rest is for later
      this.#spent.delete(known)
    }
    this.#spent.set(id, untilMs)
  }
}

function requestFacts(record: ApprovalRecord, call: string): Facts {
  const { id, fingerprint, facts, terms, untilMs } = record
  const { operation, access, sensitivity, request } = facts
  const query = request?.path.indexOf('?') ?? -1
  return {
    ...{ approval: id, fingerprint, call, operation, access, sensitivity },
    ...{ from: terms.from, count: terms.count, reuse_s: terms.reuseS, expires: Math.floor(untilMs / 1000) },
    ...(request && { service: request.service, method: request.method, host: request.host }),
    ...(request && { path: query < 0 ? request.path : request.path.slice(0, query) }),
  }
}
