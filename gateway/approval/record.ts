/**
 * One approval as it is remembered, and how it changes: who consented, whether that is enough, and that it is taken up once. Pure:
 * stores keep it, `approvals.ts` says when.
 */
import type { AgentSays, ApprovalFacts, ApprovalTerms, ApprovalView, Consent } from '../protocol/approval.ts'

/** Milliseconds since the epoch. */
export interface ApprovalRecord {
  readonly id: string
  readonly tenant: string
  readonly fingerprint: string
  /** The grant that asks, as `holdingOf` names it. */
  readonly holding: string
  readonly facts: ApprovalFacts
  readonly agentSays: AgentSays
  readonly terms: ApprovalTerms
  readonly consents: readonly Consent[]
  readonly deniedBy?: NonNullable<ApprovalView['deniedBy']>
  readonly state: 'pending' | 'approved' | 'denied' | 'used' | 'withdrawn'
  readonly createdMs: number
  /** Until when it can be decided; once approved, until when it can be taken up; once denied, until when that counts. */
  readonly untilMs: number
  /** Counts changes from 0. */
  readonly version: number
}

/** How it stands at a time: what nobody decided, or took up, in time has expired, whatever is stored. */
export function stateAt({ state, untilMs }: ApprovalRecord, nowMs: number): Pick<ApprovalView, 'state' | 'why'> {
  if (state === 'withdrawn') return { state: 'expired', why: 'grant_ended' }
  if (nowMs >= untilMs && (state === 'pending' || state === 'approved')) return { state: 'expired', why: 'time' }
  return { state }
}

/** Whether the same request finds this one instead of asking anew. */
export function isStanding(record: ApprovalRecord, nowMs: number): boolean {
  return (
    nowMs < record.untilMs && (record.state === 'pending' || record.state === 'approved' || record.state === 'denied')
  )
}

export function missingGroups({ terms, consents }: Pick<ApprovalRecord, 'terms' | 'consents'>): string[] {
  return terms.from.filter((group) => !consents.some(({ groups }) => groups.includes(group)))
}

/** At least this many people have to consent yet. The root human speaks for nobody else, so a missing `human` is one more. */
export function neededPeople(record: Pick<ApprovalRecord, 'terms' | 'consents'>): number {
  const missing = missingGroups(record)
  const forGroups = (missing.includes('human') ? 1 : 0) + (missing.some((group) => group !== 'human') ? 1 : 0)
  return Math.max(record.terms.count - peopleIn(record.consents), forGroups)
}

/** By name: one person has one name in the settings, however it proves to be it. */
function peopleIn(consents: readonly Consent[]): number {
  return new Set(consents.map(({ name }) => name)).size
}

/**
 * With one more consent; approved once it was the last. Somebody who consented already changes nothing.
 * @param lifeMs how long it can be taken up then, unless its terms say for how long it may be repeated.
 */
export function consented(record: ApprovalRecord, consent: Consent, nowMs: number, lifeMs: number): ApprovalRecord {
  if (record.consents.some(({ name }) => name === consent.name)) return record
  const next = { ...record, consents: [...record.consents, consent], version: record.version + 1 }
  if (neededPeople(next) > 0) return next
  const { reuseS } = record.terms
  return { ...next, state: 'approved', untilMs: nowMs + (reuseS === undefined ? lifeMs : reuseS * 1000) }
}

/** @param untilMs until when the same request is told so instead of asking again. */
export function denied(
  record: ApprovalRecord,
  deniedBy: NonNullable<ApprovalRecord['deniedBy']>,
  untilMs: number,
): ApprovalRecord {
  return { ...record, deniedBy, state: 'denied', untilMs, version: record.version + 1 }
}

export function withdrawn(record: ApprovalRecord): ApprovalRecord {
  return { ...record, state: 'withdrawn', version: record.version + 1 }
}

/** Taken up by a call: for good where it counts once. */
export function taken(record: ApprovalRecord): ApprovalRecord {
  return record.terms.reuseS === undefined ? { ...record, state: 'used', version: record.version + 1 } : record
}

export function viewOf(record: ApprovalRecord, nowMs: number): ApprovalView {
  const { id, tenant, fingerprint, facts, agentSays, terms, consents, deniedBy } = record
  const standing = stateAt(record, nowMs)
  const isPending = standing.state === 'pending'
  return {
    ...{ id, tenant, fingerprint, facts, agentSays, terms, consents },
    ...standing,
    missing: isPending ? missingGroups(record) : [],
    needed: isPending ? neededPeople(record) : 0,
    ...(deniedBy && { deniedBy }),
    createdAt: Math.floor(record.createdMs / 1000),
    expiresAt: Math.floor(record.untilMs / 1000),
  }
}
