/** What all entries of one gateway process have in common, and how an entry that is composed as an object becomes a draft. */
import type { KeyObject } from 'node:crypto'
import type { Grant, Human } from '../../protocol/grant.ts'
import { createKeyedHash, type KeyedHash } from '../../protocol/keyed-hash.ts'
import { cut, type Draft, draftFrom, roomy } from '../canonical.ts'
import type { Fields } from './authority.ts'

export interface Letterhead {
  readonly gw: { readonly boot: string; readonly node: string; readonly ver: string }
  /** Name of the log. */
  readonly origin: string
  /** Of query strings: equal ones can be found, none can be guessed. */
  readonly keyed: KeyedHash
  /** Per grant. A grant is immutable, so its text is too; it is forgotten with the grant, and all of it when a human is forgotten. */
  chains: WeakMap<Grant, Chain>
  /** Canonical text of what many calls share: facts about a credential, and a decision where nothing is sealed. Both are immutable. */
  readonly shared: WeakMap<object, string>
  /** Absent: everything is written as it is. */
  readonly seal: SealPersonal | undefined
}

/**
 * What belongs to a person in members of an entry (`human`, `lineage`, `lineage_hash`, `task`, `client`, `decision`, `facts`, `grant`),
 * sealed: a copy with the same members in the same order. Asked once a grant for what is the same in all entries of its calls, once
 * a call for its client and decision, and once for every other entry.
 * @param human whose entry it is; undefined before authentication.
 */
export type SealPersonal = (members: Fields, human: Human | undefined) => Fields

/** Canonical text between the members of a call's entries that differ from call to call. */
export interface Chain {
  readonly tenant: string
  /** From the comma before `gw` to the opening quote of the value of `req`. */
  readonly decided: string
  /** From the comma before `gw` to `outcome`. */
  readonly ended: string
  /** From the comma before `task` to the opening quote of the value of `ts`. */
  readonly rest: string
  /** The same up to the value of `trace`. */
  readonly traced: string
}

export function letterhead(o: {
  node: string
  version: string
  boot: string
  origin: string
  hmacKey: KeyObject
  seal?: SealPersonal | undefined
}): Letterhead {
  const gw = { boot: o.boot, node: cut(o.node, roomy.name), ver: cut(o.version, roomy.name) }
  return {
    gw,
    origin: o.origin,
    keyed: createKeyedHash(o.hmacKey),
    chains: new WeakMap(),
    shared: new WeakMap(),
    seal: o.seal,
  }
}

/** Members of an entry, with what belongs to a person as it may stand in the log. */
export function sealed<F extends Fields>({ seal }: Letterhead, members: F, human: Human | undefined): F {
  return seal === undefined ? members : (seal(members, human) as F)
}

/** Whatever is neither decision nor outcome of a call: rare, so composed as an object and canonicalised by the package. */
export function draftOn(paper: Letterhead, members: Fields, human: Human | undefined): Draft {
  return draftFrom({ ...sealed(paper, members, human), gw: paper.gw, log: paper.origin })
}
