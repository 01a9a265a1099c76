/**
 * Canonical JSON (RFC 8785) for entries: drafts whose place in the log is filled in last, and the cutting of overlong values.
 * Knows no members but `seq`, `ts` and `v`.
 */
import { hash } from 'node:crypto'
import canonicalize from 'canonicalize'

export type JsonValue =
  | string
  | number
  | boolean
  | null
  | readonly JsonValue[]
  | { readonly [name: string]: JsonValue | undefined }

/** Version of the entry's shape. A change that a reader could misread gets a new one. */
export const VERSION = 'ar/1'

/** C2SP tlog-tiles caps an entry at 65,535 bytes; this leaves room around it. */
export const MAX_ENTRY_BYTES = 60 * 1024

/** How long values may get, in UTF-16 units. `tight` is used when an entry would not fit otherwise. */
export interface Limits {
  readonly path: number
  /** Free text: purpose, detail, user agent. */
  readonly prose: number
  /** Identifiers and names. */
  readonly name: number
  /** Members of a list. */
  readonly items: number
}

export const roomy: Limits = { path: 4096, prose: 1024, name: 512, items: 32 }
export const tight: Limits = { path: 512, prose: 128, name: 96, items: 8 }

/**
 * An entry without its place: the text before the number and the text between number and time. A failed write gives the same
 * draft another place, so nothing is built twice and nothing of the request is kept alive.
 */
export interface Draft {
  /** Up to and including `"seq":`. */
  readonly head: string
  /** From the comma after the number up to and including `"ts":"`. */
  readonly middle: string
}

/**
 * Write the canonical bytes. `"seq"` and `"ts"` sort where `Draft` has its gaps, and `"v"` is the last member.
 * @param at offset in `into`, which has room for `MAX_ENTRY_BYTES`. @returns where the entry ends.
 */
export function writeEntry(into: Buffer, at: number, draft: Draft, place: { seq: number; ts: string }): number {
  return at + into.write(`${draft.head}${place.seq}${draft.middle}${place.ts}","v":"${VERSION}"}`, at, 'utf8')
}

/** Characters that `writeEntry` adds at most. */
const PLACE_CHARS = 64

export function fits(draft: Draft): boolean {
  const chars = draft.head.length + draft.middle.length + PLACE_CHARS
  // UTF-8 takes at most three bytes for a UTF-16 unit: counting is needed only for giants.
  return chars * 3 <= MAX_ENTRY_BYTES || bytesOf(draft) + PLACE_CHARS <= MAX_ENTRY_BYTES
}

function bytesOf({ head, middle }: Draft): number {
  return Buffer.byteLength(head) + Buffer.byteLength(middle)
}

/**
 * The value with a canonical form and no longer than `max` UTF-16 units. What was cut is named by its length and the hash of the
 * whole. Lone surrogates have no canonical form; they become U+FFFD.
 */
export function cut(value: string, max: number): string {
  if (value.length <= max) return value.isWellFormed() ? value : value.toWellFormed()
  return `${value.slice(0, max).toWellFormed()}…[+${value.length - max} chars, sha256:${digest(value)}]`
}

/** A list of names, cut in both directions. */
export function cutList(values: readonly string[], limits: Limits): string[] {
  const shown = values.slice(0, limits.items).map((value) => cut(value, limits.name))
  if (values.length > shown.length)
    shown.push(`…[+${values.length - shown.length} more, sha256:${digest(values.join('\n'))}]`)
  return shown
}

function digest(value: string): string {
  return hash('sha256', value.toWellFormed(), 'base64url')
}

/** Milliseconds with one decimal: finer would be noise. */
export function tenths(ms: number): number {
  return Math.round(ms * 10) / 10
}

/**
 * A draft from an object, for entries off the hot path. Overlong strings are cut; if the whole is still too large, the largest
 * members give way to their size and hash, until it fits.
 */
export function draftFrom(fields: Readonly<Record<string, JsonValue | undefined>>): Draft {
  let entry = tidy(fields, roomy.path) as Fields
  let draft = compose(entry)
  if (fits(draft)) return draft
  entry = tidy(fields, tight.prose) as Fields
  for (draft = compose(entry); !fits(draft); draft = compose(entry)) entry = withoutLargest(entry)
  return draft
}

function withoutLargest(entry: Fields): Fields {
  const sizes = Object.entries(entry).map(([name, value]) => ({ name, text: canonicalize(value) ?? '' }))
  const largest = sizes.reduce((a, b) => (b.text.length > a.text.length ? b : a))
  const stump = { cut: true, bytes: Buffer.byteLength(largest.text), sha256: hash('sha256', largest.text, 'base64url') }
  return { ...entry, [largest.name]: stump }
}

type Fields = { readonly [name: string]: JsonValue }

function compose(fields: Fields): Draft {
  const names = Object.keys(fields)
  const part = (isIn: (name: string) => boolean) =>
    (canonicalize(Object.fromEntries(names.filter(isIn).map((name) => [name, fields[name]]))) ?? '').slice(1, -1)
  const before = part((name) => name < 'seq')
  const between = part((name) => name > 'seq' && name < 'ts')
  return { head: `{${before},"seq":`, middle: between === '' ? ',"ts":"' : `,${between},"ts":"` }
}

/** A copy with a canonical form: well-formed, finite, no longer than it may be, and through `toJSON` (a `Secret` prints itself masked). */
function tidy(value: unknown, max: number, depth = 0): JsonValue {
  if (typeof value === 'string') return cut(value, max)
  if (typeof value === 'number') return Number.isFinite(value) ? value : null
  if (typeof value === 'boolean' || value === null) return value
  if (typeof value !== 'object') return value === undefined ? null : cut(String(value), max)
  if (depth > 16) return '…[too deep]'
  if ('toJSON' in value && typeof value.toJSON === 'function') return tidy(value.toJSON(), max, depth + 1)
  if (Array.isArray(value)) return value.map((member) => tidy(member, max, depth + 1))
  const members = Object.entries(value).filter(([, member]) => member !== undefined)
  return Object.fromEntries(members.map(([name, member]) => [cut(name, max), tidy(member, max, depth + 1)]))
}
