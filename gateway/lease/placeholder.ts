/**
 * What an agent gets instead of a credential that an upstream answered with, and where it may stand in a later request. A
 * placeholder says nothing and opens nothing: it is the name of a sealed value of one grant at one service. Pure but for chance.
 */
import { randomBytes } from 'node:crypto'
import type { Inbound } from '../protocol/message.ts'
import { credentialInPath } from '../protocol/path-slot.ts'
import type { Service, Slot } from '../protocol/service.ts'

const MARK = 'klp_'
const ID_LENGTH = 43
const AUTHORIZATION = 'authorization'
const SHORTEST = MARK.length + ID_LENGTH
/** What stands before the mark is the look (`upstream/capture.ts`). */
const PLACEHOLDER = /^(?:[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.|[a-z]{2,5}[-_])?klp_[A-Za-z0-9_-]{43}$/

/** A placeholder in a place where its service takes credentials. */
export interface Standing {
  readonly id: string
  /** Where the real value goes, in the same surroundings. */
  readonly slot: Slot
}

/** 32 random bytes: nobody guesses one of another grant, and it would be of no use to them. */
export function newPlaceholder(look: string): { readonly id: string; readonly text: string } {
  const id = randomBytes(32).toString('base64url')
  return { id, text: `${look}${MARK}${id}` }
}

/** Whether the whole text has the form of a placeholder; it may be nobody's. */
export function isPlaceholder(text: string): boolean {
  return text.length >= SHORTEST && PLACEHOLDER.test(text)
}

/** The placeholder in a credential slot of the service, or in Authorization; undefined where none stands. Cheap if there is none. */
export function standingIn({ rawHeaders, rawPath, content }: Inbound, service: Service): Standing | undefined {
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const value = rawHeaders[i + 1] as string
    if (value.length < SHORTEST) continue
    const standing = inField(rawHeaders[i] as string, value, service)
    if (standing !== undefined) return standing
  }
  for (const { slot, value } of content?.taken ?? []) {
    const found = standing(value, slot)
    if (found !== undefined) return found
  }
  return rawPath.includes(MARK) ? (inQuery(rawPath, service) ?? inPath(rawPath, service)) : undefined
}

function inPath(rawPath: string, { slots }: Service): Standing | undefined {
  const found = credentialInPath(rawPath, slots)
  return found && standing(found.text, found.slot)
}

function inField(field: string, value: string, { slots }: Service): Standing | undefined {
  if (!value.includes(MARK)) {
    const mayBePair = field.length === AUTHORIZATION.length && field.toLowerCase() === AUTHORIZATION
    return mayBePair && /^basic /i.test(value) ? inPair(value.slice('basic '.length)) : undefined
  }
  const name = field.toLowerCase()
  if (name === 'cookie') return inCookie(value, slots)
  const isSlot =
    name === AUTHORIZATION || slots.some((slot) => slot.in === 'header' && slot.name.toLowerCase() === name)
  if (!isSlot) return undefined
  const start = value.lastIndexOf(' ') + 1
  return standing(value.slice(start), { in: 'header', name: field, prefix: value.slice(0, start) })
}

/** RFC 7617: the password is what follows the first colon. */
function inPair(base64: string): Standing | undefined {
  const pair = Buffer.from(base64, 'base64').toString('utf8')
  const colon = pair.indexOf(':')
  return colon === -1 ? undefined : standing(pair.slice(colon + 1), { in: 'basic', username: pair.slice(0, colon) })
}

function inCookie(value: string, slots: readonly Slot[]): Standing | undefined {
  for (const pair of value.split(';')) {
    const [name = '', ...rest] = pair.trim().split('=')
    const slot = slots.find((one) => one.in === 'cookie' && one.name === name)
    const found = slot && standing(rest.join('='), slot)
    if (found !== undefined) return found
  }
  return undefined
}

function inQuery(rawPath: string, { slots }: Service): Standing | undefined {
  const query = new URLSearchParams(rawPath.slice(rawPath.indexOf('?') + 1))
  for (const slot of slots) {
    const found = slot.in === 'query' ? standing(query.get(slot.name) ?? '', slot) : undefined
    if (found !== undefined) return found
  }
  return undefined
}

function standing(text: string, slot: Slot): Standing | undefined {
  if (!isPlaceholder(text)) return undefined
  const { part: _, ...whole } = slot // what was captured has no parts
  return { id: text.slice(-ID_LENGTH), slot: whole }
}
