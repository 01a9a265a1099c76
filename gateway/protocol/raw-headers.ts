/** Fields of a message by name, in a list that has each as it came: nothing is joined, dropped or respelt. Pure. */
import type { RawHeaders } from './message.ts'

/** @param name in lower case. @returns the value of every field of this name, in order. */
export function valuesOf(rawHeaders: RawHeaders, name: string): string[] {
  return rawHeaders.filter((_, i) => i % 2 === 1 && rawHeaders[i - 1]?.toLowerCase() === name)
}

/** @param name in lower case. @returns the list without the fields of this name. */
export function withoutField(rawHeaders: RawHeaders, name: string): string[] {
  return rawHeaders.filter((_, i) => rawHeaders[i - (i % 2)]?.toLowerCase() !== name)
}

/** Says what a body was that it is not any more (RFC 9530, RFC 1864). */
const OF_BODY = /^(?:content-md5|digest|(?:content|repr)-digest)$/i

/** The list as it fits another body, of this many bytes. */
export function forBody(rawHeaders: RawHeaders, bytes: number): string[] {
  const fields: string[] = []
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] as string
    if (OF_BODY.test(name)) continue
    fields.push(name, name.toLowerCase() === 'content-length' ? String(bytes) : (rawHeaders[i + 1] as string))
  }
  return fields
}
