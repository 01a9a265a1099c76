/**
 * The part of the composition root that tells others what happens: webhooks and streams of security event tokens. Each is an export of
 * the log whose messages wait on disk until they are taken; here they get their secrets, their way out, and what people do with them.
 */
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import type { Audit } from '../audit/audit.ts'
import type { WebhookDoor } from '../control/signal/webhook-routes.ts'
import type { Clock } from '../protocol/clock.ts'
import type { TestedView, WebhookView } from '../protocol/control-webhooks.ts'
import type { LetterFormat } from '../protocol/exporting.ts'
import { uuidv7 } from '../protocol/id.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { PublishedAssertions } from '../provider/assertions.ts'
import { readTokenDigest } from '../provider/oauth/token-digest.ts'
import { createReceiver } from '../provider/receiver.ts'
import type { ReadSecret, SecretReference } from '../provider/reference.ts'
import { createWebhookSender } from '../provider/webhook.ts'
import type { ExportJob, Exports } from '../records/export/exports.ts'
import { type Letter, letterOf } from '../records/export/letter.ts'
import { attempt } from '../records/export/letter-attempt.ts'
import { verificationText } from '../records/export/letter-set.ts'
import type { LetterTerms } from '../records/export/letter-terms.ts'
import type { Send } from '../records/export/sink-http.ts'
import { openSpool, type Spool } from '../records/export/spool.ts'
import type { WebhookSettings } from '../settings/signals.ts'
import type { StreamSettings } from '../settings/signals-schema.ts'
import type { Settings } from '../settings.ts'
import type { Upstream } from '../upstream/forward.ts'

export interface LetterParts {
  readonly upstream: Pick<Upstream, 'fetchFor'>
  readonly audit: Pick<Audit, 'administer'>
  readonly clock: Clock
  readonly readSecret: ReadSecret
  readonly signEvent: PublishedAssertions['signEvent']
}

/** One receiver of messages. */
export interface Mailing {
  readonly job: ExportJob
  readonly format: LetterFormat
  readonly terms: LetterTerms
  readonly spool: Spool
  /** Undefined: the receiver comes and takes them. */
  readonly send: Send | undefined
  /** Host. */
  readonly to: string
  /** Of the receiver's token, for streams that it manages or polls. */
  readonly digest: Buffer | undefined
}

const MAX_SHOWN = 100
/** Whoever asks for a test waits for it. */
const TEST_MS = 8_000

/** @throws {Error} naming the webhook or stream whose secret cannot be read. */
export async function openMailings(settings: Settings, parts: LetterParts): Promise<readonly Mailing[]> {
  const { webhooks, streams } = settings.signals
  const explain = (place: string) => (cause: Error) => {
    throw new Error(`${place}: ${cause.message}`, { cause })
  }
  return Promise.all([
    ...Object.entries(webhooks).map(([name, one]) =>
      webhookOf(settings, parts, { name, one }).catch(explain(`webhooks.${name}`)),
    ),
    ...Object.entries(streams).map(([name, one]) =>
      streamMailing(settings, parts, { name, one }).catch(explain(`signals.send.${name}`)),
    ),
  ])
}

interface Named<T> {
  readonly name: string
  readonly one: T
}

async function webhookOf(
  settings: Settings,
  parts: LetterParts,
  { name, one }: Named<WebhookSettings>,
): Promise<Mailing> {
  const { url, keys, headers, addresses, format, kinds, notify, mask } = one
  const { readSecret, clock } = parts
  const fetch = parts.upstream.fetchFor(addresses)
  const send = await createWebhookSender({ fetch, url, keys, headers, readSecret, nowMs: () => clock.nowMs() })
  const to = typeof url === 'string' ? new URL(url).host : '(secret)'
  return mailing(settings, {
    name: `webhook.${name}`,
    format,
    to,
    send,
    digest: undefined,
    audience: '',
    kinds,
    notify,
    mask,
  })
}

/** What a stream may have to say. */
const STREAM_KINDS = ['grant.revoked', 'lease.revoked', 'leak.detected', 'revocation.ordered'] as const

async function streamMailing(
  settings: Settings,
  parts: LetterParts,
  { name, one }: Named<StreamSettings>,
): Promise<Mailing> {
  const { to, audience, mask } = one
  const common = {
    name: `stream.${name}`,
    format: 'set',
    audience,
    kinds: STREAM_KINDS,
    notify: undefined,
    mask,
  } as const
  const digestOf = async (token: SecretReference | undefined) => token && readTokenDigest(token, parts.readSecret)
  if ('poll' in to)
    return mailing(settings, { ...common, to: '(polled)', send: undefined, digest: await digestOf(to.poll.token) })
  const push = await createReceiver({
    fetch: parts.upstream.fetchFor(to.addresses),
    headers: to.headers,
    readSecret: parts.readSecret,
  })
  // Signed when it leaves, so that the key is one that is published now. What it says stays the same in every attempt.
  const send: Send = async ({ body }) => {
    const token = await parts.signEvent(JSON.parse(Buffer.from(body).toString('utf8')) as Record<string, unknown>)
    const headers = { 'content-type': 'application/secevent+jwt', accept: 'application/json' }
    return push({ url: to.url, headers, body: Buffer.from(token) })
  }
  return mailing(settings, { ...common, to: new URL(to.url).host, send, digest: await digestOf(one.manage) })
}

