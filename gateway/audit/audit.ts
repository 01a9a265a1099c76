/** The record of what happened: opens an event for each call and instruction, and writes what the gateway does of itself. */
import { type KeyObject, randomUUID } from 'node:crypto'
import type { Clock } from '../protocol/clock.ts'
import type { Grant } from '../protocol/grant.ts'
import type { Instruction } from '../protocol/instruction.ts'
import type { Inbound } from '../protocol/message.ts'
import type { JsonValue } from './canonical.ts'
import {
  type CallEvent,
  type Desk,
  type InstructionEvent,
  type Receipt,
  RecordedCall,
  RecordedInstruction,
  receiptFor,
} from './event.ts'
import { noteDraft, underDraft } from './instructed.ts'
import { letterhead, type SealPersonal } from './letterhead.ts'
import type { Log } from './log.ts'

export interface Audit {
  /** Cannot fail. */
  openCall(inbound: Inbound): CallEvent
  openInstruction(instruction: Instruction): InstructionEvent
  /**
   * Record what the gateway does of itself: `policy.loaded`, `settings.loaded`. `fields` become the entry's `facts`; never a secret.
   * @throws {GatewayError} `audit_unavailable`.
   */
  record(kind: string, tenant: string, fields: Readonly<Record<string, JsonValue | undefined>>): Promise<Receipt>
  /** The same of what happens under a grant, with the whole chain of authority behind it: `lease.issued`, `lease.revoked`. */
  recordUnder(kind: string, grant: Grant, fields: Readonly<Record<string, JsonValue | undefined>>): Promise<Receipt>
  /** Entries in the log. */
  readonly size: number
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
  readonly seal?: SealPersonal | undefined
}

export function createAudit({ log, clock, node, version, hmacKey, seal }: AuditOptions): Audit {
  const paper = letterhead({ node, version, boot: randomUUID(), origin: log.origin, hmacKey, seal })
  const desk: Desk = { paper, clock, log }
  return {
    openCall: (inbound) => new RecordedCall(desk, inbound),
    openInstruction: (instruction) => new RecordedInstruction(desk, instruction),
    record: (kind, tenant, fields) => receiptFor(desk, kind, noteDraft(paper, kind, tenant, fields)),
    recordUnder: (kind, grant, fields) => receiptFor(desk, kind, underDraft(paper, kind, grant, fields)),
    get size() {
      return log.size
    },
    get failure() {
      return log.failure
    },
    close: () => log.close(),
  }
}
