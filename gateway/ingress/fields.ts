/** The header fields that decide how a message is read and who sent it: found in one pass, refused where they are there twice. */
import type { Presented } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'

export interface Fields {
  host: string | undefined
  proxyAuthorization: string | undefined
  contentLength: string | undefined
  transferEncoding: string | undefined
  userAgent: string | undefined
  /** A DPoP proof; read only where the grant comes with that scheme, and then it must be the only one. */
  dpop: string | undefined
  /** Empty when it is there twice: readers differ on which one counts, so none does. */
  traceparent: string | undefined
  promptHash: string | undefined
}

const FIELD_NAMES: ReadonlyMap<string, keyof Fields> = new Map<string, keyof Fields>([
  ['host', 'host'],
  ['proxy-authorization', 'proxyAuthorization'],
  ['content-length', 'contentLength'],
  ['transfer-encoding', 'transferEncoding'],
  ['user-agent', 'userAgent'],
  ['dpop', 'dpop'],
  ['traceparent', 'traceparent'],
  ['keyless-prompt-hash', 'promptHash'],
])

/** Memo of a pure function: name as received, any case → field. Agents choose names, so it is bounded. */
const knownNames = new Map<string, keyof Fields | null>()
const MAX_NAMES = 1024
const MAX_NAME_LENGTH = 32

/**
 * One pass over the raw header list.
 * @throws {GatewayError} `request_malformed` when a field that decides something is there twice.
 */
export function readFields(rawHeaders: readonly string[]): Fields {
  const fields: Fields = {
    host: undefined,
    proxyAuthorization: undefined,
    contentLength: undefined,
    transferEncoding: undefined,
    userAgent: undefined,
    dpop: undefined,
    traceparent: undefined,
    promptHash: undefined,
  }
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] as string
    let field = knownNames.get(name)
    if (field === undefined) field = learnName(name)
    if (field === null) continue
    if (fields[field] === undefined) fields[field] = rawHeaders[i + 1] as string
    else if (field === 'traceparent') fields.traceparent = ''
    else if (field !== 'userAgent' && field !== 'dpop') throw twice(name)
  }
  return fields
}

function learnName(name: string): keyof Fields | null {
  const field = FIELD_NAMES.get(name.toLowerCase()) ?? null
  if (knownNames.size < MAX_NAMES && name.length <= MAX_NAME_LENGTH) knownNames.set(name, field)
  return field
}

function twice(name: string): GatewayError {
  return new GatewayError('request_malformed', `The field ${name} is there more than once. Send it once.`)
}

/** The first field of this name. @param name lower case. */
export function fieldValue(rawHeaders: readonly string[], name: string): string | undefined {
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const candidate = rawHeaders[i] as string
    if (candidate.length === name.length && candidate.toLowerCase() === name) return rawHeaders[i + 1]
  }
  return undefined
}

/** Framing as llhttp has accepted it, except codings other than chunked, which nobody here would undo (RFC 9112 §6.1). */
export function hasBody({ contentLength, transferEncoding }: Fields): boolean {
  if (transferEncoding !== undefined) {
    if (contentLength !== undefined)
      throw new GatewayError(
        'request_malformed',
        'The request has Content-Length and Transfer-Encoding. Send one of them.',
      )
    if (transferEncoding.trim().toLowerCase() !== 'chunked') {
      throw new GatewayError(
        'request_malformed',
        'The request has a Transfer-Encoding other than chunked. Send it chunked or with a Content-Length.',
      )
    }
    return true
  }
  if (contentLength === undefined) return false
  const length = Number(contentLength)
  // Beyond it a number is rounded, and the upstream would be told another one.
  if (!Number.isSafeInteger(length))
    throw new GatewayError('request_malformed', `The Content-Length is larger than ${Number.MAX_SAFE_INTEGER}.`)
  return length !== 0
}

interface Version {
  readonly httpVersion: string
  readonly httpVersionMajor: number
}

/**
 * What the parser takes for HTTP/1.x and the rules for it do not allow.
 * @throws {GatewayError} `request_malformed`
 */
export function requireVersion({ httpVersion, httpVersionMajor }: Version, fields: Fields): void {
  if (httpVersionMajor !== 1)
    throw new GatewayError('request_malformed', 'The request line says another version than HTTP/1.1 or HTTP/1.0.')
  // RFC 9112 §6.1: its framing counts as faulty, because who handed it on need not have known of chunks.
  if (httpVersion === '1.0' && fields.transferEncoding !== undefined)
    throw new GatewayError(
      'request_malformed',
      'HTTP/1.0 has no Transfer-Encoding. Send a Content-Length, or HTTP/1.1.',
    )
  if (httpVersion === '1.1' && fields.host === undefined)
    throw new GatewayError('request_malformed', 'The request has no Host field (RFC 9112 §3.2). Send one.')
}

/**
 * The credential in a Proxy-Authorization or Authorization value: `Bearer <grant>` (RFC 6750 §2.1), `DPoP <grant>` (RFC 9449
 * §7.1), or `Basic` with the grant or handle as password (RFC 7617). Where the password is empty, the user name is it. Null if
 * it is none of them.
 */
export function parseCredentials(text: string): Presented | null {
  const parts = /^(basic|bearer|dpop) +([A-Za-z0-9\-._~+/]+=*)$/i.exec(text.trim())
  if (parts === null) return null
  const [, scheme, value] = parts as unknown as [string, string, string]
  if (scheme.length === 'bearer'.length) return { token: value, scheme: 'bearer' }
  if (scheme.length === 'dpop'.length) return { token: value, scheme: 'dpop' }
  const pair = Buffer.from(value, 'base64').toString('utf8')
  const colon = pair.indexOf(':')
  if (colon === -1) return null
  const user = pair.slice(0, colon)
  const password = pair.slice(colon + 1)
  const token = password === '' ? user : password
  return token === '' ? null : { token, scheme: 'basic', user: password === '' ? '' : user }
}

/** On a reverse route: the grant in Authorization, whatever slot the service has, when a DPoP proof comes with it. */
export function presentedWithProof({ dpop }: Fields, rawHeaders: readonly string[]): Presented | null {
  const value = dpop === undefined ? undefined : fieldValue(rawHeaders, 'authorization')
  const presented = value === undefined ? null : parseCredentials(value)
  return presented?.scheme === 'dpop' ? presented : null
}
