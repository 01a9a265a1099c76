/** The record of what happened: opens an event for each call and instruction, and writes what the gateway does of itself. */
import { type KeyObject, randomUUID } from 'node:crypto'
import type { Clock } from '../protocol/clock.ts'
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
import { noteDraft } from './instructed.ts'
import type { Log } from './log.ts'
import { letterhead } from './record.ts'

export interface Audit {
  /** Cannot fail. */
  openCall(inbound: Inbound): CallEvent
  openInstruction(instruction: Instruction): InstructionEvent
  /**
   * Record something that carries authority and is neither call nor instruction: `policy.loaded`, `lease.issued`, `lease.revoked`.
   * `fields` become the entry's `facts`; never a secret.
   * @throws {GatewayError} `audit_unavailable`.
   */
  record(kind: string, tenant: string, fields: Readonly<Record<string, JsonValue | undefined>>): Promise<Receipt>
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
}

export function createAudit({ log, clock, node, version, hmacKey }: AuditOptions): Audit {
  const paper = letterhead({ node, version, boot: randomUUID(), origin: log.origin, hmacKey })
  const desk: Desk = { paper, clock, log }
  return {
    openCall: (inbound) => new RecordedCall(desk, inbound),
    openInstruction: (instruction) => new RecordedInstruction(desk, instruction),
    record: (kind, tenant, fields) => receiptFor(desk, kind, noteDraft(paper, kind, tenant, fields)),
    get size() {
      return log.size
    },
    get failure() {
      return log.failure
    },
    close: () => log.close(),
  }
}
