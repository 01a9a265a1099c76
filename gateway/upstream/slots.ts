/** Removes a credential that the agent put into a query, a cookie or a subprotocol, and leaves every other byte as it was. Pure. */
import type { Inbound } from '../protocol/message.ts'
import type { Service, Slot } from '../protocol/service.ts'

/** The path without parameters of this name, however the name is percent-encoded. */
export function withoutParameter(rawPath: string, name: string): string {
  const start = rawPath.indexOf('?')
  if (start === -1) return rawPath
  const parts = rawPath.slice(start + 1).split('&')
  const kept = parts.filter((part) => parameterName(part) !== name)
  if (kept.length === parts.length) return rawPath
  return kept.length === 0 ? rawPath.slice(0, start) : `${rawPath.slice(0, start)}?${kept.join('&')}`
}

/** The value of a Cookie field without cookies of this name; empty when none is left. */
export function withoutCookie(value: string, name: string): string {
  const parts = value.split(';')
  const kept = parts.filter((part) => part.split('=', 1)[0]?.trim() !== name)
  return kept.length === parts.length ? value : kept.join(';').trimStart()
}

/** The value of a Sec-WebSocket-Protocol field without subprotocols of this prefix; empty when none is left. */
export function withoutSubprotocol(value: string, prefix: string): string {
  const parts = value.split(',')
  const kept = parts.filter((part) => !part.trim().toLowerCase().startsWith(prefix.toLowerCase()))
  return kept.length === parts.length ? value : kept.join(',').trim()
}

function parameterName(part: string): string {
  const end = part.indexOf('=')
  const raw = end === -1 ? part : part.slice(0, end)
  if (!raw.includes('%') && !raw.includes('+')) return raw
  try {
    return decodeURIComponent(raw.replaceAll('+', ' '))
  } catch {
    return raw // not UTF-8: no parameter of ours
  }
}

/** What an agent put where the service takes credentials: the value alone, without scheme, prefix and user name. */
export function valuesInSlots(
  { rawHeaders, rawPath }: Pick<Inbound, 'rawHeaders' | 'rawPath'>,
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
  return found
}

/** Of Basic the password, of any other scheme what follows it. */
function tokenOf(authorization: string): string {
  const [, scheme = '', value = ''] = /^(\S+) +(.*)$/.exec(authorization.trim()) ?? [
    undefined,
    '',
    authorization.trim(),
  ]
  if (scheme.toLowerCase() !== 'basic') return value
  const pair = Buffer.from(value, 'base64').toString('utf8')
  return pair.slice(pair.indexOf(':') + 1)
}

function cookiesIn(value: string, slots: readonly Slot[]): { name: string; value: string }[] {
  return value.split(';').flatMap((part) => {
    const [name = '', ...rest] = part.trim().split('=')
    const isSlot = slots.some((slot) => slot.in === 'cookie' && slot.name === name)
    return isSlot ? [{ name: `cookie ${name}`, value: rest.join('=') }] : []
  })
}
