/**
 * Where a credential goes in a request: the first slot of its service. Everything that could turn a credential into a second
 * header, a second parameter or a second request is refused here (H5), and a credential never goes to another host or in
 * the clear.
 */
import type { Outbound, RawHeaders } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import { Secret } from '../protocol/secret.ts'
import type { Service, Slot } from '../protocol/service.ts'

/** RFC 9110 §5.5 field content, kept to what latin1 can carry; no tab, because no credential has one. */
const FIELD_VALUE = /^[\x20-\x7e\x80-\xff]+$/

/** RFC 6265 §4.1.1 cookie-octet. */
const COOKIE_VALUE = /^[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+$/

/** RFC 6455 §4.1: a subprotocol is a token (RFC 9110 §5.6.2). */
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/

/** A secret as it travels in one slot. Checked and encoded once per secret, not once per request. */
interface Rendered {
  readonly slot: Slot
  readonly text: string
}

export interface Placement {
  /**
   * The request with the secret in the service's first slot; nothing else changes, `secrets` included. A service without
   * slots gets the request back as it is.
   * @throws {GatewayError} `credential_rejected` for a value that the slot cannot carry, `target_mismatch` for a request
   *   that does not go to the service over its own scheme.
   * @throws {Error} when the slot is still taken: whoever cleansed the request has a bug.
   */
  place(secret: Secret, outbound: Outbound): Outbound
  /** Values other than the secret itself that travel once it is placed, and so must not come back: the Basic pair, the percent-encoded form. */
  derived(secret: Secret, service: Service): readonly Secret[]
}

export function createPlacement(): Placement {
  /** secret → its last rendering; dies with the secret. */
  const memo = new WeakMap<Secret, Rendered>()

  function rendered(secret: Secret, slot: Slot): string {
    const known = memo.get(secret)
    if (known !== undefined && known.slot === slot) return known.text
    const text = render(secret.reveal(), slot)
    memo.set(secret, { slot, text })
    return text
  }

  return {
    place(secret, outbound) {
      const slot = outbound.service.slots[0]
      if (slot === undefined) return outbound
      requireOwnTarget(outbound)
      return put(rendered(secret, slot), slot, outbound)
    },
    derived(secret, service) {
      const slot = service.slots[0]
      if (slot === undefined) return []
      if (slot.in === 'basic') return [new Secret(rendered(secret, slot).slice('Basic '.length))]
      if (slot.in !== 'query') return []
      const encoded = rendered(secret, slot)
      return encoded === secret.reveal() ? [] : [new Secret(encoded)]
    },
  }
}

function requireOwnTarget({ service, scheme, host }: Outbound): void {
  if (scheme === service.scheme && service.hosts.includes(host)) return
  throw new GatewayError(
    'target_mismatch',
    `The credential of ${service.name} goes only to ${service.scheme}://${service.hosts.join(', ')}; this request goes to ${scheme}://${host}.`,
  )
}

function render(value: string, slot: Slot): string {
  switch (slot.in) {
    case 'header':
      return checked(`${slot.prefix ?? ''}${value}`, FIELD_VALUE, slot)
    case 'basic':
      // RFC 7617 §2: a colon in the user name would move the border; control characters are forbidden in both.
      if (slot.username.includes(':')) throw unplaceable(slot)
      return `Basic ${Buffer.from(checked(`${slot.username}:${value}`, FIELD_VALUE, slot), 'utf8').toString('base64')}`
    case 'query':
      return encodeURIComponent(checked(value, FIELD_VALUE, slot))
    case 'cookie':
      return checked(value, COOKIE_VALUE, slot)
    case 'subprotocol':
      return checked(`${slot.prefix}${value}`, TOKEN, slot)
    default:
      return slot satisfies never
  }
}

function checked(value: string, allowed: RegExp, slot: Slot): string {
  if (!allowed.test(value)) throw unplaceable(slot)
  return value
}

function unplaceable(slot: Slot): GatewayError {
  return new GatewayError(
    'credential_rejected',
    `The credential holds a character that cannot be sent as ${slot.in} value. Check for a line break or a stray space at its source.`,
  )
}

function put(text: string, slot: Slot, outbound: Outbound): Outbound {
  switch (slot.in) {
    case 'header':
      return { ...outbound, headers: withField(outbound.headers, slot.name, text) }
    case 'basic':
      return { ...outbound, headers: withField(outbound.headers, 'Authorization', text) }
    case 'query':
      return { ...outbound, path: withParameter(outbound.path, slot.name, text) }
    case 'cookie':
      return { ...outbound, headers: withCookie(outbound.headers, slot.name, text) }
    case 'subprotocol':
      return { ...outbound, headers: withSubprotocol(outbound.headers, text) }
    default:
      return slot satisfies never
  }
}

function withField(headers: RawHeaders, name: string, value: string): RawHeaders {
  if (indexOfField(headers, name) !== -1)
    throw new Error(`field ${name} was not cleansed before a credential is attached`)
  return [...headers, name, value]
}

function indexOfField(headers: RawHeaders, name: string): number {
  const wanted = name.toLowerCase()
  for (let i = 0; i < headers.length; i += 2) {
    const field = headers[i]
    // Lengths first: most fields differ there, and nothing is allocated.
    if (field !== undefined && field.length === wanted.length && field.toLowerCase() === wanted) return i
  }
  return -1
}

/** RFC 6265 §5.4: one Cookie field; ours joins the cookies that are not credentials of this service. */
function withCookie(headers: RawHeaders, name: string, value: string): RawHeaders {
  const at = indexOfField(headers, 'cookie')
  if (at === -1) return [...headers, 'Cookie', `${name}=${value}`]
  const others = headers[at + 1] ?? ''
  if (others.split(';').some((pair) => pair.split('=', 1)[0]?.trim() === name))
    throw new Error(`cookie ${name} was not cleansed before a credential is attached`)
  return headers.with(at + 1, others === '' ? `${name}=${value}` : `${others}; ${name}=${value}`)
}

/** After those that the agent offers, of which the upstream is to choose one. */
function withSubprotocol(headers: RawHeaders, text: string): RawHeaders {
  const at = indexOfField(headers, 'sec-websocket-protocol')
  return at === -1 ? [...headers, 'Sec-WebSocket-Protocol', text] : headers.with(at + 1, `${headers[at + 1]}, ${text}`)
}

/** The bytes of the request stay as they are; the parameter is added at the end. */
function withParameter(path: string, name: string, encoded: string): string {
  const mark = path.indexOf('?')
  if (mark === -1) return `${path}?${encodeURIComponent(name)}=${encoded}`
  const query = path.slice(mark + 1)
  if (new URLSearchParams(query).has(name))
    throw new Error(`parameter ${name} was not cleansed before a credential is attached`)
  const joint = query === '' || query.endsWith('&') ? '' : '&'
  return `${path}${joint}${encodeURIComponent(name)}=${encoded}`
}
