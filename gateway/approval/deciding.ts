/** What humans do with approvals: see those that wait, and say yes or no. What one says is recorded before it counts. */
import type { ApprovalFacts, Approvals, ApprovalView, Consent, Decider, Verdict } from '../protocol/approval.ts'
import type { Clock } from '../protocol/clock.ts'
import type { Human } from '../protocol/grant.ts'
import { GatewayError } from '../protocol/problem.ts'
import { type People, standingOf } from './people.ts'
import { type ApprovalRecord, consented, denied, neededPeople, stateAt, viewOf, withdrawn } from './record.ts'
import type { Words } from './refusals.ts'
import type { Facts } from './seeking.ts'
import type { Shelf } from './shelf.ts'

/** Changes that overtake each other are tried again; more than this many at once is no coincidence. */
const MAX_TRIES = 16

export interface DecidingParts {
  readonly shelf: Shelf
  readonly say: Words
  readonly people: People
  readonly clock: Clock
  readonly lifeMs: number
  isWanted(facts: ApprovalFacts, tenant: string): Promise<boolean>
  recordDecided(who: { readonly tenant: string; readonly human: Human }, facts: Facts): Promise<unknown>
  recordExpired(tenant: string, facts: Facts): Promise<unknown>
}

export class Deciding implements Approvals {
  readonly #o: DecidingParts
  /** Given to this replica alone by the store, and not in the log yet: no more than were pending. A crash loses their entries. */
  readonly #lapsed: ApprovalRecord[] = []

  constructor(o: DecidingParts) {
    this.#o = o
  }

  async pending(tenant: string): Promise<readonly ApprovalView[]> {
    const records = await this.#o.shelf.pending(tenant)
    const living = records.filter((record) => stateAt(record, this.#nowMs).state === 'pending')
    /** Grant → whether it could still use one: many may wait for one. */
    const asked = new Map<string, Promise<boolean>>()
    const isWanted = ({ facts }: ApprovalRecord): Promise<boolean> => {
      const known = asked.get(facts.grant) ?? this.#o.isWanted(facts, tenant)
      asked.set(facts.grant, known)
      return known
    }
    const wanted = await Promise.all(
      living.map(async (record) => (await isWanted(record)) || (await this.#withdraw(record))),
    )
    return living.filter((_, i) => wanted[i]).map((record) => viewOf(record, this.#nowMs))
  }

  async get(tenant: string, id: string): Promise<ApprovalView | undefined> {
    const record = await this.#o.shelf.byId(tenant, id)
    return record && viewOf(record, this.#nowMs)
  }

  hindrance(view: ApprovalView, human: Human): string | undefined {
    return standingOf(this.#o.people, view, human).hindrance
  }

  async decide(tenant: string, id: string, verdict: Verdict, by: Decider): Promise<ApprovalView> {
    let recorded: number | undefined
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      const record = await this.#o.shelf.byId(tenant, id)
      if (record === undefined) throw this.#o.say.unknown()
      const next = await this.#decided(record, verdict, by)
      if (next === record) return viewOf(record, this.#nowMs)
      const needed = verdict === 'deny' ? 0 : neededPeople(next)
      // A crash after this leaves a word that counts for nothing: it is asked for again.
      if (needed !== recorded) await this.#recordDecision(next, { verdict, needed }, by)
      recorded = needed // somebody else may be first: then this word may be the last one, and the log says so
      this.#requirePending(record) // that took time as well
      if (await this.#o.shelf.change(next)) return viewOf(next, this.#nowMs)
    }
    throw new GatewayError('store_unavailable', 'Too many decide on this approval at once. Try again shortly.')
  }

  /** Those whose time has run out, each recorded once. @throws what the log could not take is tried again the next time. */
  async lapse(tenant: string): Promise<void> {
    this.#lapsed.push(...(await this.#o.shelf.lapsed(tenant)))
    for (let record = this.#lapsed.shift(); record !== undefined; record = this.#lapsed.shift())
      try {
        await this.#recordEnd(record, 'time')
      } catch (cause) {
        this.#lapsed.unshift(record)
        throw cause
      }
  }

  get #nowMs(): number {
    return this.#o.clock.nowMs()
  }

  async #decided(record: ApprovalRecord, verdict: Verdict, { human, via }: Decider): Promise<ApprovalRecord> {
    const { people, say, lifeMs } = this.#o
    const standing = standingOf(people, record, human)
    if (standing.hindrance !== undefined) throw say.notBy(standing.hindrance)
    this.#requirePending(record)
    if (!(await this.#isWanted(record))) throw say.closed(viewOf(withdrawn(record), this.#nowMs))
    const nowMs = this.#nowMs
    const { iss, sub } = human
    const said = { name: standing.name, human: { iss, sub }, at: Math.floor(nowMs / 1000), via }
    if (verdict === 'deny') return denied(record, said, nowMs + lifeMs)
    const consent: Consent = { ...said, groups: standing.groups }
    return consented(record, consent, nowMs, lifeMs)
  }

  /** @throws {GatewayError} `approval_closed` */
  #requirePending(record: ApprovalRecord): void {
    const nowMs = this.#nowMs
    if (stateAt(record, nowMs).state !== 'pending') throw this.#o.say.closed(viewOf(record, nowMs))
  }

  #recordDecision(
    next: ApprovalRecord,
    said: { readonly verdict: Verdict; readonly needed: number },
    { human, via }: Decider,
  ): Promise<unknown> {
    return this.#o.recordDecided({ tenant: next.tenant, human }, { ...about(next), ...said, via })
  }

  /** One that nobody can use any more is withdrawn on the way. */
  async #isWanted(record: ApprovalRecord): Promise<boolean> {
    return (await this.#o.isWanted(record.facts, record.tenant)) || this.#withdraw(record)
  }

  async #withdraw(record: ApprovalRecord): Promise<false> {
    if (await this.#o.shelf.change(withdrawn(record))) await this.#recordEnd(record, 'grant_ended')
    return false
  }

  async #recordEnd(record: ApprovalRecord, why: string): Promise<void> {
    await this.#o.recordExpired(record.tenant, { ...about(record), why })
  }
}

function about({ id, fingerprint, facts }: ApprovalRecord): Facts {
  const { operation, agent, task, grant } = facts
  return { approval: id, fingerprint, operation, agent: agent.id, task: task.id, grant }
}
