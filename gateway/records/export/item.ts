/** An entry on its way out: read, masked, and joined with what its call said before. */
import { type Entry, parseEntry } from '../../audit/entries/entry.ts'
import { leafHash } from '../../audit/tree/merkle.ts'
import type { MaskEntry } from './mask.ts'

/** Members that formats have places for, besides those that every reader knows. */
export interface Exported extends Omit<Entry, 'grant' | 'decision'> {
  /** W3C traceparent, as the caller sent it. */
  readonly trace?: string
  readonly decision?: NonNullable<Entry['decision']> & {
    readonly obligations?: { readonly notify?: readonly string[] }
  }
  readonly grant?: NonNullable<Entry['grant']> & {
    readonly instance?: string
    /** Epoch seconds. */
    readonly issued?: number
  }
}

export interface Item {
  /** `<log>:<seq>`: the same in every repetition, for receivers that drop what they have. */
  readonly uid: string
  readonly entry: Exported
  /** The decision that an outcome ends; the entry itself for a decision. Undefined when it is too long ago. */
  readonly decision: Exported | undefined
  /** Canonical bytes of the entry and their leaf hash, base64: what is proven. Undefined when something is masked. */
  readonly proven: { readonly text: string; readonly leaf: string } | undefined
}

/** Calls whose outcome may still come; older ones are forgotten, and their outcomes leave without their target. */
const MAX_OPEN = 10_000

export interface Items {
  /** Undefined for bytes that are no entry. */
  read(bytes: Buffer, log: string): Item | undefined
  /** Numbers of the decisions without outcome: what must be read again to go on here. */
  open(): number[]
}

/** @param isMasked the hash of an entry is a way to guess what was masked in it, so it stays here too */
export function createItems(mask: MaskEntry, isMasked: boolean): Items {
  const open = new Map<string, Exported>() // by call; written only by `join`
  const join = (entry: Exported): Exported | undefined => {
    const { kind, req } = entry
    if (req === undefined) return undefined
    if (kind === 'call.decision') {
      if (entry.decision?.effect === 'allow') open.set(req, entry)
      const oldest = open.size > MAX_OPEN ? open.keys().next().value : undefined
      if (oldest !== undefined) open.delete(oldest)
      return entry
    }
    const decision = open.get(req)
    if (kind === 'call.outcome') open.delete(req)
    return decision
  }
  return {
    read(bytes, log) {
      const whole = parseEntry(bytes)
      if (!whole) return undefined
      const entry: Exported = mask(whole)
      const proven = isMasked ? undefined : { text: bytes.toString('utf8'), leaf: leafHash(bytes).toString('base64') }
      return { uid: `${whole.log ?? log}:${whole.seq}`, entry, decision: join(entry), proven }
    },
    open: () => [...open.values()].map(({ seq }) => seq),
  }
}

/** Whether a kind is among those asked for: `lease.issued`, or `lease.*` for a room. */
export function kindFilter(kinds: readonly string[] | undefined): (kind: string) => boolean {
  if (kinds === undefined) return () => true
  const exact = new Set(kinds)
  const rooms = kinds.filter((kind) => kind.endsWith('.*')).map((kind) => kind.slice(0, -1))
  return (kind) => exact.has(kind) || rooms.some((room) => kind.startsWith(room))
}

/** Whether an entry is of a kind asked for, or was decided with an obligation to tell somebody who is. Neither said: every entry. */
export function entryFilter(o: { kinds?: readonly string[] | undefined; notify?: readonly string[] | undefined }) {
  const isWanted = kindFilter(o.notify === undefined ? o.kinds : (o.kinds ?? []))
  const names = new Set(o.notify ?? [])
  return (entry: Exported) =>
    isWanted(entry.kind) || (entry.decision?.obligations?.notify ?? []).some((name) => names.has(name))
}
