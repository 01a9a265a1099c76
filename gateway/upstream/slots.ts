/** Removes a credential that the agent put into a query, a cookie or a subprotocol, and leaves every other byte as it was. Pure. */
import type { Inbound } from '../protocol/message.ts'
import { isReadAs } from '../protocol/parameter.ts'
import { credentialInPath } from '../protocol/path-slot.ts'
import type { Service, Slot } from '../protocol/service.ts'
import { withoutFields } from './body-slots.ts'

/** The path without parameters that some server would read under this name, however it is spelt. */
export function withoutParameter(rawPath: string, name: string): string {
  const start = rawPath.indexOf('?')
  if (start === -1) return rawPath
  const query = rawPath.slice(start + 1)
  const kept = withoutFields(query, (found) => isReadAs(found, name))
  if (kept === query) return rawPath
  return kept === '' ? rawPath.slice(0, start) : `${rawPath.slice(0, start)}?${kept}`
}

/**
 * The value of a Cookie field without cookies of this name; empty when none is left. Servers that follow RFC 2109 begin another cookie at
 * a comma too.
 */
export function withoutCookie(value: string, name: string): string {
  const parts = value.split(';')
  const kept = parts.filter((part) => !part.split(',').some((piece) => isCookie(piece, name)))
  return kept.length === parts.length ? value : kept.join(';').trimStart()
}

/** The value of a Sec-WebSocket-Protocol field without subprotocols of this prefix; empty when none is left. */
export function withoutSubprotocol(value: string, prefix: string): string {
  const parts = value.split(',')
  const kept = parts.filter((part) => !part.trim().toLowerCase().startsWith(prefix.toLowerCase()))
  return kept.length === parts.length ? value : kept.join(',').trim()
}

/** RFC 6265 §5.2; some servers decode the name, or ignore its case. */
function isCookie(part: string, name: string): boolean {
  const own = part.split('=', 1)[0]?.trim() ?? ''
  return own === name || isReadAs(own.includes('%') ? decodeLoosely(own) : own, name)
}

function decodeLoosely(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** What an agent put where the service takes credentials: the value alone, without scheme, prefix and user name. */
export function valuesInSlots(
  { rawHeaders, rawPath, content }: Pick<Inbound, 'rawHeaders' | 'rawPath' | 'content'>,
  { slots }: Pick<Service, 'slots'>,
): { readonly name: string; readonly value: string }[] {
  const found: { name: string; value: string }[] = []
  if (slots.length === 0) return found
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const name = (rawHeaders[i] as string).toLowerCase()
    const value = rawHeaders[i + 1] as string
    if (name === 'authorization') found.push({ name, value: tokenOf(value) })
    else if (name === 'cookie') found.push(...cookiesIn(value, slots))
    else {
      const slot = slots.find((one) => one.in === 'header' && one.name.toLowerCase() === name)
      if (slot?.in === 'header') found.push({ name, value: value.replace(slot.prefix ?? '', '').trim() })
    }
  }
  const query = new URLSearchParams(rawPath.split('?').slice(1).join('?'))
  for (const slot of slots) {
    if (slot.in === 'query') found.push(...query.getAll(slot.name).map((value) => ({ name: `?${slot.name}`, value })))
  }
  const inPath = credentialInPath(rawPath, slots)
  if (inPath !== undefined) found.push({ name: `path /${inPath.slot.prefix}`, value: inPath.text })
  for (const { slot, value } of content?.taken ?? []) found.push({ name: nameOf(slot), value })
  return found
}

function nameOf(slot: Slot): string {
  return slot.in === 'body' ? `body ${slot.pointer}` : slot.in === 'form' ? `form ${slot.name}` : slot.in
}

/** Of Basic the password, of an AWS signature whose it is, of any other scheme what follows it. */
function tokenOf(authorization: string): string {
  const [, scheme = '', value = ''] = /^(\S+) +(.*)$/.exec(authorization.trim()) ?? [
    undefined,
    '',
    authorization.trim(),
  ]
  if (scheme.startsWith('AWS4-')) return /\bCredential=([^/,\s]*)/.exec(value)?.[1] ?? value
  if (scheme.toLowerCase() !== 'basic') return value
  const pair = Buffer.from(value, 'base64').toString('utf8')
  return pair.slice(pair.indexOf(':') + 1)
}

function cookiesIn(value: string, slots: readonly Slot[]): { name: string; value: string }[] {
  return value.split(';').flatMap((part) => {
    const [name = '', ...rest] = part.trim().split('=')
    const isSlot = slots.some((slot) => slot.in === 'cookie' && isCookie(name, slot.name))
    return isSlot ? [{ name: `cookie ${name}`, value: rest.join('=') }] : []
  })
}
