/**
 * Turns what an agent sent into what may leave: drops what belongs to one connection (RFC 9110 §7.6.1), every place where
 * the service takes a credential, and what would defeat the scrub of the answer. Attaching comes later, elsewhere: nothing
 * here knows a credential.
 */
import { readAwsClaim, withoutAwsSignature } from '../protocol/aws-claim.ts'
import type { Standing } from '../protocol/decision.ts'
import type { Grant } from '../protocol/grant.ts'
import type { Censor, Inbound, Outbound } from '../protocol/message.ts'
import type { Meter } from '../protocol/meter.ts'
import { GatewayError } from '../protocol/problem.ts'
import { forBody } from '../protocol/raw-headers.ts'
import type { Secret } from '../protocol/secret.ts'
import type { Endpoint } from '../protocol/service.ts'
import { DEFAULT_PORTS, formatAuthority } from '../protocol/target.ts'
import { bodySlotsOf } from './body-slots.ts'
import { requireNoGrant } from './grant-in.ts'
import { type Action, actionOn, type Plan, planFor } from './request-fields.ts'
import { withoutCookie, withoutParameter, withoutSubprotocol } from './slots.ts'

/** For whom it is sent, and where, and on what that was decided. */
interface Permitted extends Standing {
  readonly grant: Grant
  readonly endpoint: Endpoint
}

/** What one pass over the headers gathers. */
interface Draft {
  readonly headers: string[]
  readonly plan: Plan
  nominated: Set<string> | undefined
  contentLength: string | undefined
  acceptEncoding: string | undefined
  isChunked: boolean
}

const NONE: readonly Secret[] = []
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/

/** Fields meant for the upstream, which `Connection` must not name (RFC 9110 §7.6.1): dropping them changes the message. */
const END_TO_END: ReadonlySet<string> = new Set([
  'host',
  'authorization',
  'cookie',
  'content-length',
  'content-type',
  'content-encoding',
  'cache-control',
])

/**
 * The request without anything that belongs to the agent's connection or could act as a credential. The path keeps its
 * raw bytes unless a credential parameter of the service is in its query.
 * @param meter counts its bytes, up and down. @param censor looks at its body as it leaves.
 * @throws {GatewayError} `request_malformed`, `method_refused`, `foreign_credential` for a handle or grant left in its head.
 */
export function cleanse(inbound: Inbound, permitted: Permitted, meter?: Meter, censor?: Censor): Outbound {
  const { grant, endpoint, decision } = permitted
  const { service, scheme, host, port } = endpoint
  const { method, body, content } = inbound
  if (method === 'TRACE' || method === 'TRACK' || method === 'CONNECT') {
    throw new GatewayError('method_refused', `${method} is never forwarded: its answer would repeat the request.`)
  }
  const plan = planFor(service, inbound)
  const signed = plan.isAwsSigned ? readAwsClaim(inbound.rawHeaders, endpoint.rawPath) : undefined
  const path = cleansePath(endpoint.rawPath, plan)
  const { headers: fields, acceptEncoding } = cleanseHeaders(inbound, endpoint, plan)
  const headers = content === undefined || content.taken.length === 0 ? fields : forBody(fields, content.bytes.length)
  requireNoGrant(path, headers)
  // A credential of ours may come into such a body: what is foreign in it has to be seen before.
  const isLooked = content !== undefined && bodySlotsOf(service).length > 0
  const refusal = isLooked ? censor?.look(content.bytes, true) : undefined
  if (refusal !== undefined) throw refusal
  const outbound: Outbound = {
    method,
    service,
    scheme,
    host,
    port,
    path,
    headers,
    acceptEncoding,
    body: content?.bytes ?? body,
    isHttp2: inbound.isHttp2 === true,
    upgrade: inbound.upgrade,
    grant,
    standing: permitted,
    meter,
    censor: isLooked ? undefined : censor,
    isolation: `${grant.tenant}\n${grant.id}`,
    secrets: NONE,
    redact: decision.obligations.redact,
  }
  return signed === undefined ? outbound : { ...outbound, signed }
}

