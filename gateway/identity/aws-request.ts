/**
 * A GetCallerIdentity request that somebody signed for this gateway (AWS Signature Version 4), as it travels inside an actor
 * token: base64 JSON `{method, url, headers, body}`. Nothing of it is believed; it is only made sure that sending it on can do
 * nothing but ask STS who signed it, and that it was signed for us.
 */
import { z } from 'zod'
import { parseStrictJson } from '../protocol/strict-json.ts'
import { type Refuse, shown } from './refuse.ts'

/** Signed along, so that a request made for another relying party is of no use here. */
const SERVER_ID = 'x-keyless-server-id'

export interface CallerRequest {
  readonly url: string
  /** What STS is sent: the signed fields, and the signature. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
  /** 64 hex digits; another request has another. */
  readonly signature: string
  /** When it was signed, milliseconds since the epoch. */
  readonly signedAtMs: number
}

export interface RequestRules {
  /** Hosts that may be asked, with a port where it is not 443. */
  readonly hosts: readonly string[]
  /** What the signed server id must be: our own issuer identifier. */
  readonly issuer: string
  readonly nowMs: number
}

const BODY = 'Action=GetCallerIdentity&Version=2011-06-15'
const MAX_TOKEN = 16 * 1024
const MAX_AGE_MS = 300_000
/** The client's clock may be ahead of ours by this much. */
const SKEW_MS = 30_000

const MUST_BE_SIGNED = ['host', 'x-amz-date', SERVER_ID]
/** What signers add. Any other field might change what STS is asked, or in which form it answers (`accept`). */
const MAY_BE_SIGNED: ReadonlySet<string> = new Set([
  ...MUST_BE_SIGNED,
  'amz-sdk-invocation-id',
  'amz-sdk-request',
  'content-length',
  'content-type',
  'user-agent',
  'x-amz-content-sha256',
  'x-amz-security-token',
])
/** Set again by whoever sends: from the URL, and from the body. */
const SET_BY_SENDER: ReadonlySet<string> = new Set(['host', 'content-length'])

const shape = z.strictObject({
  method: z.literal('POST'),
  url: z.string().max(512),
  headers: z.record(
    z.string().regex(/^[A-Za-z0-9-]{1,64}$/),
    z
      .string()
      .max(8192)
      .regex(/^[\x20-\x7e]*$/),
  ),
  body: z.literal(BODY),
})

/** @throws what `refuse` makes, saying what about the request is not as it must be. */
export function readCallerRequest(token: string, rules: RequestRules, refuse: Refuse): CallerRequest {
  const { url, headers, body } = parse(token, refuse)
  const fields = fieldsOf(headers, refuse)
  const host = hostOf(url, rules.hosts, refuse)
  const { date, signed, signature, authorization } = signatureOf(fields, refuse)
  if (fields.get('host') !== host)
    throw refuse(`its field host is ${shown(fields.get('host'))}, and its url says ${host}`)
  if (fields.get(SERVER_ID) !== rules.issuer)
    throw refuse(`it was signed for ${shown(fields.get(SERVER_ID))} (${SERVER_ID}), not for ${rules.issuer}`)
  if ((fields.get('content-length') ?? String(BODY.length)) !== String(BODY.length))
    throw refuse(`its content-length is not ${BODY.length}`)
  const sent = [...fields].filter(([name]) => signed.has(name) && !SET_BY_SENDER.has(name))
  return {
    url,
    headers: { ...Object.fromEntries(sent), authorization },
    body,
    signature,
    signedAtMs: signedAt(fields.get('x-amz-date'), date, rules.nowMs, refuse),
  }
}

