/** The record of what happened: opens an event for each call and instruction, and writes what the gateway does of itself. */
import { type KeyObject, randomUUID } from 'node:crypto'
import type { Clock } from '../protocol/clock.ts'
import type { Grant, Human } from '../protocol/grant.ts'
import type { Enquiry, Instruction } from '../protocol/instruction.ts'
import type { Inbound, TurnedAway } from '../protocol/message.ts'
import type { Draft, JsonValue } from './canonical.ts'
import { type Aside, type AsideParts, createAside } from './entries/aside.ts'
import {
  type CallEvent,
  type Desk,
  type InstructionEvent,
  type Receipt,
  RecordedCall,
  receiptFor,
} from './entries/event.ts'
import { adminDraft, noteDraft, underDraft } from './entries/instructed.ts'
import { draftOn, letterhead } from './entries/letterhead.ts'
import { RecordedInstruction } from './entries/recorded-instruction.ts'
import { Tally } from './entries/tally.ts'
import { startHeartbeat } from './heartbeat.ts'
import type { Log } from './log.ts'
import type { PersonalSeals } from './personal/seals.ts'

type Facts = Readonly<Record<string, JsonValue | undefined>>

export interface Audit {
  /** Cannot fail. */
  openCall(inbound: Inbound): CallEvent
  openInstruction(instruction: Instruction | Enquiry): InstructionEvent
  /** Something was turned away that has no entry of its own: the next heartbeat has the number. */
  turnedAway(why: TurnedAway): void
  /**
   * Record what the gateway does of itself: `policy.loaded`, `settings.loaded`. `fields` become the entry's `facts`; never a secret.
   * @throws {GatewayError} `audit_unavailable`.
   */
  record(kind: string, tenant: string, fields: Facts): Promise<Receipt>
  /** The same of what happens under a grant, with the whole chain of authority behind it: `lease.issued`, `lease.revoked`. */
  recordUnder(kind: string, grant: Grant, fields: Facts): Promise<Receipt>
  /**
   * Record what somebody did to the gateway itself, before it is done: `admin.personal_forgotten`, `admin.records_read`.
   * @param by who did it; without a human, the gateway by itself.
   */
  administer(
    kind: `admin.${string}` | `revocation.${string}` | 'approval.decided',
    by: { tenant: string; human?: Human },
    facts: Facts,
  ): Promise<Receipt>
  /** What somebody, or the gateway by itself, has done already: kept through a failing disk until it can be written. */
  late(kind: `revocation.${string}` | `leak.${string}`, by: { tenant: string; human?: Human }, facts: Facts): void
  /** The record of emergencies, which goes on in the journal while the log cannot be written. */
  beside(journal: AsideParts['journal'], onJournalled: AsideParts['onJournalled']): Aside
  /** Entries in the log. */
  readonly size: number
  /** Entries that wait for a disk that failed. */
  readonly kept: number
  /** Allowed calls that have not ended. */
  readonly open: number
  /** Why the log cannot be written or signed at present. */
  readonly failure: Error | undefined
  /** After the last call has ended. */
  close(): Promise<void>
}

export interface AuditOptions {
  readonly log: Log
  readonly clock: Clock
  /** Which replica this is, by preference its host name. */
  readonly node: string
  readonly version: string
  /** Keys the hashes of query strings. */
  readonly hmacKey: KeyObject
  /** Default: nothing is sealed. */
  readonly personal?: PersonalSeals | undefined
  /** Default: nobody counts. */
  readonly tally?: Tally
  /** Milliseconds between two heartbeats. Default: there are none. */
  readonly heartbeatMs?: number
}

export function createAudit({ log, clock, personal, tally = new Tally(), heartbeatMs, ...o }: AuditOptions): Audit {
  const paper = letterhead({ ...o, boot: randomUUID(), origin: log.origin, seal: personal?.seal })
  // What is written under a key that is gone would be lost.
  personal?.onForgotten(() => {
    paper.chains = new WeakMap()
  })
  const desk: Desk = { paper, clock, log, tally, ready: (human, owner) => personal?.ready(human, owner) }
  const noted = async (kind: string, facts: Facts, draft: () => Draft, human?: Human): Promise<Receipt> => {
    await desk.ready(human)
    const receipt = await receiptFor(desk, kind, draft())
    tally.watcher?.noted(kind, facts)
    return receipt
  }
  const stop =
    heartbeatMs &&
    startHeartbeat({
      ...{ everyMs: heartbeatMs, clock, tally, kept: () => log.kept, failure: () => log.failure },
      write: (facts) => log.append(draftOn(paper, { kind: 'log.heartbeat', facts }, undefined)),
    })
  return {
    openCall: (inbound) => new RecordedCall(desk, inbound),
    openInstruction: (instruction) => new RecordedInstruction(desk, instruction),
    turnedAway: (why) => tally.turnAway(why),
    record: (kind, tenant, facts) => noted(kind, facts, () => noteDraft(paper, kind, tenant, facts)),
    recordUnder: (kind, grant, facts) => noted(kind, facts, () => underDraft(paper, kind, grant, facts), grant.human),
    administer: (kind, by, facts) => noted(kind, facts, () => adminDraft(paper, kind, by, facts), by.human),
    late(kind, by, facts) {
      // Without the key that a name is sealed under, nobody is named.
      const written = (as: typeof by) => log.enqueue(adminDraft(paper, kind, as, facts))
      Promise.resolve(desk.ready(by.human))
        .then(
          () => written(by),
          () => written({ tenant: by.tenant }),
        )
        .catch(() => undefined) // the log was closed: nothing can be added to it
      tally.watcher?.noted(kind, facts)
    },
    beside: (journal, onJournalled) => createAside({ desk, log, journal, onJournalled }),
    get size() {
      return log.size
    },
    get failure() {
      return log.failure
    },
    get open() {
      return tally.open
    },
    get kept() {
      return log.kept
    },
    close() {
      if (stop) stop()
      return log.close()
    },
  }
}
