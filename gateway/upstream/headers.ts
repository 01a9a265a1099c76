/**
 * Turns what an agent sent into what may leave: drops what belongs to one connection (RFC 9110 §7.6.1), every place where
 * the service takes a credential, and what would defeat the scrub of the answer. Attaching comes later, elsewhere: nothing
 * here knows a credential.
 */
import type { Grant } from '../protocol/grant.ts'
import type { Inbound, Outbound } from '../protocol/message.ts'
import type { Meter } from '../protocol/meter.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { Endpoint, Service } from '../protocol/service.ts'
import { DEFAULT_PORTS, formatAuthority } from '../protocol/target.ts'
import { withoutCookie, withoutParameter, withoutSubprotocol } from './slots.ts'

type Action =
  | 'keep'
  | 'drop'
  | 'connection'
  | 'transfer-encoding'
  | 'content-length'
  | 'te'
  | 'identity'
  | 'cookie'
  | 'subprotocol'

/** What is known of a service's header names, worked out once. */
interface Plan {
  /** Header name as received, any case → what to do. Grows with names seen, up to `MAX_NAMES`. */
  readonly actions: Map<string, Action>
  /** Lower-case header names of credential slots. */
  readonly slots: ReadonlySet<string>
  readonly cookies: readonly string[]
  readonly parameters: readonly string[]
  /** Prefixes of subprotocols that are credentials. */
  readonly subprotocols: readonly string[]
  /** Answers are scrubbed, so they must come whole and unencoded. */
  readonly isScrubbed: boolean
  /** What the client brings as its credential passes. */
  readonly isOpen: boolean
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

/** Memo of a pure function of the service; agents choose names, so it is bounded. */
const plans = new WeakMap<Service, Plan>()
const openPlans = new WeakMap<Service, Plan>()
const MAX_NAMES = 512
const MAX_NAME_LENGTH = 64

const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/

const FIXED: ReadonlyMap<string, Action> = new Map<string, Action>([
  ['host', 'drop'], // written from the endpoint that policy decided on
  ['connection', 'connection'],
  ['keep-alive', 'drop'],
  ['te', 'te'],
  ['transfer-encoding', 'transfer-encoding'],
  ['upgrade', 'drop'],
  ['http2-settings', 'drop'],
  ['expect', 'drop'], // answered by the ingress
  ['content-length', 'content-length'],
  ['authorization', 'drop'],
  ['dpop', 'drop'], // a proof for what Authorization held
  ['x-http-method-override', 'drop'], // policy decided on the method in the request line
  ['x-http-method', 'drop'],
  ['x-method-override', 'drop'],
  ['forwarded', 'drop'],
  ['sec-websocket-protocol', 'subprotocol'],
])

/**
 * Fields by which a proxy tells the server behind it where a request really goes (`X-Forwarded-Host`, `X-Original-URL`,
 * `X-Rewrite-URL`). Policy decided on the request line and Host; an agent may not say otherwise to whoever believes these.
 */
const REROUTING = /^x-(?:original-|rewrite-|forwarded-(?!for$))/

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
 * @throws {GatewayError} `request_malformed`, `method_refused`.
 */
export function cleanse(inbound: Inbound, endpoint: Endpoint, grant: Grant, meter?: Meter): Outbound {
  const { service, scheme, host, port } = endpoint
  const { method, body, content } = inbound
  if (method === 'TRACE' || method === 'TRACK' || method === 'CONNECT') {
    throw new GatewayError('method_refused', `${method} is never forwarded: its answer would repeat the request.`)
  }
  // On a reverse route the client's credential is its grant.
  const isOpen = service.passesOwn === true && inbound.mode !== 'reverse'
  const plan = (isOpen ? openPlans : plans).get(service) ?? newPlan(service, isOpen)
  const { headers, acceptEncoding } = cleanseHeaders(inbound, endpoint, plan)
  return {
    method,
    service,
    scheme,
    host,
    port,
    path: cleansePath(endpoint.rawPath, plan),
    headers,
    acceptEncoding,
    body: content?.bytes ?? body,
    isHttp2: inbound.isHttp2 === true,
    ...(inbound.upgrade !== undefined && { upgrade: inbound.upgrade }),
    grant,
    ...(meter !== undefined && { meter }),
    isolation: `${grant.tenant}\n${grant.id}`,
    secrets: [],
  }
}

function cleansePath(rawPath: string, plan: Plan): string {
  if (rawPath.charCodeAt(0) !== 0x2f) throw malformed('the path does not start with a slash')
  return plan.parameters.reduce(withoutParameter, rawPath)
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
    const action = plan.actions.get(name) ?? learn(name, plan)
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
      if (draft.contentLength !== undefined || !/^\d+$/.test(value))
        throw malformed('its Content-Length is not one number')
      draft.contentLength = value
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

function newPlan(service: Service, isOpen: boolean): Plan {
  const slots = isOpen ? [] : service.slots
  const plan: Plan = {
    actions: new Map(),
    slots: new Set(slots.flatMap((slot) => (slot.in === 'header' ? [slot.name.toLowerCase()] : []))),
    cookies: slots.flatMap((slot) => (slot.in === 'cookie' ? [slot.name] : [])),
    parameters: slots.flatMap((slot) => (slot.in === 'query' ? [slot.name] : [])),
    subprotocols: slots.flatMap((slot) => (slot.in === 'subprotocol' ? [slot.prefix] : [])),
    isScrubbed: slots.length > 0,
    isOpen,
  }
  const memo = isOpen ? openPlans : plans
  memo.set(service, plan)
  return plan
}

function learn(name: string, plan: Plan): Action {
  const action = classify(name.toLowerCase(), plan)
  if (plan.actions.size < MAX_NAMES && name.length <= MAX_NAME_LENGTH) plan.actions.set(name, action)
  return action
}

function classify(name: string, plan: Plan): Action {
  // CGI, WSGI and PHP read `X_API_Key` as `X-API-Key`: what has a meaning here has it there under either name.
  if (name.includes('_') && classify(name.replaceAll('_', '-'), plan) !== 'keep') return 'drop'
  if (plan.slots.has(name) || name.startsWith('proxy-') || name.startsWith('keyless-') || name.startsWith(':'))
    return 'drop'
  if (plan.isOpen && name === 'authorization') return 'keep'
  if (name === 'cookie' && plan.cookies.length > 0) return 'cookie'
  if (plan.isScrubbed) {
    // A coding, a character set or a range of the answer could hide a credential that it echoes (standards.md H10).
    if (name === 'accept-encoding') return 'identity'
    if (name === 'range' || name === 'if-range' || name === 'accept-charset') return 'drop'
  }
  if (REROUTING.test(name)) return 'drop'
  return FIXED.get(name) ?? 'keep'
}

function malformed(what: string): GatewayError {
  return new GatewayError('request_malformed', `The request cannot be forwarded: ${what}.`)
}
