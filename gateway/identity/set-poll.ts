/**
 * Fetches security event tokens from an issuer that keeps them until they are fetched (RFC 8936). A token is acknowledged after it has
 * taken effect; one that could not be carried out now is left unacknowledged, and comes again.
 */
import { parseStrictJson } from '../protocol/strict-json.ts'
import { isRecord } from './key-set.ts'
import { SetRefused } from './set.ts'

interface Asked {
  readonly status: number
  readonly text: string
}

export interface PollOptions {
  readonly everyMs: number
  /** One question. */
  ask(body: string): Promise<Asked>
  /** As `SignalDesk.take`. */
  take(token: string): Promise<void>
  /** What somebody should know, one sentence. */
  warn(text: string): void
  /** Resolves early when `stop` is aborted. */
  sleep(ms: number): Promise<void>
}

/** Of one question. */
const MAX_EVENTS = 50
/** Questions in a row without a pause, however much more there is. */
const MAX_ROUNDS = 20
const LAST_RETRY_MS = 300_000

interface Answered {
  readonly ack: readonly string[]
  readonly setErrs: Readonly<Record<string, { readonly err: string; readonly description: string }>>
}

type Sets = readonly (readonly [jti: string, token: string])[]

/** Asks until `stop` is aborted. */
export async function pollSignals(o: PollOptions, stop: AbortSignal): Promise<void> {
  let answered: Answered = { ack: [], setErrs: {} }
  let failures = 0
  let waiting: string | undefined
  for (let rounds = 0; !stop.aborted; rounds += 1) {
    let isMore = false
    try {
      const round = await takeAll(o, await ask(o, answered))
      answered = round.answered
      // Whatever the issuer says of more: what has to wait is among it, and would come back at once.
      isMore = answered.ack.length > 0 || Object.keys(answered.setErrs).length > 0
      if (round.waiting !== undefined && round.waiting !== waiting) o.warn(`tokens wait: ${round.waiting}`)
      waiting = round.waiting
      if (failures > 0) o.warn('tokens can be fetched again')
      failures = 0
    } catch (cause) {
      failures += 1
      if (failures === 1) o.warn(`tokens cannot be fetched: ${(cause as Error).message}; it is tried again`)
    }
    if (isMore && rounds < MAX_ROUNDS) continue
    rounds = 0
    if (!stop.aborted)
      await o.sleep(Math.min(o.everyMs * 2 ** Math.min(failures, 8), Math.max(o.everyMs, LAST_RETRY_MS)))
  }
}

async function ask(o: PollOptions, { ack, setErrs }: Answered): Promise<Sets> {
  const { status, text } = await o.ask(JSON.stringify({ maxEvents: MAX_EVENTS, returnImmediately: true, ack, setErrs }))
  if (status !== 200) throw new Error(`it answered ${status}`)
  const body = parseStrictJson(text)
  if (!isRecord(body) || !isRecord(body.sets)) throw new Error('its answer holds no sets')
  const sets = Object.entries(body.sets).slice(0, MAX_EVENTS)
  return sets.flatMap(([jti, token]) => (typeof token === 'string' ? [[jti, token] as const] : []))
}

interface Round {
  readonly answered: Answered
  /** Why the last of those waits that could not be carried out now. */
  readonly waiting: string | undefined
}

async function takeAll(o: PollOptions, sets: Sets): Promise<Round> {
  let waiting: string | undefined
  const ack: string[] = []
  const setErrs: [string, Answered['setErrs'][string]][] = [] // names of the issuer's choosing
  for (const [jti, token] of sets) {
    try {
      await o.take(token)
      ack.push(jti)
    } catch (cause) {
      if (cause instanceof SetRefused) setErrs.push([jti, { err: cause.err, description: cause.detail }])
      else waiting = (cause as Error).message
    }
  }
  return { answered: { ack, setErrs: Object.fromEntries(setErrs) }, waiting }
}
