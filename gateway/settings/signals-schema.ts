/** Webhooks and Shared Signals in `keyless.yaml` as people write them: whom the gateway tells, and whose security events it acts on. */
import { z } from 'zod'
import { signalActions, signalEvents } from '../identity/set-events.ts'
import { SIGNATURES } from '../identity/trust.ts'
import { keyPlace } from '../identity/trust-parts.ts'
import { MASKS } from '../protocol/exporting.ts'
import { secretReference } from '../provider/reference.ts'
import { read } from './advice.ts'
import { cleanUrl } from './listen.ts'

const name = () => z.string().regex(/^[a-z0-9][a-z0-9_-]{0,62}$/)
const text = () => z.string().trim().min(1).max(255)
const httpUrl = (example: string) =>
  z
    .string()
    .transform(read(cleanUrl, { allowed: 'an http(s) URL without user, query or fragment', fix: `write "${example}"` }))
const addresses = keyPlace.addresses.describe(
  'CIDR ranges that the receiver may be in besides public ones: private addresses are refused otherwise.',
)
const headers = z.record(z.string(), secretReference).default({}).describe('Header: secret, by reference.')
const kinds = z
  .array(z.string().regex(/^[a-z_]+\.(?:\*|[a-z_.]+)$/))
  .min(1)
  .optional()
const notify = z
  .array(text())
  .min(1)
  .optional()
  .describe('Names in @notify of policies: what they decided is sent too.')
const mask = z
  .array(z.enum(MASKS))
  .max(MASKS.length)
  .default([])
  .describe('What is replaced by a keyed hash before it leaves. Default none.')

/** What people want to know at once. */
export const DEFAULT_KINDS = ['approval.*', 'breakglass.*', 'leak.*', 'revocation.*', 'signal.*'] as const

const webhook = z
  .strictObject({
    url: z
      .union([httpUrl('https://hooks.example.com/keyless'), secretReference])
      .describe('Where messages go. By reference where the URL itself is the secret, as with Slack.'),
    format: z
      .enum(['standard', 'slack'])
      .default('standard')
      .describe('standard (default): Standard Webhooks. slack: what Slack and what copies it show as a message.'),
    keys: z
      .array(secretReference)
      .max(4)
      .default([])
      .describe(
        'Keys that sign: whsec_… (HMAC-SHA256) or whsk_… (Ed25519). Each signs every message; name two while you change one.',
      ),
    headers,
    addresses,
    kinds: kinds.describe(
      `Kinds of log entries, such as leak.* or grant.revoked. Default, without notify: ${DEFAULT_KINDS.join(', ')}.`,
    ),
    notify,
    mask,
  })
  .superRefine(({ format, keys }, context) => {
    if (format === 'slack' || keys.length > 0) return
    const params = {
      allowed: 'at least one key',
      fix: 'write keys: [{ env: WEBHOOK_KEY }], with whsec_ and base64 of 32 random bytes there',
    }
    context.addIssue({ code: 'custom', path: ['keys'], message: params.allowed, params })
  })

const stream = z.strictObject({
  audience: text().describe('`aud` of the tokens: how the receiver calls itself.'),
  to: z
    .union([
      z.strictObject({ url: httpUrl('https://receiver.example.com/events'), headers, addresses }),
      z.strictObject({
        poll: z
          .strictObject({ token: secretReference })
          .describe('The receiver fetches them (RFC 8936) at <public_url>/signals/streams/<name>/poll.'),
      }),
    ])
    .describe('Where tokens are pushed (RFC 8935), or that they are fetched.'),
  manage: secretReference
    .optional()
    .describe(
      'Bearer token with which the receiver of a pushed stream reads its settings and asks for a test. Default: it cannot.',
    ),
  mask,
})

const shortEvent = z.enum(Object.keys(signalEvents) as [string, ...string[]])

const source = z.strictObject({
  issuer: text().describe('Exact `iss` of its tokens.'),
  ...keyPlace,
  audience: z
    .union([text(), z.array(text()).min(1).max(16)])
    .transform((value) => (typeof value === 'string' ? [value] : value))
    .optional()
    .describe('Accepted values of `aud`. Default: public_url.'),
  algorithms: z
    .array(z.enum(SIGNATURES))
    .min(1)
    .default([...SIGNATURES])
    .describe('Signature algorithms accepted from this issuer.'),
  may: z
    .array(z.enum(['human', 'agent', 'task']))
    .min(1)
    .default(['human'])
    .describe('Whose access it may end: humans (default), agents by id (`application`), tasks by id (`session`).'),
  humans: z
    .array(text())
    .min(1)
    .optional()
    .describe('Issuers whose humans it speaks about. Default: its own `issuer` alone.'),
  email_is_sub: z
    .boolean()
    .default(false)
    .describe('Humans of this issuer are known by their e-mail address: subjects of format email name them.'),
  actions: z
    .partialRecord(shortEvent, z.enum(signalActions))
    .default({})
    .describe('Event: end (what lives), block (that, and what comes anew), lift (a block) or note (only record it).'),
  block_s: z
    .int()
    .min(60)
    .max(31_536_000)
    .default(86_400)
    .describe('Seconds that `block` refuses what comes anew. Default 86400.'),
  max_age_s: z
    .int()
    .min(60)
    .max(2_592_000)
    .default(604_800)
    .describe('Age up to which a token is taken, seconds; as long is remembered that it was. Default 604800.'),
  clock_skew_s: z.int().min(0).max(60).default(30).describe('Seconds that the issuer’s clock may be off. Default 30.'),
  per_minute: z
    .int()
    .min(1)
    .max(6000)
    .default(300)
    .describe('Tokens a minute that are looked at, here; more are asked to come later. Default 300.'),
  token: secretReference
    .optional()
    .describe('Bearer token that must come with what is pushed. Default: the signature of each token is enough.'),
  poll: z
    .strictObject({
      url: httpUrl('https://id.example.com/ssf/poll'),
      headers,
      every_s: z.int().min(1).max(3600).default(10).describe('Seconds between two questions. Default 10.'),
    })
    .optional()
    .describe('Fetch its tokens (RFC 8936) besides taking those that are pushed.'),
})

export const webhooksSchema = z
  .record(name(), webhook)
  .describe('Whom the gateway tells what happens, signed and until it is taken. Default nobody.')

export const signalsSchema = z
  .strictObject({
    send: z.record(name(), stream).optional().describe('Streams of security event tokens to others. Default none.'),
    receive: z
      .array(source)
      .max(64)
      .optional()
      .describe('Issuers whose security event tokens end access here. Default nobody.'),
  })
  .describe('Shared Signals: security event tokens (RFC 8417, CAEP, RISC), sent and received.')

export type WrittenWebhook = z.output<typeof webhook>
export type StreamSettings = z.output<typeof stream>
export type WrittenSource = z.output<typeof source>

export interface WrittenSignals {
  readonly webhooks?: z.output<typeof webhooksSchema> | undefined
  readonly signals?: z.output<typeof signalsSchema> | undefined
}
