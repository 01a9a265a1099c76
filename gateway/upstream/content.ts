/**
 * A body that is read whole before the decision: because a grant looks into it, because its service takes credentials there, or because
 * it is signed. Refused is whatever two readers could take for two things: then policy would see another value than the upstream
 * (CWE-235), or a key of the agent's would pass.
 */
import type { Readable } from 'node:stream'
import { collect } from '../protocol/collect.ts'
import type { Content, Inbound, RawHeaders } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { Service } from '../protocol/service.ts'
import { parseStrictJson } from '../protocol/strict-json.ts'
import { type BodySlot, bodySlotsOf, type Cleansed, cleanseForm, cleanseJson, UnclearBody } from './body-slots.ts'

/** Of JSON and forms. */
const MAX_BYTES = 1024 * 1024
/** Of bodies that are only signed. */
const MAX_SIGNED_BYTES = 8 * 1024 * 1024
/** An agent may not hold a decision open for as long as it likes. */
const READ_MS = 30_000

const JSON_TYPE = /^application\/(?:json|x-amz-json-1\.[01]|[\w.+-]{1,100}\+json)(?:[ \t]*;[ \t]*charset="?utf-8"?)?$/i
const FORM_TYPE = /^application\/x-www-form-urlencoded(?:[ \t]*;[ \t]*charset="?utf-8"?)?$/i

/** Why a body has to be whole, and what a body is refused with that is not fit for it. */
interface Purpose {
  readonly maxBytes: number
  refuse(what: string): GatewayError
}

const JUDGED: Purpose = {
  maxBytes: MAX_BYTES,
  refuse: (what) =>
    new GatewayError(
      'constraint_unmet',
      `Grant or policy look into the body of this call, and it cannot be judged: ${what}. Send plain JSON.`,
    ),
}

const TAKING: Purpose = {
  maxBytes: MAX_BYTES,
  refuse: (what) =>
    new GatewayError(
      'request_malformed',
      `This service takes credentials in bodies, and a key of your own could pass in this one: ${what}. Send plain JSON or a plain form.`,
    ),
}

const SIGNED: Purpose = {
  maxBytes: MAX_SIGNED_BYTES,
  refuse: (what) =>
    new GatewayError(
      'request_malformed',
      `The body of this call is signed, and cannot be: ${what}. Send a smaller one.`,
    ),
}

const TELLING: Purpose = {
  maxBytes: MAX_BYTES,
  refuse: (what) =>
    new GatewayError('request_malformed', `The form of this call says what it asks for, and cannot be read: ${what}.`),
}

const APPROVED: Purpose = {
  maxBytes: MAX_BYTES,
  refuse: (what) =>
    new GatewayError(
      'content_too_large',
      `This call is decided with all that it says, and its body cannot be held until then: ${what}. Send less at once.`,
    ),
}

/**
 * The request with all of its body, in whatever form: somebody is going to look at exactly these bytes. At most 1 MiB.
 * @throws {GatewayError} `content_too_large`, `request_malformed`
 */
export async function readWhole(inbound: Inbound): Promise<Inbound> {
  if (inbound.body === null || inbound.content !== undefined) return inbound
  return { ...inbound, content: { bytes: await collected(inbound.body, APPROVED), taken: [] } }
}

/**
 * The request with its form, where it has one: what it asks for is in it (`Service.saysInForms`). At most 1 MiB.
 * @throws {GatewayError} `request_malformed`
 */
export async function readForm(inbound: Inbound): Promise<Inbound> {
  const types = valuesOf(inbound.rawHeaders, 'content-type')
  if (inbound.body === null || !types.some((type) => /^application\/x-www-form-urlencoded/i.test(type))) return inbound
  kindOf(inbound.rawHeaders, TELLING)
  const bytes = await collected(inbound.body, TELLING)
  return { ...inbound, content: { bytes, form: bytes.toString('latin1'), taken: [] } }
}

/** Whether a call of this service has to be whole, whatever grants say. */
export function needsContent(service: Service, { mode }: Pick<Inbound, 'mode'>): boolean {
  if (service.passesOwn === true && mode !== 'reverse') return false // its client's credential passes
  return bodySlotsOf(service).length > 0 || isSigned(service)
}

function isSigned({ slots }: Service): boolean {
  return slots[0]?.in === 'signature' && slots[0].scheme === 'hmac'
}

/**
 * The request with its content, in no coding and without what stood in slots of the service: at most 1 MiB of JSON in UTF-8, or of a
 * form; at most 8 MiB of anything where it is only signed. A request without a body comes back as it is. The stream is left to
 * whoever answers; it is read to its end only on success.
 * @param isJudged a grant looks into it: it must be JSON.
 * @throws {GatewayError} `constraint_unmet`, `request_malformed`.
 */