function cleansePath(rawPath: string, plan: Plan): string {
  if (rawPath.charCodeAt(0) !== 0x2f) throw malformed('the path does not start with a slash')
  const plain = plan.isAwsSigned ? withoutAwsSignature(rawPath) : rawPath
  return plan.parameters.reduce(withoutParameter, plain)
}

function cleanseHeaders(
  inbound: Inbound,
  endpoint: Endpoint,
  plan: Plan,
): Pick<Outbound, 'headers' | 'acceptEncoding'> {
  const raw = inbound.rawHeaders
  const headers: string[] = ['Host', formatAuthority(endpoint, DEFAULT_PORTS[endpoint.scheme])]
  const draft: Draft = {
    headers,
    plan,
    nominated: undefined,
    contentLength: undefined,
    acceptEncoding: undefined,
    isChunked: false,
  }
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i] as string
    const value = raw[i + 1] as string
    if (!VALUE.test(value)) throw malformed(`the value of ${name} has characters that no header may have`)
    const action = actionOn(name, plan)
    if (action === 'keep') headers.push(name, value)
    else if (action !== 'drop') apply(action, name, value, draft)
  }
  if (draft.isChunked && draft.contentLength !== undefined)
    throw malformed('it has Content-Length and Transfer-Encoding')
  // A length without a body would make the upstream wait for, or take the next request as, that body.
  if (draft.contentLength !== undefined && (inbound.body !== null || draft.contentLength === '0')) {
    headers.push('Content-Length', draft.contentLength)
  }
  const { nominated, acceptEncoding } = draft
  return { headers: nominated === undefined ? headers : withoutNominated(headers, nominated), acceptEncoding }
}

function apply(action: Exclude<Action, 'keep' | 'drop'>, name: string, value: string, draft: Draft): void {
  switch (action) {
    case 'connection':
      draft.nominated = nominate(value, draft.nominated)
      return
    case 'content-length':
      if (draft.contentLength !== undefined || !/^0*\d{1,15}$/.test(value))
        throw malformed('its Content-Length is not one number of at most 15 digits')
      draft.contentLength = String(Number(value)) // without zeros in front, which some read as octal
      return
    case 'transfer-encoding':
      if (draft.isChunked || value.trim().toLowerCase() !== 'chunked')
        throw malformed('its Transfer-Encoding is not chunked')
      draft.isChunked = true
      return
    case 'te':
      if (/(?:^|,)[ \t]*trailers[ \t]*(?:,|$)/i.test(value)) draft.headers.push(name, 'trailers')
      return
    case 'identity':
      draft.headers.push(name, 'identity')
      draft.acceptEncoding = draft.acceptEncoding === undefined ? value : `${draft.acceptEncoding},${value}`
      return
    case 'cookie': {
      const rest = draft.plan.cookies.reduce(withoutCookie, value)
      if (rest !== '') draft.headers.push(name, rest)
      return
    }
    case 'subprotocol': {
      const rest = draft.plan.subprotocols.reduce(withoutSubprotocol, value)
      if (rest !== '') draft.headers.push(name, rest)
      return
    }
    default:
      action satisfies never
  }
}

/** Header names that a `Connection` field asks to drop; the usual values name none. */
function nominate(value: string, before: Set<string> | undefined): Set<string> | undefined {
  if (value === 'keep-alive' || value === 'close' || value === 'Keep-Alive') return before
  const names = value
    .toLowerCase()
    .split(',')
    .map((token) => token.trim())
  const stolen = names.find((name) => END_TO_END.has(name))
  if (stolen !== undefined) throw malformed(`Connection names ${stolen}, which is meant for the upstream`)
  const nominated = before ?? new Set() // thousands of names fit into one head: nothing here may be quadratic in them
  for (const name of names) nominated.add(name)
  return nominated
}

function withoutNominated(headers: readonly string[], nominated: ReadonlySet<string>): string[] {
  const kept: string[] = []
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i] as string
    const value = headers[i + 1] as string
    // `TE: trailers` is what the next hop is told too; it was rewritten above.
    if (nominated.has(name.toLowerCase()) && name.toLowerCase() !== 'te') continue
    kept.push(name, value)
  }
  return kept
}

function malformed(what: string): GatewayError {
  return new GatewayError('request_malformed', `The request cannot be forwarded: ${what}.`)
}
