/**
 * Takes credentials that the agent put into a body out of it, wherever a slot of its service would be read: members of JSON, fields of
 * a form. What cannot be read in one way only is refused, because a key of the agent's could pass inside. Pure.
 */
import { isMembers, type Members, parseExact, pointerTokens } from '../protocol/exact-json.ts'
import type { SlotValue } from '../protocol/message.ts'
import { foldCase, isReadAs } from '../protocol/parameter.ts'
import type { Service, Slot } from '../protocol/service.ts'
import { parseStrictJson } from '../protocol/strict-json.ts'

/** A slot in a body, as it would be found in JSON and in a form. */
export interface BodySlot {
  readonly member: Slot
  readonly tokens: readonly string[]
  readonly field: Slot
  readonly fields: readonly string[]
}

/** Memo of a pure function of the service. */
const known = new WeakMap<Service, readonly BodySlot[]>()

/** The slots of a service that are in its bodies. */
export function bodySlotsOf(service: Service): readonly BodySlot[] {
  const found = known.get(service) ?? service.slots.flatMap(bodySlot)
  known.set(service, found)
  return found
}

/** An API that takes both kinds of body takes its key under one name in either. */
function bodySlot(slot: Slot): BodySlot[] {
  if (slot.in !== 'body' && slot.in !== 'form') return []
  const tokens = slot.in === 'form' ? [slot.name] : pointerTokens(slot.pointer)
  const [first = '', ...inner] = tokens
  const name = [first, ...inner.map((token) => `[${token}]`)].join('')
  const pointer = tokens.map((token) => `/${token.replaceAll('~', '~0').replaceAll('/', '~1')}`).join('')
  return [{ member: { in: 'body', pointer }, tokens, field: { in: 'form', name }, fields: [name, tokens.join('.')] }]
}

export interface Cleansed {
  readonly bytes: Buffer
  readonly json?: unknown
  readonly taken: readonly SlotValue[]
}

/** Why a body cannot be cleansed; whoever reads bodies words it. */
export class UnclearBody extends Error {}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** @throws {UnclearBody} unless it is a JSON object in UTF-8 with every name once, in which slots hold text or nothing. */
export function cleanseJson(bytes: Buffer, slots: readonly BodySlot[]): Cleansed {
  const text = decode(bytes, 'JSON')
  let json: unknown
  try {
    json = parseStrictJson(text)
  } catch {
    throw new UnclearBody('it is not JSON with every name once')
  }
  if (!isMembers(json)) throw new UnclearBody('it is JSON, but no object')
  const object = json
  const taken = slots.flatMap(({ member, tokens }) => take(object, tokens, member))
  if (taken.length === 0) return { bytes, json, taken }
  const exact = parseExact(text) as Members
  for (const { member, tokens } of slots) take(exact, tokens, member)
  return { bytes: Buffer.from(JSON.stringify(exact)), json, taken }
}

/** Go's decoder, for one, takes `API_KEY` for `api_key`, and the last one counts. */
function take(object: Members, [token = '', ...inner]: readonly string[], slot: Slot): SlotValue[] {
  const alike = Object.keys(object).filter((name) => foldCase(name) === foldCase(token))
  if (inner.length > 0) {
    if (alike.some((name) => name !== token)) throw new UnclearBody(`it has the name "${token}" in another case`)
    const next = object[token]
    return isMembers(next) ? take(next, inner, slot) : []
  }
  return alike.map((name) => {
    const value = object[name]
    if (typeof value !== 'string' && value !== null)
      throw new UnclearBody(`it has something else than text at "${token}", where the service takes credentials`)
    delete object[name]
    return { slot, value: value ?? '' }
  })
}

/** @throws {UnclearBody} unless it is text in UTF-8. Every other byte stays as it was. */
export function cleanseForm(bytes: Buffer, slots: readonly BodySlot[]): Cleansed {
  const text = decode(bytes, 'a form')
  const taken: SlotValue[] = []
  const rest = withoutFields(text, (name, value) => {
    const found = slots.find(({ fields }) => fields.some((field) => isReadAs(name, field)))
    if (found !== undefined) taken.push({ slot: found.field, value })
    return found !== undefined
  })
  return { bytes: taken.length === 0 ? bytes : Buffer.from(rest), taken }
}

function decode(bytes: Buffer, as: string): string {
  try {
    return utf8.decode(bytes)
  } catch {
    throw new UnclearBody(`it is not ${as} in UTF-8`)
  }
}

/** A query or form without some of its fields. Some servers end a field at `;` too: what stands behind one is looked at by itself. */
export function withoutFields(text: string, isTaken: (name: string, value: string) => boolean): string {
  const fields = text.split('&')
  const kept = fields.flatMap((field) => {
    const pieces = field.split(';')
    const left = pieces.filter((piece) => {
      const end = piece.indexOf('=')
      return !isTaken(
        decoded(end === -1 ? piece : piece.slice(0, end)),
        end === -1 ? '' : decoded(piece.slice(end + 1)),
      )
    })
    if (left.length === pieces.length) return [field]
    return left.length === 0 ? [] : [left.join(';')]
  })
  return kept.join('&')
}

/** As forms are decoded; what is broken stays as it is, and is no name of ours. */
function decoded(text: string): string {
  if (!text.includes('%') && !text.includes('+')) return text
  try {
    return decodeURIComponent(text.replaceAll('+', ' '))
  } catch {
    return text
  }
}