export async function readContent(inbound: Inbound, service: Service, isJudged: boolean): Promise<Inbound> {
  if (inbound.content?.form !== undefined && isJudged) throw JUDGED.refuse('it is a form')
  const slots = bodySlotsOf(service)
  const { content } = inbound
  // A form that was read to tell the operation has been looked into by nobody yet.
  if (content?.form !== undefined && slots.length > 0)
    return { ...inbound, content: { ...content, ...read(content.bytes, 'form', { slots, purpose: TAKING }) } }
  if (inbound.body === null || content !== undefined) return inbound
  const purpose = isJudged ? JUDGED : slots.length > 0 ? TAKING : SIGNED
  const kind = purpose === SIGNED ? 'bytes' : kindOf(inbound.rawHeaders, purpose)
  const bytes = await collected(inbound.body, purpose)
  if (bytes.length === 0 && !isJudged) return { ...inbound, content: { bytes, taken: [] } }
  return { ...inbound, content: read(bytes, kind, { slots, purpose }) }
}

type Kind = 'json' | 'form' | 'bytes'

function kindOf(rawHeaders: RawHeaders, purpose: Purpose): Kind {
  const [type = '', ...others] = valuesOf(rawHeaders, 'content-type')
  const kind = JSON_TYPE.test(type) ? 'json' : FORM_TYPE.test(type) && purpose !== JUDGED ? 'form' : undefined
  if (kind === undefined || others.length > 0) {
    const allowed = purpose === JUDGED ? 'application/json' : 'application/json or application/x-www-form-urlencoded'
    throw purpose.refuse(`it does not say once that it is ${allowed} in UTF-8`)
  }
  const isCoded = valuesOf(rawHeaders, 'content-encoding').some((coding) => coding.trim().toLowerCase() !== 'identity')
  if (isCoded) throw purpose.refuse('it is compressed')
  return kind
}

function read(
  bytes: Buffer,
  kind: Kind,
  { slots, purpose }: { readonly slots: readonly BodySlot[]; readonly purpose: Purpose },
): Content {
  const content = cleansed(bytes, kind, slots, purpose)
  if (purpose === JUDGED) requireDistinctNames(content.json)
  return content
}

function cleansed(bytes: Buffer, kind: Kind, slots: readonly BodySlot[], purpose: Purpose): Cleansed {
  try {
    if (kind === 'form') return cleanseForm(bytes, slots)
    if (kind === 'bytes') return { bytes, taken: [] }
    return slots.length > 0 ? cleanseJson(bytes, slots) : { bytes, json: parse(bytes), taken: [] }
  } catch (cause) {
    if (cause instanceof UnclearBody) throw purpose.refuse(cause.message)
    throw cause
  }
}

/** CGI and its heirs read `Content_Type` as `Content-Type`: under either name it counts. */
function valuesOf(rawHeaders: RawHeaders, name: string): string[] {
  return rawHeaders.filter((_, i) => i % 2 === 1 && rawHeaders[i - 1]?.toLowerCase().replaceAll('_', '-') === name)
}

function collected(body: Readable, { maxBytes, refuse }: Purpose): Promise<Buffer> {
  const faults = {
    long: () => refuse(`it is longer than ${maxBytes} bytes`),
    late: () => refuse(`it took longer than ${READ_MS / 1000} s to arrive`),
    broken: () => new GatewayError('request_malformed', 'The body broke off.'),
  }
  return collect(body, { maxBytes, withinMs: READ_MS, refuse: (fault) => faults[fault]() })
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function parse(bytes: Buffer): unknown {
  try {
    return parseStrictJson(utf8.decode(bytes))
  } catch {
    throw JUDGED.refuse('it is not JSON in UTF-8 with every name once')
  }
}

/** Go's decoder, for one, takes `Model` and `MODEL` for `model`, and the last one counts. Depth is bounded by the parser. */
function requireDistinctNames(value: unknown): void {
  if (typeof value !== 'object' || value === null) return
  if (Array.isArray(value)) {
    for (const member of value) requireDistinctNames(member)
    return
  }
  const names = Object.keys(value)
  if (names.length > 1 && new Set(names.map(folded)).size < names.length)
    throw JUDGED.refuse('it has two names that differ only in case')
  for (const name of names) requireDistinctNames((value as Record<string, unknown>)[name])
}

const PLAIN = /^[\x20-\x7e]*$/

function folded(name: string): string {
  return (PLAIN.test(name) ? name : name.normalize('NFKC')).toLowerCase()
}
