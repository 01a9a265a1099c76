/**
 * A credential in a body: a member of JSON, a field of a form. The body was read whole and cleansed before the decision
 * (`upstream/content.ts`), so it can be filled in as often as a credential is attached.
 */
import { isMembers, type Members, parseExact, pointerTokens } from '../../protocol/exact-json.ts'
import type { Outbound } from '../../protocol/message.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { forBody, valuesOf, withoutField } from '../../protocol/raw-headers.ts'
import type { Slot } from '../../protocol/service.ts'

type In<Place extends Slot['in']> = Extract<Slot, { in: Place }>

const JSON_TYPE = 'application/json'
const FORM_TYPE = 'application/x-www-form-urlencoded'

/**
 * The request with the value at the pointer; objects on the way are made. A request without a body gets one.
 * @throws {GatewayError} `request_malformed` where another kind of body, or of value on the way, is there.
 */
export function withMember(outbound: Outbound, slot: In<'body'>, value: string): Outbound {
  const text = bodyOf(outbound, JSON_TYPE, `as ${slot.pointer} of a JSON body`)
  const root: unknown = text === '' ? {} : parseExact(text)
  const tokens = pointerTokens(slot.pointer)
  const last = tokens.pop() ?? ''
  const object = tokens.reduce<unknown>((at, token) => (isMembers(at) ? inner(at, token) : at), root)
  if (!isMembers(object)) throw misfit(`has something else than an object where ${slot.pointer} goes`, outbound)
  if (Object.hasOwn(object, last)) throw new Error(`${slot.pointer} was not cleansed before a credential is attached`)
  define(object, last, value)
  return withBody(outbound, JSON.stringify(root), JSON_TYPE)
}

function inner(object: Members, token: string): unknown {
  if (!Object.hasOwn(object, token)) define(object, token, {})
  return object[token]
}

/** `__proto__` is a name like any other. */
function define(object: Members, name: string, value: unknown): void {
  Object.defineProperty(object, name, { value, enumerable: true, configurable: true, writable: true })
}

/** The request with the field behind the others. @param field name and value, encoded. @throws as `withMember`. */
export function withFormField(outbound: Outbound, slot: In<'form'>, field: string): Outbound {
  const text = bodyOf(outbound, FORM_TYPE, `as field ${slot.name} of a form`)
  if (new URLSearchParams(text).has(slot.name))
    throw new Error(`field ${slot.name} was not cleansed before a credential is attached`)
  return withBody(outbound, text === '' || text.endsWith('&') ? `${text}${field}` : `${text}&${field}`, FORM_TYPE)
}

/** The body as text; empty where there is none. */
function bodyOf(outbound: Outbound, type: string, as: string): string {
  const { body, headers, method, upgrade } = outbound
  if (body === null || (Buffer.isBuffer(body) && body.length === 0)) {
    if (upgrade === undefined && !/^(?:GET|HEAD|OPTIONS)$/.test(method)) return ''
    throw misfit(`takes its credential ${as}, and this request can have no body`, outbound)
  }
  if (!Buffer.isBuffer(body)) throw new Error('the body was not read before a credential is attached to it')
  const given = valuesOf(headers, 'content-type').join().split(';', 1)[0]?.trim().toLowerCase() ?? ''
  const isFit = type === JSON_TYPE ? given === type || given.endsWith('+json') : given === type
  if (!isFit) throw misfit(`takes its credential ${as}, and this request has another kind of body`, outbound)
  return body.toString('utf8')
}

function withBody(outbound: Outbound, text: string, type: string): Outbound {
  const body = Buffer.from(text, 'utf8')
  const isNew = outbound.body === null || (Buffer.isBuffer(outbound.body) && outbound.body.length === 0)
  const headers = isNew
    ? [...withoutField(withoutField(outbound.headers, 'content-type'), 'content-length'), 'Content-Type', type]
    : outbound.headers
  const sized = forBody(headers, body.length)
  return { ...outbound, body, headers: isNew ? [...sized, 'Content-Length', String(body.length)] : sized }
}

function misfit(what: string, { service }: Outbound): GatewayError {
  return new GatewayError('request_malformed', `${service.name} ${what}. Send the call as its API describes it.`)
}
