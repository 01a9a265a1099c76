/**
 * What is taken out of an entry before it leaves: the one place for all formats and sinks. A masked value is a keyed hash, so equal
 * values stay equal and none can be guessed. A value is masked wherever in the entry it occurs, also in the middle of a text.
 */
import { createHmac, type KeyObject } from 'node:crypto'
import type { JsonValue } from '../../audit/canonical.ts'
import type { Entry } from '../../audit/entries/entry.ts'
import type { Mask } from '../../protocol/exporting.ts'

type Members = Readonly<Record<string, JsonValue | undefined>>

/** Members that hold nothing but such values, at any depth. */
const MEMBERS: Readonly<Record<Mask, readonly string[]>> = {
  // Hashes of what is masked go with it: without a key, a name can be guessed from its hash. `detail`: the words of a refusal quote
  // what stands nowhere else in the entry, such as paths of the grant, or the name in a token that was not believed.
  human: ['sub', 'owner', 'lineage_hash', 'detail'],
  address: ['ip', 'source', 'detail'],
  user_agent: ['ua'],
  path: ['path', 'paths', 'detail'],
  purpose: ['purpose', 'intent_hash'],
  policies: ['policy_ids', 'policy_set', 'policies', 'errors', 'files'],
}

/** The same in the filter of whoever read the records, whose members are called by what was asked for. */
const ASKED: Readonly<Record<Mask, readonly string[]>> = {
  human: ['human', 'ancestor', 'text', 'id'],
  address: ['address'],
  user_agent: ['text'],
  path: ['text'],
  purpose: ['text'],
  policies: ['text'],
}

/** What says which entry this is stays as it is, whatever people are called. */
const FIXED: ReadonlySet<string> = new Set(['v', 'seq', 'ts', 'kind', 'log', 'req', 'tenant', 'gw', 'trace'])

/** Texts shorter than this are masked in members of their own, and not inside other texts. */
const MIN_INSIDE = 2

export type MaskEntry = (entry: Entry) => Entry

/** @param key keys the hashes: the same key gives the same masks. No masks: entries come back as they are. */
export function createMask(masks: readonly Mask[], key: KeyObject): MaskEntry {
  if (masks.length === 0) return (entry) => entry
  const ours = new Set(masks.flatMap((mask) => MEMBERS[mask]))
  const asked = new Set([...ours, ...masks.flatMap((mask) => ASKED[mask])])
  const hide = (text: string) => `masked:${createHmac('sha256', key).update(text).digest('base64url').slice(0, 22)}`
  return (entry) => {
    const members = entry.kind === 'admin.records_read' ? asked : ours
    const hidden = new Set<string>()
    if (masks.includes('human')) for (const name of namesIn(entry)) hidden.add(name)
    collect(entry as unknown as Members, members, hidden)
    const replace = replacer(hidden, hide)
    const masked = Object.entries(entry).map(([name, value]) => [
      name,
      FIXED.has(name) ? value : rewrite(value as JsonValue, members.has(name), { members, hide, replace }),
    ])
    return Object.fromEntries(masked) as Entry
  }
}

/** A human is also the first step of a lineage. */
function namesIn({ lineage = [] }: Entry): string[] {
  return lineage.flatMap(({ type, id }) => (type === 'human' && id !== undefined ? [id] : []))
}

/** Texts in members that are masked. */
function collect(value: JsonValue | undefined, members: ReadonlySet<string>, into: Set<string>): void {
  if (typeof value !== 'object' || value === null) return
  for (const [name, inner] of Object.entries(value)) {
    if (members.has(name)) for (const text of textsIn(inner)) into.add(text)
    collect(inner, members, into)
  }
}

function textsIn(value: JsonValue | undefined): string[] {
  if (typeof value === 'string') return [value]
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap((inner) => textsIn(inner)) : []
}

interface Rewriting {
  readonly members: ReadonlySet<string>
  readonly hide: (text: string) => string
  readonly replace: (text: string) => string
}

function rewrite(value: JsonValue | undefined, isMasked: boolean, how: Rewriting): JsonValue | undefined {
  if (typeof value === 'string') return isMasked ? how.hide(value) : how.replace(value)
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map((inner: JsonValue) => rewrite(inner, isMasked, how) as JsonValue)
  return Object.fromEntries(
    Object.entries(value).map(([name, inner]) => [name, rewrite(inner, isMasked || how.members.has(name), how)]),
  )
}

/** Longest first, so that a name inside another does not break it; whole words only. In a path they are percent-encoded, by some. */
function replacer(hidden: ReadonlySet<string>, hide: (text: string) => string): (text: string) => string {
  const long = [...hidden].filter((text) => text.length >= MIN_INSIDE)
  const spelled = long.flatMap((text) => [text, encodeURIComponent(text.toWellFormed())])
  const inside = [...new Set(spelled)].sort((a, b) => b.length - a.length)
  if (inside.length === 0) return (text) => (hidden.has(text) ? hide(text) : text)
  const pattern = new RegExp(`(?<![\\p{L}\\p{N}])(?:${inside.map(literal).join('|')})(?![\\p{L}\\p{N}])`, 'giu')
  return (text) => (hidden.has(text) ? hide(text) : text.replaceAll(pattern, hide))
}

function literal(text: string): string {
  return text.replaceAll(/[\\^$.*+?()[\]{}|/]/g, '\\$&')
}
