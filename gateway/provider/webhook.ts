/**
 * Signs messages to a receiver (Standard Webhooks 1.0) and sends them. The secrets of a receiver, its URL where that is one, and what it
 * answers never leave this file unshown: signatures, status, and a text without any of them.
 */
import { createHmac, createPrivateKey, type KeyObject, sign } from 'node:crypto'
import type { Secret } from '../protocol/secret.ts'
import type { GuardedFetch } from './provider.ts'
import { createReceiver } from './receiver.ts'
import type { ReadSecret, SecretReference } from './reference.ts'

export interface WebhookOptions {
  readonly fetch: GuardedFetch
  /** Plain, or a secret: whoever knows the URL of a chat's webhook can write there. */
  readonly url: string | SecretReference
  /** Each signs every message, so that a receiver may know any of them: `whsec_…` (HMAC-SHA256) or `whsk_…` (Ed25519). */
  readonly keys: readonly SecretReference[]
  /** Header → where its value is read. */
  readonly headers: Readonly<Record<string, SecretReference>>
  readonly readSecret: ReadSecret
  nowMs(): number
}

type Send = Awaited<ReturnType<typeof createReceiver>>

/** Standard Webhooks 1.0, signature scheme: 24 to 64 bytes. */
const SECRET_BYTES = { min: 24, max: 64 } as const
/** How long what was read is used; a rotated secret is then taken up, and a receiver that says no makes it be read at once. */
const FRESH_MS = 60_000

interface Known {
  readonly url: string
  readonly signers: readonly ((content: string) => string)[]
  readonly atMs: number
}

/** @throws {Error} when a key or the URL is not one; the message does not repeat it. @throws {GatewayError} when it cannot be read. */
export async function createWebhookSender(o: WebhookOptions): Promise<Send> {
  const send = await createReceiver(o)
  const read = async (): Promise<Known> => ({
    url: typeof o.url === 'string' ? o.url : urlIn(await o.readSecret(o.url)),
    signers: await Promise.all(o.keys.map(async (place) => signerOf(await o.readSecret(place)))),
    atMs: o.nowMs(),
  })
  let known = await read()
  return async ({ headers, body }) => {
    if (o.nowMs() - known.atMs >= FRESH_MS) known = await read()
    const { url, signers } = known
    const timestamp = String(Math.floor(o.nowMs() / 1000))
    const content = `${headers['webhook-id']}.${timestamp}.${Buffer.from(body).toString('utf8')}`
    const signed = {
      ...headers,
      ...(signers.length > 0 && {
        'webhook-timestamp': timestamp,
        'webhook-signature': signers.map((signer) => signer(content)).join(' '),
      }),
    }
    const answer = await send({ url, headers: signed, body })
    if (answer.status === 401 || answer.status === 403) known = await read()
    return typeof o.url === 'string' ? answer : { ...answer, text: answer.text.replaceAll(url, '[secret]') }
  }
}

function urlIn(secret: Secret): string {
  const url = URL.parse(secret.reveal())
  if (url === null || !/^https?:$/.test(url.protocol) || url.hash !== '')
    throw new Error('The secret that names a webhook is no http(s) URL. Put the whole URL there, and nothing else.')
  return url.href
}

/** The key of a receiver as a function of what is signed. The asymmetric form is told by its prefix alone. */
function signerOf(secret: Secret): (content: string) => string {
  const [, kind, text] = /^(whsec|whsk)_([A-Za-z0-9+/]+={0,2})$/.exec(secret.reveal()) ?? []
  const bytes = Buffer.from(text ?? '', 'base64')
  if (kind === 'whsec' && bytes.length >= SECRET_BYTES.min && bytes.length <= SECRET_BYTES.max)
    return (content) => `v1,${createHmac('sha256', bytes).update(content).digest('base64')}`
  const key = kind === 'whsk' ? ed25519Of(bytes) : undefined
  if (key !== undefined) return (content) => `v1a,${sign(null, Buffer.from(content), key).toString('base64')}`
  throw new Error(
    'A key of a webhook is not one: write whsec_ and base64 of 24 to 64 random bytes ("echo whsec_$(openssl rand -base64 32)"), or whsk_ and base64 of an Ed25519 private key.',
  )
}

/** PKCS #8 of an Ed25519 key, before its 32 bytes (RFC 8410 §7). */
const PKCS8_ED25519 = Buffer.from('302e020100300506032b657004220420', 'hex')

/** The seed alone, or with the public half behind it, as libraries of NaCl write it. */
function ed25519Of(bytes: Buffer): KeyObject | undefined {
  if (bytes.length !== 32 && bytes.length !== 64) return undefined
  const key = Buffer.concat([PKCS8_ED25519, bytes.subarray(0, 32)])
  return createPrivateKey({ key, format: 'der', type: 'pkcs8' })
}
