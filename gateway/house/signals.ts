/**
 * The part of the composition root for signals: whose security events are taken, what they end, and what the control door says of our own
 * streams and webhooks. Without settings for it nothing runs, and nothing of it can be reached.
 */
import { hash, timingSafeEqual } from 'node:crypto'
import { setTimeout as wait } from 'node:timers/promises'
import type { Audit } from '../audit/audit.ts'
import type { SignalDoor, SignalReceiver } from '../control/signal/routes.ts'
import type { WebhookDoor } from '../control/signal/webhook-routes.ts'
import type { GrantStore } from '../grant/store/store.ts'
import { createSetReader, type SetReader, SetRefused } from '../identity/set.ts'
import { pollSignals } from '../identity/set-poll.ts'
import { createSignalDesk, type SignalDesk, type SignalsOptions } from '../identity/signals.ts'
import type { Revocations } from '../protocol/revocation.ts'
import { readTokenDigest } from '../provider/oauth/token-digest.ts'
import { createReceiver } from '../provider/receiver.ts'
import type { Exports } from '../records/export/exports.ts'
import type { SourceSettings } from '../settings/signals.ts'
import type { Settings } from '../settings.ts'
import { type LetterParts, type Mailing, webhookWork } from './letters.ts'
import { streamMetadata, streamsOf } from './streams.ts'

export interface HouseSignals {
  readonly signals: SignalDoor['signals']
  readonly webhooks: WebhookDoor['webhooks']
}

export interface SignalParts extends LetterParts {
  readonly audit: Pick<Audit, 'administer' | 'record'>
  readonly store: Pick<GrantStore, 'left' | 'add'>
  readonly revocations: Pick<Revocations, 'order' | 'lift'>
  readonly exports: Exports
  readonly mailings: readonly Mailing[]
  /** Closes what is opened. */
  readonly opening: AsyncDisposableStack
}

/** @throws {Error} naming the issuer whose token cannot be read. */
export async function openHouseSignals(settings: Settings, parts: SignalParts): Promise<HouseSignals> {
  const { sources } = settings.signals
  const fetchFor: LetterParts['upstream']['fetchFor'] = (addresses) => parts.upstream.fetchFor(addresses)
  const reader = createSetReader({ sources, fetchFor, clock: parts.clock })
  const desk = createSignalDesk(deskOptions(settings, parts, reader))
  const stop = new AbortController()
  const polls = await Promise.all(sources.map((source) => pollerOf(source, parts, desk)))
  const running = polls.map((run) => run?.(stop.signal))
  parts.opening.defer(async () => {
    stop.abort()
    await Promise.all(running)
  })
  return {
    signals: {
      receive: sources.length === 0 ? undefined : await receiverOf(sources, { reader, desk, parts }),
      streams: streamsOf(settings, parts.mailings, parts),
      metadata: streamMetadata(settings),
    },
    webhooks: webhookWork(settings, parts),
  }
}

function deskOptions(
  { tenant }: Settings,
  { audit, clock, revocations, store }: SignalParts,
  reader: SetReader<SourceSettings>,
): SignalsOptions<SourceSettings> {
  const charge = (name: string, untilS: number) => ({ name, kind: 'count', limit: 1, by: 1, untilS }) as const
  return {
    reader,
    clock,
    order: (order) => revocations.order(order),
    lift: (target, by) => revocations.lift(target, by),
    received: (signal) => audit.record('signal.received', tenant, { ...signal, events: [...signal.events] }),
    refused: ({ issuer, err, detail }) => audit.record('signal.refused', tenant, { issuer, err, reason: detail }),
    seen: {
      has: async (name) => (await store.left(tenant, charge(name, Math.floor(clock.nowMs() / 1000) + 1))) === 0,
      add: async (name, untilS) => store.add(tenant, [charge(name, untilS)]),
    },
  }
}

interface Received {
  readonly reader: SetReader<SourceSettings>
  readonly desk: SignalDesk
  readonly parts: SignalParts
}

async function receiverOf(
  sources: readonly SourceSettings[],
  { reader, desk, parts }: Received,
): Promise<SignalReceiver> {
  const digests = new Map(
    await Promise.all(
      sources.map(async ({ issuer, token }) => {
        const digest = token && (await readTokenDigest(token, parts.readSecret).catch(explain(issuer)))
        return [issuer, digest] as const
      }),
    ),
  )
  return {
    async push(token, bearer) {
      const { issuer } = reader.sourceOf(token)
      const digest = digests.get(issuer)
      if (digest !== undefined && !timingSafeEqual(digest, hash('sha256', bearer ?? '', 'buffer')))
        throw new SetRefused('access_denied', 'it came without the bearer token that settings ask for')
      await desk.take(token)
    },
  }
}

/** More than what is shown of an answer to people: a page of tokens. */
const MAX_ANSWER = 1024 * 1024

async function pollerOf({ issuer, addresses, poll }: SourceSettings, parts: SignalParts, desk: SignalDesk) {
  if (poll === undefined) return undefined
  const { url, headers, every_s: everyS } = poll
  const fetch = parts.upstream.fetchFor(addresses)
  const send = await createReceiver({ fetch, headers, readSecret: parts.readSecret, maxText: MAX_ANSWER }).catch(
    explain(issuer),
  )
  const json = { 'content-type': 'application/json', accept: 'application/json' }
  return (stop: AbortSignal) =>
    pollSignals(
      {
        everyMs: everyS * 1000,
        ask: (body) => send({ url, headers: json, body: Buffer.from(body) }),
        take: (token) => desk.take(token),
        warn: (text) => process.stderr.write(`keyless: warning: signals of ${issuer}: ${text}\n`),
        sleep: (ms) => wait(ms, undefined, { signal: stop, ref: false }).catch(() => undefined),
      },
      stop,
    )
}

function explain(issuer: string) {
  return (cause: Error): never => {
    throw new Error(`signals.receive, ${issuer}: ${cause.message}`, { cause })
  }
}
