/**
 * Credentials in a path: `/bot<token>/sendMessage`. Whoever decides, records or forwards takes the path without it, so that an agent's
 * text there is seen by nobody. Pure.
 */
import type { Slot } from './service.ts'

type PathSlot = Extract<Slot, { in: 'path' }>

export interface PathCredential {
  readonly slot: PathSlot
  /** What follows the prefix, decoded. Empty: nothing does. */
  readonly text: string
  /** The path without it. */
  readonly rest: string
}

/** What stands where one of these slots is, however it is percent-encoded and in whatever case; undefined where no path slot is. */
export function credentialInPath(rawPath: string, slots: readonly Slot[]): PathCredential | undefined {
  for (const slot of slots) {
    const found = slot.in === 'path' ? foundAt(rawPath, slot) : undefined
    if (found !== undefined) return found
  }
  return undefined
}

/** The same, also where servers that merge or decode slashes would find it. */
export function credentialInMergedPath(rawPath: string, slots: readonly Slot[]): PathCredential | undefined {
  return slots.some((slot) => slot.in === 'path')
    ? credentialInPath(rawPath.replaceAll(/(?:\/|%2f)+/gi, '/'), slots)
    : undefined
}

function foundAt(rawPath: string, slot: PathSlot): PathCredential | undefined {
  const wanted = slot.prefix.toLowerCase().split('/')
  let end = 0
  let last = ''
  for (const [i, part] of wanted.entries()) {
    if (rawPath.charCodeAt(end) !== 0x2f) return undefined
    const start = end + 1
    end = segmentEnd(rawPath, start)
    last = decode(rawPath.slice(start, end))
    const isHere = i === wanted.length - 1 ? last.toLowerCase().startsWith(part) : last.toLowerCase() === part
    if (!isHere) return undefined
  }
  const text = last.slice(wanted.at(-1)?.length)
  return { slot, text, rest: `/${slot.prefix}${rawPath.slice(end)}` }
}

function segmentEnd(rawPath: string, start: number): number {
  for (let i = start; i < rawPath.length; i += 1) {
    const code = rawPath.charCodeAt(i)
    if (code === 0x2f || code === 0x3f) return i // slash or question mark
  }
  return rawPath.length
}

function decode(segment: string): string {
  try {
    return decodeURIComponent(segment)
  } catch {
    return segment
  }
}
