/**
 * Where a credential goes in a request: the first slot of its service. Everything that could turn a credential into a second
 * header, a second parameter or a second request is refused here (H5), and a credential never goes to another host or in
 * the clear.
 */
import type { Outbound, RawHeaders } from '../../protocol/message.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { Secret } from '../../protocol/secret.ts'
import { type Service, type Slot, servesHost } from '../../protocol/service.ts'
import type { Credential } from '../provider.ts'
import { withFormField, withMember } from './body.ts'
import { certificateOf } from './certificate.ts'

/** RFC 9110 §5.5 field content, kept to what latin1 can carry; no tab, because no credential has one. */
const FIELD_VALUE = /^[\x20-\x7e\x80-\xff]+$/

/** RFC 6265 §4.1.1 cookie-octet. */
const COOKIE_VALUE = /^[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+$/

/** RFC 6455 §4.1: a subprotocol is a token (RFC 9110 §5.6.2). */
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/

/** RFC 3986 §3.3, without what some servers cut off, decode or split at. */
const PATH_CHARACTERS = /^[A-Za-z0-9._~!$&'()*+,=:@-]+$/

/** A credential as far as placing it goes. */
export type Placeable = Pick<Credential, 'secret' | 'parts'>

/** A secret as it travels in one slot. Checked and encoded once per secret, not once per request. */
interface Rendered {
  readonly slot: Slot
  readonly text: string
}

export interface Placement {
  /**
   * The request with the credential where its service takes it: in the first slot, or, where slots name parts of it, in all of
   * these; nothing else changes, `secrets` included. A service without slots gets the request back as it is.
   * @throws {GatewayError} `credential_rejected` for a value that the slot cannot carry, `credential_unconfigured` for a part that
   *   the credential does not have, `target_mismatch` for a request that does not go to the service over its own scheme.
   * @throws {Error} when the slot is still taken: whoever cleansed the request has a bug.
   */
  place(credential: Placeable, outbound: Outbound): Outbound
  /** Values other than the secret itself that travel once it is placed, and so must not come back: the Basic pair, the percent-encoded form. */
  derived(credential: Placeable, service: Service): readonly Secret[]
}

export function createPlacement(): Placement {
  /** secret → its last rendering; dies with the secret. */
  const memo = new WeakMap<Secret, Rendered>()

  function rendered(credential: Placeable, slot: Slot, service: Service): string {
    const secret = valueFor(credential, slot, service)
    const known = memo.get(secret)
    if (known !== undefined && known.slot === slot) return known.text
    const text = render(secret.reveal(), slot, credential.parts?.username)
    memo.set(secret, { slot, text })
    return text
  }

  return {
    place(credential, outbound) {
      const { service } = outbound
      const filled = slotsToFill(service)
      if (filled.length === 0) return outbound
      requireOwnTarget(outbound)
      return filled.reduce(
        (next, slot) =>
          slot.in === 'certificate'
            ? withCertificate(next, credential)
            : put(rendered(credential, slot, service), slot, next),
        outbound,
      )
    },
    derived(credential, service) {
      return slotsToFill(service).flatMap((slot) => {
        if (slot.in === 'certificate') return []
        const secret = valueFor(credential, slot, service)
        const text = rendered(credential, slot, service)
        if (slot.in === 'basic') return [new Secret(text.slice('Basic '.length))]
        const other = slot.part === undefined || slot.part === 'username' ? [] : [secret]
        const isEncoded = (slot.in === 'query' || slot.in === 'form') && text !== secret.reveal()
        return isEncoded ? [...other, new Secret(text)] : other
      })
    },
  }
}

/** Memo of a pure function of the service. */
const filledSlots = new WeakMap<Service, readonly Slot[]>()

function slotsToFill(service: Service): readonly Slot[] {
  const known = filledSlots.get(service)
  if (known !== undefined) return known
  const isPart = (slot: Slot) => slot.part !== undefined || slot.in === 'certificate'
  const filled = service.slots.some((slot) => slot.part !== undefined)
    ? service.slots.filter(isPart)
    : service.slots.slice(0, 1)
  filledSlots.set(service, filled)
  return filled
}

function valueFor({ secret, parts }: Placeable, { part }: Slot, service: Service): Secret {
  if (part === undefined) return secret
  const value = parts?.[part]
  if (value !== undefined) return value
  throw new GatewayError(
    'credential_unconfigured',
    `${service.name} takes a credential with the part "${part}", and credential "${service.credential}" has none of this name.`,
  )
}

/** @throws {GatewayError} `target_mismatch` */
export function requireOwnTarget({ service, scheme, host }: Outbound): void {
  if (scheme === service.scheme && servesHost(service, host)) return
  throw new GatewayError(
    'target_mismatch',
    `The credential of ${service.name} goes only to ${service.scheme}://${service.hosts.join(', ')}; this request goes to ${scheme}://${host}.`,
  )
}

function render(value: string, slot: Slot, username?: Secret): string {
  switch (slot.in) {
    case 'header':
      return checked(`${slot.prefix ?? ''}${value}`, FIELD_VALUE, slot)
    case 'basic':
      // RFC 7617 §2: a colon in the user name would move the border; control characters are forbidden in both.
      if ((username?.reveal() ?? slot.username).includes(':')) throw unplaceable(slot)
      return `Basic ${Buffer.from(checked(`${username?.reveal() ?? slot.username}:${value}`, FIELD_VALUE, slot), 'utf8').toString('base64')}`
    case 'query':
      return encodeURIComponent(checked(value, FIELD_VALUE, slot))
    case 'cookie':
      return checked(value, COOKIE_VALUE, slot)
    case 'subprotocol':
      return checked(`${slot.prefix}${value}`, TOKEN, slot)
    case 'body':
      return value
    case 'form':
      return formEncoded(checked(value, FIELD_VALUE, slot))
    case 'path':
      return checked(value, PATH_CHARACTERS, slot)
    case 'signature':
    case 'certificate':
      throw new GatewayError(
        'credential_unconfigured',
        `The service takes no value but a ${slot.in}. Give it a credential of provider ${PROVIDERS[slot.in === 'signature' ? slot.scheme : 'certificate']}.`,
      )
    default:
      return slot satisfies never
  }
}

const PROVIDERS = { aws4: 'aws', hmac: 'hmac', certificate: 'mtls' } as const

/** WHATWG URL §5.2. */
function formEncoded(text: string): string {
  return new URLSearchParams([['', text]]).toString().slice(1)
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

function withCertificate(outbound: Outbound, credential: Placeable): Outbound {
  return { ...outbound, certificate: certificateOf(credential) }
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
    case 'body':
      return withMember(outbound, slot, text)
    case 'form':
      return withFormField(outbound, slot, `${formEncoded(slot.name)}=${text}`)
    case 'path':
      return { ...outbound, path: withPathCredential(outbound, slot.prefix, text) }
    default:
      throw unplaceable(slot)
  }
}

/** Nothing stands behind the prefix any more: `/bot/sendMessage` (`protocol/path-slot.ts`). */
function withPathCredential({ path, service }: Outbound, prefix: string, text: string): string {
  const end = prefix.length + 1
  const next = path.charAt(end)
  if (path.startsWith(`/${prefix}`)) {
    if (next === '' || next === '/' || next === '?') return `${path.slice(0, end)}${text}${path.slice(end)}`
    throw new Error(`the path was not cleansed before a credential is attached`)
  }
  throw new GatewayError(
    'request_malformed',
    `${service.name} takes its credential in paths that begin with /${prefix}, and this one does not. Send the call as its API describes it.`,
  )
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