interface Told extends Pick<Mailing, 'format' | 'send' | 'to' | 'digest'>, Pick<ExportJob, 'name' | 'notify'> {
  readonly audience: string
  readonly kinds: readonly string[]
  readonly mask: ExportJob['mask']
}

function mailing({ publicUrl, dataDir }: Settings, told: Told): Mailing {
  const { name, format, send, to, digest, audience, kinds, notify, mask } = told
  const spoolDir = join(dataDir, 'letters', name)
  const terms = { publicUrl, audience, stream: name }
  const box = { letters: format, terms, spoolDir, isPolled: send === undefined }
  const job: ExportJob = { name, format: 'jsonl', to: box, mask, kinds, notify }
  return { job, format, terms, spool: openSpool(spoolDir), send, to, digest }
}

/** What people do with them by hand. */
export function webhookWork(
  settings: Settings,
  {
    mailings,
    exports,
    audit,
    clock,
  }: { mailings: readonly Mailing[]; exports: Pick<Exports, 'letters' | 'wake'> } & Pick<
    LetterParts,
    'audit' | 'clock'
  >,
): WebhookDoor['webhooks'] {
  const { tenant } = settings
  const find = (name: string): Mailing => {
    const found = mailings.filter(({ job }) => job.name === name || job.name.slice(job.name.indexOf('.') + 1) === name)
    if (found.length === 1) return found[0] as Mailing
    const all = mailings.map(({ job }) => job.name).join(', ')
    throw new GatewayError(
      'webhook_unknown',
      `${JSON.stringify(name.slice(0, 80))} names ${found.length === 0 ? 'no' : 'more than one'} webhook or stream of the settings. There are: ${all === '' ? 'none' : all}.`,
    )
  }
  return {
    list: async () => Promise.all(mailings.map((one) => viewOf(one, exports))),
    async retry(name, id, by) {
      const { job, spool } = find(name)
      await audit.administer('admin.webhook_retried', { tenant, human: by }, { name: job.name, id })
      const keys = (await spool.keys('dead')).filter((key) => id === undefined || key.id === id)
      for (const key of keys) {
        const letter = await spool.get('dead', key)
        // A crash between the two leaves it in both places: it is sent twice under one id.
        if (letter) await spool.put('waiting', { ...letter, attempts: 0, firstMs: clock.nowMs() })
        await spool.remove('dead', key)
      }
      exports.wake(job.name)
      return keys.length
    },
    async test(name, by) {
      const one = find(name)
      await audit.administer('admin.webhook_tested', { tenant, human: by }, { name: one.job.name })
      return testOf(one, clock)
    },
  }
}

async function viewOf({ job, format, spool, to }: Mailing, exports: Pick<Exports, 'letters'>): Promise<WebhookView> {
  const [dead, deadKeys, waiting] = await Promise.all([
    spool.list('dead', MAX_SHOWN),
    spool.keys('dead'),
    spool.keys('waiting'),
  ])
  const failure = exports.letters()[job.name]?.failure
  const counts = { waiting: waiting.length, dead, dead_count: deadKeys.length }
  return { name: job.name, format, to, ...counts, ...(failure !== undefined && { failure }) }
}

/** Sent at once, past the queue, so that whoever asks sees what the receiver says. A polled stream keeps it. */
async function testOf({ format, send, spool, terms, job }: Mailing, clock: Clock): Promise<TestedView> {
  const nowMs = clock.nowMs()
  const uid = uuidv7(nowMs)
  const entry = { v: 'ar/1', seq: 0, ts: new Date(nowMs).toISOString(), kind: 'webhook.test' }
  const letter: Letter =
    format === 'set'
      ? verificationLetter(terms, nowMs)
      : (letterOf(format, { uid, entry, decision: undefined, proven: undefined }, terms) as Letter)
  if (send === undefined) {
    await spool.put('waiting', { ...letter, attempts: 0, firstMs: nowMs, reason: undefined })
    return { taken: false, reason: `${job.name} is polled: its receiver gets the test when it asks next` }
  }
  const late = wait(TEST_MS, { kind: 'failed', reason: `no answer within ${TEST_MS / 1000} s` } as const, {
    ref: false,
  })
  const outcome = await Promise.race([attempt(letter, { format, send, nowMs: () => clock.nowMs() }), late])
  return outcome.kind === 'taken' ? { taken: true } : { taken: false, reason: outcome.reason }
}

/** SSF 1.0 §8.1.4. */
export function verificationLetter(terms: LetterTerms, nowMs: number, state?: string): Letter {
  const id = `msg_${uuidv7(nowMs)}`
  const text = verificationText(terms, id, { nowS: Math.floor(nowMs / 1000), ...(state !== undefined && { state }) })
  return { id, kind: 'webhook.test', seq: 0, at: new Date(nowMs).toISOString(), text }
}
