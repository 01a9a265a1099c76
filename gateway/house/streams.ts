/** Streams of security event tokens as their receivers see them over HTTP (SSF 1.0, RFC 8936). Their settings are code, not an API. */
import { setTimeout as wait } from 'node:timers/promises'
import { type PollAnswer, type PollRequest, type SignalStream, VERIFICATION_EVERY_S } from '../control/signal/routes.ts'
import type { Exports } from '../records/export/exports.ts'
import { SENT_EVENTS } from '../records/export/letter-set.ts'
import type { Settings } from '../settings.ts'
import { type LetterParts, type Mailing, verificationLetter } from './letters.ts'

const PUSH = 'urn:ietf:rfc:8935'
const POLL = 'urn:ietf:rfc:8936'

/** SSF 1.0 §7.1. Subjects are all that the stream's events are about; who may read a stream is in the settings of the gateway. */
export function streamMetadata({ publicUrl }: Settings): object {
  return {
    spec_version: '1_0',
    issuer: publicUrl,
    jwks_uri: `${publicUrl}/assertions/jwks.json`,
    delivery_methods_supported: [PUSH, POLL],
    configuration_endpoint: `${publicUrl}/signals/streams`,
    status_endpoint: `${publicUrl}/signals/status`,
    verification_endpoint: `${publicUrl}/signals/verification`,
    authorization_schemes: [{ spec_urn: 'urn:ietf:rfc:6750' }],
    default_subjects: 'ALL',
  }
}

/** Stream's id → stream. */
export function streamsOf(
  settings: Settings,
  mailings: readonly Mailing[],
  parts: StreamParts,
): ReadonlyMap<string, SignalStream> {
  const streams = mailings.filter(({ format }) => format === 'set')
  return new Map(streams.map((one) => [one.job.name, streamOf(settings, one, parts)]))
}

type StreamParts = Pick<LetterParts, 'clock' | 'signEvent'> & { readonly exports: Pick<Exports, 'wake'> }

function streamOf({ publicUrl }: Settings, one: Mailing, parts: StreamParts): SignalStream {
  const { job, terms, spool, send, digest } = one
  const id = job.name
  const delivery =
    send === undefined ? { method: POLL, endpoint_url: `${publicUrl}/signals/streams/${id}/poll` } : { method: PUSH }
  return {
    digest,
    configuration: {
      stream_id: id,
      iss: publicUrl,
      aud: terms.audience,
      delivery,
      events_supported: SENT_EVENTS,
      events_requested: SENT_EVENTS,
      events_delivered: SENT_EVENTS,
      min_verification_interval: VERIFICATION_EVERY_S,
    },
    poll: send === undefined ? createPoll(one, parts) : undefined,
    async verify(state) {
      const nowMs = parts.clock.nowMs()
      const letter = verificationLetter(terms, nowMs, state)
      await spool.put('waiting', { ...letter, attempts: 0, firstMs: nowMs, reason: undefined })
      parts.exports.wake(id)
    },
  }
}

const MAX_SETS = 100
/** A receiver that asks to be kept waiting is kept so long, and no more of them at once. */
const HOLD_MS = 25_000
const LOOK_MS = 500
const MAX_HELD = 4

function createPoll({ spool }: Mailing, { signEvent }: StreamParts): SignalStream['poll'] {
  let held = 0
  const look = async (maxEvents: number): Promise<PollAnswer> => {
    const keys = await spool.keys('waiting')
    const letters = await Promise.all(keys.slice(0, maxEvents).map((key) => spool.get('waiting', key)))
    const sets = letters
      .filter((letter) => letter !== undefined)
      .map(async ({ id, text }) => [id, await signEvent(JSON.parse(text) as Record<string, unknown>)] as const)
    return { sets: Object.fromEntries(await Promise.all(sets)), moreAvailable: keys.length > maxEvents }
  }
  return async (request) => {
    await acknowledge(spool, request)
    const maxEvents = Math.min(request.maxEvents ?? MAX_SETS, MAX_SETS)
    let answer = await look(maxEvents)
    if (request.returnImmediately === true || maxEvents === 0 || held >= MAX_HELD) return answer
    held += 1
    try {
      for (let waitedMs = 0; Object.keys(answer.sets).length === 0 && waitedMs < HOLD_MS; waitedMs += LOOK_MS) {
        await wait(LOOK_MS, undefined, { ref: false })
        answer = await look(maxEvents)
      }
    } finally {
      held -= 1
    }
    return answer
  }
}

/** What was acknowledged has arrived. What the receiver says it cannot take is kept beside, for people to look at. */
async function acknowledge(spool: Mailing['spool'], { ack = [], setErrs = {} }: PollRequest): Promise<void> {
  if (ack.length === 0 && Object.keys(setErrs).length === 0) return
  const arrived = new Set(ack)
  for (const key of await spool.keys('waiting')) {
    const error = Object.hasOwn(setErrs, key.id) ? setErrs[key.id] : undefined
    if (error !== undefined) {
      const letter = await spool.get('waiting', key)
      const reason = `${error.err}: ${error.description ?? ''}`.replaceAll(/\p{Cc}+/gu, ' ').slice(0, 300)
      if (letter) await spool.put('dead', { ...letter, attempts: letter.attempts + 1, reason })
    }
    if (error !== undefined || arrived.has(key.id)) await spool.remove('waiting', key)
  }
}
