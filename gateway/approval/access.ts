/**
 * Requests of agents for more access. One is a proposal: it gives nothing until a human, who may change it, has granted it, and then only
 * what policy lets that human give, to the agent that asked, in the task that it asked in. No credential and no grant is kept here.
 */
import type { AccessAsk, AccessRequests, AccessView, AskingForAccess, Wanted } from '../protocol/access.ts'
import type { Decider } from '../protocol/approval.ts'
import type { Clock } from '../protocol/clock.ts'
import type { Grant, Human } from '../protocol/grant.ts'
import { GatewayError } from '../protocol/problem.ts'
import { type AccessRecord, operationsOf, recordOf, sameWanted, viewOf, wantedOf } from './access-record.ts'
import {
  closed,
  MOST,
  MOST_OF_AGENT,
  requireGranted,
  requireHolder,
  requirePending,
  requireSeen,
  tooMany,
  tooOften,
  unknown,
} from './access-refusals.ts'

/** Milliseconds that a granted request waits for its agent. */
const FETCH_MS = 15 * 60_000
/** Milliseconds that one is remembered after it is over. */
const KEPT_MS = 60 * 60_000
/** As long as one is remembered, at least: in it requests are counted that were denied, or that nobody decided on. */
const PACE_MS = 60 * 60_000
/** Nobody else decides on it meanwhile. */
const CLAIM_MS = 10_000

interface Document {
  readonly content: unknown
  readonly version: number
}

export interface AccessOptions {
  readonly tenant: string
  readonly documents: {
    read(id: string): Promise<Document | undefined>
    claim(id: string, forMs: number): Promise<Document | 'taken' | undefined>
    write(id: string, content: object | null, expected: number): Promise<number | undefined>
    ids(): Promise<readonly string[]>
  }
  /** Requests of one agent, and of one task, in an hour, whatever became of them. */
  readonly maxPerHour: number
  /** Whether that can be granted at all beside this grant. @param human who gives it: policy is asked too. Throws why not. */
  check(beside: Grant, wanted: Wanted, human: Human | undefined): Promise<void>
  /** Who may grant besides the human that the agent works for. */
  mayGrant(human: Human): boolean
  readonly log: {
    requested(grant: Grant, facts: Facts): Promise<unknown>
    edited(by: Decider, facts: Facts): Promise<unknown>
    decided(by: Decider, facts: Facts): Promise<unknown>
  }
  readonly clock: Clock
}

type Facts = Readonly<Record<string, string | number | string[] | undefined>>

/** What its agent fetches: what was granted, and by whom. */
export interface Granted {
  readonly wanted: Wanted
  readonly human: Human
}

export interface AccessRoom extends AccessRequests, AskingForAccess {
  /** Once. @throws {GatewayError} `approval_unknown`, `approval_required` while nobody has granted it, `approval_denied`, … */
  handOver(holder: Grant, id: string): Promise<Granted>
  /** It could not be made after all: it can be fetched again. */
  takeBack(id: string): Promise<void>
}

export class AccessDesk implements AccessRoom {
  readonly #o: AccessOptions
  /** One asks after the other, so that of many at once each is counted. Never rejects. */
  #asking: Promise<unknown> = Promise.resolve()

  constructor(o: AccessOptions) {
    this.#o = o
  }

  async ask(holder: Grant, asked: AccessAsk): Promise<AccessView> {
    await this.#o.check(holder, wantedOf(asked), undefined)
    const answer = this.#asking.then(() => this.#ask(holder, asked))
    this.#asking = answer.catch(() => undefined)
    return answer
  }

  async #ask(holder: Grant, asked: AccessAsk): Promise<AccessView> {
    const { documents, log, tenant, maxPerHour } = this.#o
    const wanted = wantedOf(asked)
    const all = await this.#swept()
    const known = all.filter((one) => this.#shown(one).state === 'pending')
    // A task is one that asks, however many agents it delegates to.
    const isOwn = ({ agent, task }: AccessRecord) => agent.id === holder.agent.id || task.id === holder.task.id
    const own = known.filter(isOwn)
    const same = own.find((one) => isOf(one, holder) && sameWanted(one.wanted, wanted))
    if (same !== undefined) return this.#shown(same)
    if (own.length >= MOST_OF_AGENT || known.length >= MOST) throw tooMany(own.length)
    const sinceMs = this.#nowMs() - PACE_MS
    if (all.filter((one) => one.createdMs > sinceMs && isOwn(one)).length >= maxPerHour) throw tooOften(maxPerHour)
    const record = recordOf(holder, asked, { tenant, nowMs: this.#nowMs() })
    const { event, reason } = record.agentSays
    await log.requested(holder, { access_request: record.id, ...outlineOf(wanted), event, agent_says: reason })
    if ((await documents.write(record.id, record, 0)) === undefined) throw unknown()
    return this.#shown(record)
  }

  async ofHolder(holder: Grant, id: string): Promise<AccessView> {
    const { record } = await this.#read(id)
    requireHolder(record, holder)
    return this.#shown(record)
  }

  async pending(): Promise<readonly AccessView[]> {
    const views = (await this.#all()).map(({ record }) => this.#shown(record))
    return views.filter(({ state }) => state === 'pending').sort((a, b) => a.createdAt - b.createdAt)
  }

  async get(id: string): Promise<AccessView> {
    return this.#shown((await this.#read(id)).record)
  }

  hindrance({ human: root, lineage }: Pick<AccessView, 'human' | 'lineage'>, human: Human): string | undefined {
    if (lineage.some(({ type, id }) => type === 'ai_agent' && id === human.sub))
      return 'An agent decides on nothing that agents ask for.'
    if ((human.iss === root.iss && human.sub === root.sub) || this.#o.mayGrant(human)) return undefined
    return 'Only the human that the agent works for, and those whom the settings name for it, grant access.'
  }

  edit(id: string, wanted: Wanted, by: Decider): Promise<AccessView> {
    return this.#change(id, by, async (record) => {
      await this.#o.check(record.holder, wanted, undefined)
      const { iss, sub } = by.human
      const next: AccessRecord = { ...record, wanted, asked: record.asked ?? record.wanted, editedBy: { iss, sub } }
      await this.#o.log.edited(by, factsOf(next, by))
      return next
    })
  }

  grant(id: string, by: Decider, seen?: Wanted): Promise<AccessView> {
    return this.#change(id, by, async (record) => {
      requireSeen(record, by.human, seen)
      await this.#o.check(record.holder, record.wanted, by.human)
      await this.#o.log.decided(by, { ...decidedFacts(record, by), verdict: 'grant' })
      const nowMs = this.#nowMs()
      return { ...record, state: 'granted', decidedBy: decisionOf(by, nowMs), untilMs: nowMs + FETCH_MS }
    })
  }

