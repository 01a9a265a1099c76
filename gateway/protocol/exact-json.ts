/** JSON of which one member is changed: every number keeps its digits, which parsing and writing anew would not. Pure. */

export type Members = { [name: string]: unknown }

/** JSON.parse source text access (ECMAScript 2026), which the declarations do not know yet. */
const exact = JSON as unknown as {
  parse(text: string, revive: (name: string, value: unknown, context: { readonly source?: string }) => unknown): unknown
  rawJSON(text: string): object
  isRawJSON(value: unknown): boolean
}

/** As `JSON.parse`; numbers are opaque, and written again as they were. @param text of which nothing is in doubt. */
export function parseExact(text: string): unknown {
  return exact.parse(text, (_, value, { source }) =>
    typeof value === 'number' && source !== undefined ? exact.rawJSON(source) : value,
  )
}

/** An object with members: no list, no number of `parseExact`. */
export function isMembers(value: unknown): value is Members {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !exact.isRawJSON(value)
}

/** Reference tokens of a JSON pointer (RFC 6901 §4). */
export function pointerTokens(pointer: string): string[] {
  return pointer
    .split('/')
    .slice(1)
    .map((token) => token.replaceAll('~1', '/').replaceAll('~0', '~'))
}
