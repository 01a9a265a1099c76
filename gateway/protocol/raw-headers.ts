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