  deny(id: string, by: Decider): Promise<AccessView> {
    return this.#change(id, by, async (record) => {
      await this.#o.log.decided(by, { ...decidedFacts(record, by), verdict: 'deny' })
      return { ...record, state: 'denied', decidedBy: decisionOf(by, this.#nowMs()) }
    })
  }

  async handOver(holder: Grant, id: string): Promise<Granted> {
    const { record, version } = await this.#read(id)
    requireHolder(record, holder)
    requireGranted(this.#shown(record))
    const { human } = record.decidedBy as NonNullable<AccessRecord['decidedBy']>
    if (this.hindrance(record, human) !== undefined) throw closed('Whoever granted it may not any more.')
    // Taken first: a crash before the grant is made leaves less authority than was given, never more.
    if ((await this.#o.documents.write(id, { ...record, state: 'fetched' }, version)) === undefined)
      throw closed('It is being fetched already.')
    return { wanted: record.wanted, human }
  }

  async takeBack(id: string): Promise<void> {
    const { record, version } = await this.#read(id)
    if (record.state === 'fetched') await this.#o.documents.write(id, { ...record, state: 'granted' }, version)
  }

  /** By a human, alone: what two decide at once, one decides. */
  async #change(id: string, by: Decider, change: (record: AccessRecord) => Promise<AccessRecord>): Promise<AccessView> {
    const { documents } = this.#o
    const why = this.hindrance((await this.#read(id)).record, by.human)
    if (why !== undefined) throw new GatewayError('approver_refused', why)
    const claimed = await documents.claim(id, CLAIM_MS)
    if (claimed === undefined) throw unknown()
    if (claimed === 'taken') throw closed('Somebody else decides on it right now. Look again.')
    const record = claimed.content as AccessRecord
    try {
      requirePending(this.#shown(record))
      const next = await change(record)
      if ((await documents.write(id, next, claimed.version)) === undefined) throw closed('Somebody else was first.')
      return this.#shown(next)
    } catch (cause) {
      await documents.write(id, record, claimed.version).catch(() => undefined) // lets go of it; otherwise that lapses
      throw cause
    }
  }

  async #read(id: string): Promise<{ readonly record: AccessRecord; readonly version: number }> {
    const document = await this.#o.documents.read(id)
    if (document === undefined) throw unknown()
    return { record: document.content as AccessRecord, version: document.version } // only what was written here comes here
  }

  async #all() {
    const { documents } = this.#o
    const ids = await documents.ids()
    const found = await Promise.all(ids.map(async (id) => ({ id, document: await documents.read(id) })))
    return found.flatMap(({ id, document }) =>
      document ? [{ id, record: document.content as AccessRecord, version: document.version }] : [],
    )
  }

  /** What nobody can use goes when somebody else asks. */
  async #swept(): Promise<readonly AccessRecord[]> {
    const known = await this.#all()
    const isOver = ({ record }: (typeof known)[number]) => record.untilMs + KEPT_MS <= this.#nowMs()
    await Promise.all(known.filter(isOver).map(({ id, version }) => this.#o.documents.write(id, null, version)))
    return known.filter((one) => !isOver(one)).map(({ record }) => record)
  }

  #shown(record: AccessRecord): AccessView {
    return viewOf(record, this.#nowMs())
  }

  #nowMs(): number {
    return this.#o.clock.nowMs()
  }
}

function isOf({ agent, task }: AccessRecord, holder: Grant): boolean {
  return agent.id === holder.agent.id && task.id === holder.task.id
}

function decidedFacts(record: AccessRecord, by: Decider): Facts {
  return { ...factsOf(record, by), agent: record.agent.id, task: record.task.id }
}

function decisionOf({ human, via }: Decider, nowMs: number) {
  return { human, via, at: Math.floor(nowMs / 1000) }
}

function factsOf(record: AccessRecord, { via }: Decider): Facts {
  return { access_request: record.id, via, ...outlineOf(record.wanted) }
}

function outlineOf(wanted: Wanted): Facts {
  return { scope: wanted.scope, operations: operationsOf(wanted), ttl_s: wanted.ttl_s }
}
