/**
 * The record of emergencies: into the log, and while that cannot be written into the journal, from which it goes into the log as soon as
 * that can be. Order is kept: nothing of an emergency is written past what the journal still has.
 */
import type { Approved } from '../../protocol/approval.ts'
import type { Decision } from '../../protocol/decision.ts'
import type { Grant } from '../../protocol/grant.ts'
import type { Inbound, Outcome, Sighting } from '../../protocol/message.ts'
import { asGatewayError, type GatewayError } from '../../protocol/problem.ts'
import type { Endpoint } from '../../protocol/service.ts'
import { type Draft, MAX_ENTRY_BYTES, writeEntry } from '../canonical.ts'
import type { Journal } from '../files/journal.ts'
import type { Log } from '../log.ts'
import { breakGlassDraft, lateDraft, usedDraft } from './breakglass.ts'
import { type CallEvent, type Desk, type LeaseFacts, type Receipt, RecordedCall, receiptFor } from './event.ts'
import { underDraft } from './instructed.ts'
import { Tally } from './tally.ts'

type Facts = Parameters<typeof breakGlassDraft>[3]

export interface Aside {
  /** Cannot fail. */
  openCall(inbound: Inbound): CallEvent
  /** What happens under a grant of the emergency. @throws {GatewayError} `audit_unavailable` when neither takes it. */
  recordUnder(kind: string, grant: Grant, facts: Facts): Promise<Receipt>
  /** What is done about emergency access itself. @param grant undefined: none came of it. */
  record(kind: `breakglass.${string}`, about: BreakGlassMatter, facts: Facts): Promise<Recorded>
  /** Hand over what is journalled, if the log can be written. @returns whether nothing is left. Never rejects. */
  drain(): Promise<boolean>
}

export interface BreakGlassMatter {
  readonly tenant: string
  /** Id of the request. */
  readonly req: string
  readonly grant: Grant | undefined
  readonly decision?: Decision | undefined
}

export interface Recorded {
  readonly receipt: Receipt
  /** False: it is in the journal alone for the time being. */
  readonly logged: boolean
}

export interface AsideParts {
  readonly desk: Desk
  readonly log: Pick<Log, 'append' | 'failure' | 'size'>
  readonly journal: Journal
  /** Said of every entry that only the journal has: whoever keeps it can tell whether one was taken out later. */
  onJournalled(entry: { readonly n: number; readonly mac: string; readonly kind: string }): void
}

/** Number of an entry that has no place in the log yet. */
const NO_PLACE = -1

export function createAside(parts: AsideParts): Aside {
  return new JournalledRecord(parts)
}

class JournalledRecord implements Aside {
  readonly #parts: AsideParts
  /** Log first. */
  readonly #either: Desk
  /** The journal alone. What heartbeats count is in the log, so calls that are not are not counted. */
  readonly #apart: Desk
  readonly #buffer = Buffer.alloc(MAX_ENTRY_BYTES + 1024)
  /** Ends of calls that wait for what stands before them in the journal. */
  readonly #waiting: (() => void)[] = []
  #draining: Promise<boolean> | undefined

  constructor(parts: AsideParts) {
    const { desk } = parts
    this.#parts = parts
    const enqueue = (draft: Draft) => {
      try {
        this.#journal(draft)
      } catch {
        // Nobody waits for it: a call without an outcome, as after a crash.
      }
    }
    this.#either = { ...desk, log: { append: (draft) => this.#write(draft), enqueue } }
    const append = async (draft: Draft) => this.#journal(draft)
    this.#apart = { ...desk, tally: new Tally(desk.tally.watcher), log: { append, enqueue } }
  }

