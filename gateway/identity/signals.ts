/**
 * What becomes of a security event token: verified, held against what was taken before, carried out, recorded, remembered, in this order.
 * A crash between any two steps leaves a token that its issuer sends again; carried out twice within minutes it ends nothing more.
 */
import { hash } from 'node:crypto'
import type { Clock } from '../protocol/clock.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { RevocationAuthor, RevocationOrder, RevocationTarget } from '../protocol/revocation.ts'
import { type SetReader, SetRefused, type Signal, type SignalSource } from './set.ts'
import type { SignalAction } from './set-events.ts'

export interface ActingSource extends SignalSource {
  readonly block_s: number
  readonly per_minute: number
}

/** What `signal.received` tells. No name of a human: the order that it led to has its own entry. */
export interface ReceivedSignal {
  readonly issuer: string
  readonly jti: string
  readonly events: readonly string[]
  readonly action: SignalAction
  readonly about: 'human' | 'agent' | 'task' | 'nobody'
  /** Why it changed nothing, or less than was asked. */
  readonly reason: string | undefined
  /** Id of the order to revoke. */
  readonly order: string | undefined
  readonly grants: number | undefined
}

export interface SignalsOptions<Source extends ActingSource> {
  readonly reader: SetReader<Source>
  readonly order: (order: RevocationOrder) => Promise<{ readonly id: string; readonly grants: number }>
  readonly lift: (target: RevocationTarget, by: RevocationAuthor) => Promise<void>
  readonly received: (signal: ReceivedSignal) => Promise<unknown>
  /** A token that names a configured issuer, and is not to be believed. */
  readonly refused: (refusal: SetRefused) => Promise<unknown>
  /** What was taken is remembered at all replicas together. */
  readonly seen: { has(name: string): Promise<boolean>; add(name: string, untilS: number): Promise<void> }
  readonly clock: Clock
}

export interface SignalDesk {
  /**
   * Resolves when the token has taken effect, or had before.
   * @throws {SetRefused} when it never will. @throws {GatewayError} `too_many_requests`, `store_unavailable`, `audit_unavailable`: it may come again.
   */
  take(token: string): Promise<void>
}

/** Refusals of one issuer's tokens that are recorded in a minute: anybody can send tokens that name it. */
const RECORDED_A_MINUTE = 10
const MINUTE_MS = 60_000
/** Signatures under way at once: verifying is cheap, and strangers may send as much as they like. */
const AT_ONCE = 32

export function createSignalDesk<Source extends ActingSource>(o: SignalsOptions<Source>): SignalDesk {
  const taken = createMinutes(o.clock)
  const recorded = createMinutes(o.clock)
  let underWay = 0
  const verified = async (token: string): Promise<Signal<Source>> => {
    if (underWay >= AT_ONCE) throw busy('Many tokens are being looked at already.', 1000)
    underWay += 1
    try {
      return await o.reader.verify(token)
    } catch (cause) {
      if (
        cause instanceof SetRefused &&
        cause.issuer !== undefined &&
        recorded.count(cause.issuer) <= RECORDED_A_MINUTE
      )
        await o.refused(cause)
      throw cause
    } finally {
      underWay -= 1
    }
  }
  return {
    async take(token) {
      const signal = await verified(token)
      const { source, jti, issuedAt } = signal
      const name = `set:${hash('sha256', `${source.issuer}\n${jti}`, 'base64url')}`
      if (await o.seen.has(name)) return // RFC 8935 §2: an answer was lost on the way, so it is given again
      // Counted by signature, so that nobody but the issuer can use up what it may send.
      if (taken.count(source.issuer) > source.per_minute)
        throw busy(`More than ${source.per_minute} tokens of ${source.issuer} in a minute.`, MINUTE_MS)
      await o.received({
        issuer: source.issuer,
        jti,
        events: signal.events.map(({ name }) => name),
        ...(await act(signal, o)),
      })
      await o.seen.add(name, issuedAt + source.max_age_s + 2 * source.clock_skew_s)
    },
  }
}

type Done = Pick<ReceivedSignal, 'action' | 'about' | 'reason' | 'order' | 'grants'>

/** One token has one subject, so the strongest of its events is carried out. */
async function act<Source extends ActingSource>(signal: Signal<Source>, o: SignalsOptions<Source>): Promise<Done> {
  const { source, target, events } = signal
  const event = (['block', 'end', 'lift'] as const)
    .map((action) => events.find((one) => one.action === action))
    .find((one) => one !== undefined)
  const none = { order: undefined, grants: undefined }
  if (event === undefined) return { action: 'note', about: aboutOf(target), reason: undefined, ...none }
  if (typeof target === 'string') return { action: event.action, about: 'nobody', reason: target, ...none }
  const by = { signal: { issuer: source.issuer, issuedAt: signal.issuedAt } }
  const reason = event.reason === undefined ? event.name : `${event.name}: ${event.reason}`
  const done = { action: event.action, about: aboutOf(target) }
  try {
    if (event.action === 'lift') {
      await o.lift(target, by)
      return { ...done, reason: undefined, ...none }
    }
    const nowS = Math.floor(o.clock.nowMs() / 1000)
    const isBlock = event.action === 'block' && !('task' in target) // the end of a task is for good
    const { id, grants } = await o.order({ target, reason, by, ...(isBlock && { untilS: nowS + source.block_s }) })
    return { ...done, reason: undefined, order: id, grants }
  } catch (cause) {
    if (cause instanceof GatewayError && NOBODY.has(cause.code))
      return { ...done, reason: event.action === 'lift' ? cause.detail : `not known here (${cause.code})`, ...none }
    throw cause
  }
}

/** There is nothing of this name that could be ended: sending it again changes nothing. */
const NOBODY: ReadonlySet<string> = new Set(['instruction_invalid', 'grant_invalid', 'task_unknown', 'agent_unknown'])

function aboutOf(target: Signal['target']): Done['about'] {
  if (typeof target === 'string') return 'nobody'
  return 'human' in target ? 'human' : 'agent' in target ? 'agent' : 'task'
}

function busy(why: string, retryAfterMs: number): GatewayError {
  return new GatewayError('too_many_requests', `${why} Send the token again later.`, { retryAfterMs })
}

/** How many in the minute that is running, by name; names are those of settings, so there are few. */
function createMinutes(clock: Clock) {
  const counts = new Map<string, { readonly startMs: number; n: number }>()
  return {
    count(name: string): number {
      const nowMs = clock.elapsedMs()
      const known = counts.get(name)
      const current = known !== undefined && nowMs - known.startMs < MINUTE_MS ? known : { startMs: nowMs, n: 0 }
      current.n += 1
      counts.set(name, current)
      return current.n
    },
  }
}