function parse(token: string, refuse: Refuse): z.output<typeof shape> {
  if (token.length > MAX_TOKEN) throw refuse(`it is longer than ${MAX_TOKEN} characters`)
  if (!/^[A-Za-z0-9+/_-]+={0,2}$/.test(token)) throw refuse('it is not base64')
  let value: unknown
  try {
    value = parseStrictJson(Buffer.from(token, 'base64').toString('utf8'))
  } catch (cause) {
    throw refuse('it is not base64 of JSON', cause)
  }
  const { data, error } = shape.safeParse(value)
  if (data !== undefined) return data
  const [where = ''] = error.issues[0]?.path ?? []
  throw refuse(
    `its ${where === '' ? 'members are' : `member ${String(where)} is`} not those of a POST of ${BODY}: { method, url, headers, body }`,
  )
}

/** By lower-case name; two spellings of one name would let signer and sender see different ones. */
function fieldsOf(headers: Readonly<Record<string, string>>, refuse: Refuse): ReadonlyMap<string, string> {
  const fields = new Map(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value.trim()]))
  if (fields.size < Object.keys(headers).length) throw refuse('one of its header fields is there twice')
  return fields
}

/** By the letter: what a URL parser would forgive is refused. */
function hostOf(url: string, hosts: readonly string[], refuse: Refuse): string {
  const host = hosts.find((one) => url === `https://${one}/` || url === `https://${one}`)
  if (host !== undefined) return host
  throw refuse(`its url ${shown(url)} is not https:// and one of ${hosts.join(', ')}, with the path /`)
}

const AUTHORIZATION =
  /^AWS4-HMAC-SHA256 Credential=[A-Z0-9]{16,128}\/(\d{8})\/[a-z0-9-]{1,32}\/sts\/aws4_request, ?SignedHeaders=([a-z0-9;-]{1,512}), ?Signature=([0-9a-f]{64})$/

function signatureOf(fields: ReadonlyMap<string, string>, refuse: Refuse) {
  const authorization = fields.get('authorization') ?? ''
  const [, date = '', list = '', signature] = AUTHORIZATION.exec(authorization) ?? []
  if (signature === undefined) throw refuse('its field authorization is not an AWS4-HMAC-SHA256 signature for sts')
  const signed = new Set(list.split(';'))
  const unsigned = MUST_BE_SIGNED.find((name) => !signed.has(name))
  if (unsigned !== undefined) throw refuse(`its signature does not cover the field ${unsigned}`)
  const stranger = [...signed].find((name) => !MAY_BE_SIGNED.has(name) || !fields.has(name))
  if (stranger !== undefined)
    throw refuse(`its signature covers the field ${shown(stranger)}, which is missing or not sent on`)
  const token = 'x-amz-security-token'
  if (fields.has(token) && !signed.has(token)) throw refuse(`its signature does not cover the field ${token}`)
  return { date, signed, signature, authorization }
}

function signedAt(text: string | undefined, date: string, nowMs: number, refuse: Refuse): number {
  const [, day = '', ...rest] = /^(\d{8})T(\d\d)(\d\d)(\d\d)Z$/.exec(text ?? '') ?? []
  const iso = `${day.slice(0, 4)}-${day.slice(4, 6)}-${day.slice(6)}T${rest.join(':')}Z`
  const atMs = Date.parse(iso)
  if (Number.isNaN(atMs)) throw refuse(`its x-amz-date ${shown(text)} is not a time`)
  if (day !== date) throw refuse('its x-amz-date is not of the day that it was signed for')
  if (atMs > nowMs + SKEW_MS) throw refuse(`it was signed ${Math.round((atMs - nowMs) / 1000)} s from now`)
  if (atMs + MAX_AGE_MS < nowMs)
    throw refuse(
      `it was signed ${Math.round((nowMs - atMs) / 1000)} s ago, where at most ${MAX_AGE_MS / 1000} are accepted`,
    )
  return atMs
}

/** When a request that was signed then is refused for its age: until then it must be remembered. */
export function tooOldAtMs({ signedAtMs }: CallerRequest): number {
  return signedAtMs + MAX_AGE_MS
}
