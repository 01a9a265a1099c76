/**
 * Requests signed with a shared secret, as APIs of exchanges and banks want it: what is signed and where the signature goes is written as
 * templates (`hmac-schema.ts`). The secret never travels. What an agent sent under these names is replaced.
 */
import { createHmac, type Hmac, hash, randomUUID } from 'node:crypto'
import type { Clock } from '../protocol/clock.ts'
import type { Outbound } from '../protocol/message.ts'
import { isReadAs } from '../protocol/parameter.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { Secret } from '../protocol/secret.ts'
import { fill, type HmacConfig, uses } from './hmac-schema.ts'
import { requireOwnTarget } from './placement/placement.ts'
import type { Credential, Provider } from './provider.ts'
import { type ReadSecret, referenceIdentity } from './reference.ts'
import { partsIdentity, readParts } from './static.ts'

interface HmacTools {
  readonly readSecret: ReadSecret
  readonly clock: Clock
}

export function createHmacSigner(config: HmacConfig, tools: HmacTools): Provider {
  const { secret, values, fallback: _, provider: __, ...scheme } = config
  return {
    name: 'hmac',
    narrows: 'none',
    identity: JSON.stringify(['hmac', referenceIdentity(secret), partsIdentity(values), scheme]),
    async issue(_request, signal) {
      const [key, parts] = await Promise.all([
        tools.readSecret(secret, signal),
        readParts(values, tools.readSecret, signal),
      ])
      keyBytes(key, config)
      return { secret: key, parts, expiresAt: Number.POSITIVE_INFINITY, ephemeral: false }
    },
    attach: (credential, outbound) => sign(credential, outbound, config, tools.clock),
    derived: ({ parts = {} }) => Object.values(parts), // they travel beside the signature
  }
}

const ENCODED = {
  base64: /^[A-Za-z0-9+/]+={0,2}$/,
  base64url: /^[A-Za-z0-9_-]+={0,2}$/,
  hex: /^(?:[0-9a-f]{2})+$/i,
  utf8: /[\s\S]/,
} as const

function keyBytes(key: Secret, { secret_encoding: encoding }: HmacConfig): Buffer {
  const text = key.reveal()
  if (!ENCODED[encoding].test(text)) {
    throw new GatewayError(
      'credential_rejected',
      `The secret of the credential is not ${encoding}, as secret_encoding says. Check both.`,
    )
  }
  return Buffer.from(text, encoding)
}

function sign(credential: Credential, outbound: Outbound, config: HmacConfig, clock: Clock): Outbound {
  requireOwnTarget(outbound)
  const body = bodyOf(outbound, config)
  const plain = cleansed(outbound, config)
  const known: Record<string, string> = {
    ...Object.fromEntries(Object.entries(credential.parts ?? {}).map(([name, part]) => [name, part.reveal()])),
    timestamp: timestamp(clock.nowMs(), config.timestamp),
    nonce: randomUUID(),
    method: outbound.method,
    host: outbound.host,
  }
  const early = Object.entries(config.query).filter(([, template]) => !uses(template, 'signature'))
  const path = early.reduce((next, [name, template]) => withParameter(next, name, fill(template, known)), plain.path)
  const mark = path.indexOf('?')
  Object.assign(known, {
    target: path,
    path: mark === -1 ? path : path.slice(0, mark),
    query: mark === -1 ? '' : path.slice(mark + 1),
    body_hash: hash(config.body_hash, body, config.body_hash_encoding),
  })
  known.signature = signature(credential.secret, { body, known, config })
  const late = Object.entries(config.query).filter(([, template]) => uses(template, 'signature'))
  const fields = Object.entries(config.headers).flatMap(([name, template]) => [
    name,
    checked(fill(template, known), name),
  ])
  return {
    ...outbound,
    path: late.reduce((next, [name, template]) => withParameter(next, name, fill(template, known)), path),
    headers: [...plain.headers, ...fields],
  }
}

interface Signed {
  readonly body: Buffer
  readonly known: Readonly<Record<string, string>>
  readonly config: HmacConfig
}

/** The body goes in as bytes: it need not be text. */
function signature(secret: Secret, { body, known, config }: Signed): string {
  const key = keyBytes(secret, config)
  const pieces = config.sign.split('{body}')
  const mac = pieces.reduce<Hmac>(
    (next, piece, i) => (i === 0 ? next : next.update(body)).update(fill(piece, known), 'utf8'),
    createHmac(config.algorithm, key),
  )
  key.fill(0)
  return mac.digest(config.encoding)
}

function timestamp(nowMs: number, form: HmacConfig['timestamp']): string {
  if (form === 'iso8601') return new Date(nowMs).toISOString()
  return String(form === 'ms' ? nowMs : Math.floor(nowMs / 1000))
}

const EMPTY = Buffer.alloc(0)

function bodyOf({ body, service }: Outbound, { sign: template }: HmacConfig): Buffer {
  if (body === null) return EMPTY
  if (Buffer.isBuffer(body)) return body
  if (!uses(template, 'body') && !uses(template, 'body_hash')) return EMPTY
  throw new GatewayError(
    'credential_unconfigured',
    `The body is signed, and ${service.name} does not say so. Make { in: signature, scheme: hmac } the first of its slots.`,
  )
}

/** Without what we are going to write, under every name that some server reads as the same (CGI: `X_Sign`; a field behind a `;`). */
function cleansed({ headers, path }: Outbound, config: HmacConfig): Pick<Outbound, 'headers' | 'path'> {
  const mark = path.indexOf('?')
  const names = Object.keys(config.query)
  const kept = mark === -1 ? [] : path.slice(mark + 1).split('&')
  const isOurs = (piece: string) => names.some((name) => isReadAs(nameOf(piece), name))
  const query = kept.filter((field) => !field.split(';').some(isOurs)).join('&')
  const fields = new Set(Object.keys(config.headers).map(asRead))
  return {
    headers: headers.filter((_, i) => !fields.has(asRead(headers[i - (i % 2)] ?? ''))),
    path: mark === -1 ? path : query === '' ? path.slice(0, mark) : `${path.slice(0, mark)}?${query}`,
  }
}

function asRead(field: string): string {
  return field.toLowerCase().replaceAll('_', '-')
}

function nameOf(field: string): string {
  const name = (field.split('=', 1)[0] ?? '').replaceAll('+', ' ')
  try {
    return decodeURIComponent(name)
  } catch {
    return name
  }
}

function withParameter(path: string, name: string, value: string): string {
  const joint = path.includes('?') ? '&' : '?'
  return `${path}${joint}${encodeURIComponent(name)}=${encodeURIComponent(value)}`
}

function checked(value: string, name: string): string {
  if (/^[\x20-\x7e]*$/.test(value)) return value
  throw new GatewayError(
    'credential_rejected',
    `What the field ${name} would hold has characters that no header may have. Check the values of the credential.`,
  )
}
