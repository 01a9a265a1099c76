/**
 * What an entry must be by itself: the canonical bytes of a known kind. Sees one line at a time and remembers nothing but
 * lineages that it has already hashed.
 */
import { isUtf8 } from 'node:buffer'
import { hash } from 'node:crypto'
import canonicalize from 'canonicalize'
import { VERSION as GATEWAY_VERSION } from '../../version.ts'
import { MAX_ENTRY_BYTES, VERSION } from '../canonical.ts'
import type { Entry, Step } from '../entries/entry.ts'
import { entrySchemas } from '../schema/schema.ts'

const KIND =
  /^(call|grant|task|lease|policy|log|admin|approval|leak|breakglass|settings|signal|revocation)(\.[a-z_]+)+$/
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/

/** What is wrong with the line, or the entry that it is. */
export type Examined =
  | { readonly entry: Entry; readonly text: string; readonly wrong?: string }
  | { readonly entry?: never; readonly wrong: string }

export function examineLine(bytes: Buffer): Examined {
  const text = isUtf8(bytes) ? bytes.toString('utf8') : ''
  const entry = parse(text)
  if (!entry) return { wrong: 'the line is not an entry' }
  const wrong = formOf(entry, text, bytes.length)
  return wrong === undefined ? { entry, text } : { entry, text, wrong }
}

function parse(text: string): Entry | undefined {
  try {
    const value = JSON.parse(text) as Entry
    const isEntry =
      Number.isSafeInteger(value.seq) &&
      typeof value.v === 'string' &&
      typeof value.kind === 'string' &&
      TIME.test(value.ts)
    return isEntry ? value : undefined
  } catch {
    return undefined
  }
}

function formOf(entry: Entry, text: string, bytes: number): string | undefined {
  if (entry.v !== VERSION) return `the entry has the unknown version "${entry.v}"`
  if (!KIND.test(entry.kind)) return `the entry has the unknown kind "${entry.kind}"`
  if (Number.isNaN(Date.parse(entry.ts))) return `the entry's time ${entry.ts} is none`
  if (bytes > MAX_ENTRY_BYTES) return `the entry has ${bytes} bytes, more than any that is written`
  if (!isCanonical(text, entry)) return 'the entry is not in canonical form (RFC 8785)'
  return undefined
}

/** Parts that were too long, and say so in place of what they held. */
const CUT = /…\[\+|"cut":/

/**
 * In what the entry is not of the shape that its kind has (`schema.ts`). `isFault`: it says that this very version wrote it; the shape of
 * what others wrote may be another.
 */
export function shapeOf(entry: Entry, text: string): { readonly what: string; readonly isFault: boolean } | undefined {
  const schema = entrySchemas.get(entry.kind)
  const isFault = entry.gw?.ver === GATEWAY_VERSION
  if (!schema) return { what: `no entry of the kind "${entry.kind}" is known`, isFault }
  const { error } = schema.safeParse(entry)
  if (!error || CUT.test(text)) return undefined
  const [issue] = error.issues
  return {
    what: `the entry is not of the shape that ${entry.kind} has: ${issue?.path.join('.')}: ${issue?.message}`,
    isFault,
  }
}

/**
 * Whether `text` is the RFC 8785 form of `value`, which was parsed from it. Numbers and strings are written as ECMAScript writes
 * them (§3.2.2), so only the order of members and lone surrogates need a look. Held equal to the `canonicalize` package by test.
 */
export function isCanonical(text: string, value: unknown): boolean {
  // An escape that could be half of a surrogate pair, or names that JavaScript enumerates in an order of its own: decided the slow way.
  if (!text.includes('\\ud') && isSorted(value)) return JSON.stringify(value) === text
  try {
    return canonicalize(value) === text
  } catch {
    return false
  }
}

function isSorted(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return true
  if (Array.isArray(value)) return value.every(isSorted)
  let before: string | undefined
  for (const name of Object.keys(value)) {
    if (before !== undefined && before >= name) return false
    before = name
    const member = (value as Record<string, unknown>)[name]
    if (typeof member === 'object' && !isSorted(member)) return false
  }
  return true
}

/** A chain of authority in few bytes, so that millions of entries can be held against the few that made it. */
export interface Chain {
  /** Names the steps as they are written, without their attestations. */
  readonly whole: string
  /** The same without the human, whose name may be sealed under another key later. */
  readonly agents: string
  /** The steps of whoever delegated to the last one. */
  readonly above: string
  /** The hash that the entry gives for it is that of its steps, as far as none were cut out. */
  readonly isHashed: boolean
  /** The human is named in sealed form. */
  readonly isSealed: boolean
  /** Grants of the steps: never cut. */
  readonly grants: string
  /** A name in it, or its middle, was too long for the entry. */
  readonly isCut: boolean
}

const MAX_CHAINS = 10_000

/** @returns what reads chains; few of them are in many entries. */
export function chainReader(): (entry: Entry) => Chain | undefined {
  const known = new Map<string, Chain>()
  return ({ lineage, lineage_hash: claimed }) => {
    if (!Array.isArray(lineage)) return undefined
    const steps = lineage.map(({ att: _, ...step }: Step) => step)
    const key = `${claimed} ${JSON.stringify(steps)}`
    const found = known.get(key) ?? chainOf(steps, claimed)
    if (known.size >= MAX_CHAINS) known.clear()
    known.set(key, found)
    return found
  }
}

function chainOf(steps: readonly Step[], claimed: string | undefined): Chain {
  const isCut = steps.some(({ cut, id }) => cut !== undefined || (typeof id === 'string' && CUT.test(id)))
  return {
    whole: digest(steps),
    agents: digest(steps.slice(1)),
    above: digest(steps.slice(0, -1)),
    isHashed: isCut || digest(steps) === claimed,
    isSealed: steps[0]?.id?.startsWith('sealed:') === true,
    grants: digest(steps.filter(({ cut }) => cut === undefined).map(({ grant }) => ({ grant }) as Step)),
    isCut,
  }
}

/** The entry was canonical, so its members are in order. */
function digest(steps: readonly Step[]): string {
  return hash('sha256', JSON.stringify(steps), 'base64url')
}