  openCall(inbound: Inbound): CallEvent {
    const { desk } = this.#parts
    return new JournalledCall({
      inLog: new RecordedCall(desk, inbound),
      apart: new RecordedCall(this.#apart, inbound),
      isLogReady: () => this.drain(),
      after: (work) => {
        this.#waiting.push(work)
        void this.drain()
      },
      used: (grant, endpoint) =>
        receiptFor(this.#either, 'breakglass.used', usedDraft(desk.paper, grant, endpoint, inbound)),
    })
  }

  async recordUnder(kind: string, grant: Grant, facts: Facts): Promise<Receipt> {
    const { desk } = this.#parts
    await desk.ready(grant.human)
    const receipt = await receiptFor(this.#either, kind, underDraft(desk.paper, kind, grant, facts))
    desk.tally.watcher?.noted(kind, facts)
    return receipt
  }

  async record(kind: `breakglass.${string}`, about: BreakGlassMatter, facts: Facts): Promise<Recorded> {
    const { desk } = this.#parts
    await desk.ready(about.grant?.human, about.grant?.agent.owner)
    const receipt = await receiptFor(this.#either, kind, breakGlassDraft(desk.paper, kind, about, facts))
    desk.tally.watcher?.noted(kind, facts)
    return { receipt, logged: receipt.seq !== NO_PLACE }
  }

  drain(): Promise<boolean> {
    this.#draining ??= this.#drain().finally(() => {
      this.#draining = undefined
      // In one step with that: what comes to wait from now on drains by itself.
      if (this.#parts.journal.next() === undefined) for (const work of this.#waiting.splice(0)) work()
    })
    return this.#draining
  }

  async #drain(): Promise<boolean> {
    const { journal, log, desk } = this.#parts
    try {
      for (let next = journal.next(); next !== undefined; next = journal.next()) {
        if (log.failure !== undefined) return false
        const { journal: name = '' } = journal.began ?? {}
        await log.append(lateDraft(desk.paper, next, name))
        journal.handOver(next.n) // a crash before it: the next start finds the entry in the log
      }
    } catch {
      return false // it stays in the journal
    }
    return log.failure === undefined
  }

  async #write(draft: Draft): Promise<number> {
    if (await this.drain()) {
      try {
        return await this.#parts.log.append(draft)
      } catch (cause) {
        if (asGatewayError(cause).code !== 'audit_unavailable') throw cause
      }
    }
    return this.#journal(draft)
  }

  #journal(draft: Draft): number {
    const { journal, log, desk, onJournalled } = this.#parts
    const ts = new Date(desk.clock.nowMs()).toISOString()
    const entry = this.#buffer.toString('utf8', 0, writeEntry(this.#buffer, 0, draft, { seq: 0, ts }))
    const { kind } = JSON.parse(entry) as { kind: string }
    onJournalled({ ...journal.append(entry, log.size), kind })
    return NO_PLACE
  }
}

interface CallParts {
  readonly inLog: RecordedCall
  readonly apart: RecordedCall
  isLogReady(): Promise<boolean>
  /** Once the journal has nothing left. */
  after(work: () => void): void
  used(grant: Grant, endpoint: Endpoint): Promise<Receipt>
}

/** One call of an emergency: both its entries are in the log, or both go there by way of the journal. */
class JournalledCall implements CallEvent {
  readonly #parts: CallParts
  /** Where the decision was written. */
  #kept: RecordedCall | undefined
  #grant: Grant | undefined

  constructor(parts: CallParts) {
    this.#parts = parts
  }

  get id(): string {
    return this.#parts.inLog.id
  }

  get grant(): Grant | undefined {
    return this.#grant
  }

  get endpoint(): Endpoint | undefined {
    return this.#parts.inLog.endpoint
  }

  located(endpoint: Endpoint): Endpoint {
    return this.#both((call) => call.located(endpoint))
  }

  authenticated(grant: Grant): Grant {
    this.#grant = grant
    return this.#both((call) => call.authenticated(grant))
  }

  decided(decision: Decision): Decision {
    return this.#both((call) => call.decided(decision))
  }

  approved(approved: Approved | undefined): Approved | undefined {
    return this.#both((call) => call.approved(approved))
  }

  inspected<I extends { readonly sightings: readonly Sighting[] } | undefined>(inspection: I): I {
    return this.#both((call) => call.inspected(inspection))
  }

  async commit(): Promise<Receipt> {
    const receipt = await this.#commit()
    if (this.#grant && this.endpoint) await this.#parts.used(this.#grant, this.endpoint)
    return receipt
  }

  leased<L extends { readonly facts: LeaseFacts }>(lease: L): L {
    return (this.#kept ?? this.#parts.inLog).leased(lease)
  }

  burnt(fate: string): void {
    this.#kept?.burnt(fate)
  }

  closed(outcome: Outcome): void {
    this.#end((call) => call.closed(outcome))
  }

  async refused(refusal: GatewayError): Promise<GatewayError> {
    if (this.#kept !== undefined) {
      this.#end((call) => void call.refused(refusal))
      return refusal
    }
    // Whoever presents what is not known here fills no journal.
    if (this.#grant === undefined || (await this.#parts.isLogReady())) return this.#parts.inLog.refused(refusal)
    return this.#parts.apart.refused(refusal)
  }

  async #commit(): Promise<Receipt> {
    const { inLog, apart, isLogReady } = this.#parts
    if (await isLogReady()) {
      try {
        const receipt = await inLog.commit()
        this.#kept = inLog
        return receipt
      } catch (cause) {
        if (asGatewayError(cause).code !== 'audit_unavailable') throw cause
      }
    }
    const receipt = await apart.commit()
    this.#kept = apart
    return receipt
  }

  /** In the log its end stands behind everything that the call made the journal keep. */
  #end(work: (call: RecordedCall) => void): void {
    const { apart, inLog, after } = this.#parts
    if (this.#kept === apart) work(apart)
    else after(() => work(inLog))
  }

  #both<T>(learn: (call: RecordedCall) => T): T {
    learn(this.#parts.apart)
    return learn(this.#parts.inLog)
  }
}
