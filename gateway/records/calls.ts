/**
 * The two entries of a call, read by their parts. Entries are canonical, so who called, under which grant, what policy said and
 * where it went is the same text in many calls: it is parsed once. An entry of any other shape is left to `row.ts`, which reads
 * every one, and comes to the same (`test/records/calls.test.ts`).
 */
import { parseEntry } from '../audit/entries/entry.ts'
import { type Actor, actorsIn, clean, type Ending, endingOf, type Members, type Row, rowOf, traceIn } from './row.ts'
import { MAX_WORDS, term, termsOf, termsOfEnd, wordTerms } from './terms.ts'

/** What is to become a row of `records`. */
export interface Draft {
  row: Row
  readonly actors: readonly Actor[]
  /** Divided by blanks; undefined: to be made from the row. */
  terms: string | undefined
}

/** What an outcome adds to the row of its call. */
export interface Ended {
  readonly req: string
  readonly ending: Ending
  /** Undefined: to be made from the row. */
  readonly terms: string | undefined
}

/** What a decision says beside its id, number, path, trace and time. */
interface Frame {
  readonly row: Row
  readonly actors: readonly Actor[]
  readonly terms: string
  /** How many terms these are. */
  readonly count: number
}

/** A credential, as outcomes have it. */
interface Used {
  readonly cred: Members
  /** Status → terms; undefined: to be made from the row. */
  readonly terms: Map<number | null, string | undefined>
}

/** Of 1 to 3 KB each. */
const MAX_FRAMES = 2048
const MAX_USED = 4096
/** Terms that an end may add, or they are made from the row. */
const MAX_END_TERMS = 64

const ID_CHARS = 36
const CRED = '{"cred":'
const REQ = ',"req":"'
const SEQ = '","seq":'
const TARGET = ',"target":{'
const PATH = ',"path":"'
const PORT = '","port":'
const QUERY = ',"query_hash":"'
const TRACE = ',"trace":"'
const OUTCOME = ',"outcome":'
const TS = ',"ts":"'
const END = '","v":"ar/1"}'
const TS_FROM_END = TS.length + 24 + END.length

export class Calls {
  readonly #log: string
  readonly #frames = new Map<string, Frame>()
  readonly #used = new Map<string, Used>()
  /** Entries of one batch of the log have one time. */
  #time = { text: '', ms: Number.NaN }

  constructor(log: string) {
    this.#log = log
  }

  /**
   * A decision. No value has a bare quote in it, so a name that is looked for with its quotes is found as a name; and from `req`
   * on there is no member whose names others choose.
   * @returns undefined for whatever is not exactly what the gateway writes.
   */
  decided(text: string): Draft | undefined {
    if (!text.startsWith('{"client":{')) return undefined
    const seqAt = text.lastIndexOf(SEQ)
    const reqAt = seqAt - ID_CHARS
    const targetAt = text.indexOf(TARGET, seqAt)
    const pathAt = text.indexOf(PATH, targetAt)
    const portAt = text.indexOf(PORT, pathAt)
    const tsAt = text.length - TS_FROM_END
    const isInOrder = REQ.length < reqAt && seqAt < targetAt && targetAt < pathAt && pathAt < portAt && portAt < tsAt
    if (!isInOrder || !text.startsWith(REQ, reqAt - REQ.length)) return undefined
    if (!text.startsWith(TS, tsAt) || !text.endsWith(END)) return undefined
    const tracedAt = text.indexOf(TRACE, portAt)
    const traceAt = tracedAt < 0 ? tsAt : tracedAt
    const key = text.slice(0, reqAt) + text.slice(targetAt, pathAt) + withoutQuery(text.slice(portAt, traceAt))
    const frame = known(this.#frames, { key, most: MAX_FRAMES }, () => frameIn(text, this.#log))
    const seq = Number(text.slice(seqAt + SEQ.length, targetAt))
    const ts = this.#msOf(text.slice(tsAt + TS.length, -END.length))
    const path = unescaped(text.slice(pathAt + PATH.length, portAt))
    if (!frame || path === undefined || !Number.isSafeInteger(seq) || Number.isNaN(ts)) return undefined
    const trace = traceIn(text.slice(traceAt, tsAt))
    const row: Row = { ...frame.row, req: text.slice(reqAt, seqAt), seq, ts, path, trace }
    return { row, actors: frame.actors, terms: termsUnder(frame, path, trace) }
  }

  /** The outcome of a call that had a credential. @returns undefined for anything else. */
  ended(text: string): Ended | undefined {
    if (!text.startsWith(CRED)) return undefined
    const credEnd = text.indexOf('},"gw":{') + 1
    const kindAt = text.indexOf(',"kind":"call.outcome",', credEnd)
    const outcomeAt = text.indexOf(OUTCOME, kindAt)
    const seqAt = text.lastIndexOf(SEQ)
    const reqAt = seqAt - ID_CHARS
    const isInOrder = CRED.length < credEnd && credEnd < kindAt && kindAt < outcomeAt && outcomeAt < reqAt
    if (!isInOrder || !text.startsWith(REQ, reqAt - REQ.length)) return undefined
    const written = text.slice(CRED.length, credEnd)
    const used = known(this.#used, { key: written, most: MAX_USED }, () => usedIn(written))
    const outcome = membersIn(text.slice(outcomeAt + OUTCOME.length, reqAt - REQ.length))
    const seq = Number(text.slice(seqAt + SEQ.length, text.indexOf(',', seqAt + SEQ.length)))
    if (!used || !outcome || !Number.isSafeInteger(seq)) return undefined
    const ending = endingOf(used.cred, outcome, seq)
    return { req: text.slice(reqAt, seqAt), ending, terms: termsAtEnd(used, ending) }
  }

  #msOf(text: string): number {
    if (this.#time.text !== text) this.#time = { text, ms: Date.parse(text) }
    return this.#time.ms
  }
}

/** What was made of the same text before. What cannot be made is not kept. */
function known<T>(
  kept: Map<string, T>,
  { key, most }: { readonly key: string; readonly most: number },
  make: () => T | undefined,
): T | undefined {
  const before = kept.get(key)
  if (before !== undefined) return before
  const made = make()
  if (made === undefined) return undefined
  if (kept.size >= most) kept.clear()
  kept.set(key, made)
  return made
}

function frameIn(text: string, log: string): Frame | undefined {
  const entry = parseEntry(Buffer.from(text))
  if (entry?.kind !== 'call.decision') return undefined
  const actors = actorsIn(entry)
  const row: Row = { ...rowOf(entry, log), path: null, trace: null }
  const terms = termsOf(row, namesOf(actors))
  return { row, actors, terms: terms.join(' '), count: terms.length }
}

function usedIn(written: string): Used | undefined {
  const cred = membersIn(written)
  return cred && { cred, terms: new Map() }
}

/** Undefined when there might be more words than a record is found by. */
function termsUnder({ terms, count }: Frame, path: string, trace: string | null): string | undefined {
  const words = wordTerms(path)
  if (count + words.length + MAX_END_TERMS > MAX_WORDS) return undefined
  const all = words.length === 0 ? terms : `${terms} ${words.join(' ')}`
  return trace === null ? all : `${all} ${term('trace', trace)}`
}

/** An error is free text, and rare. */
function termsAtEnd({ terms }: Used, ending: Ending): string | undefined {
  if (ending.error !== null) return undefined
  if (!terms.has(ending.status)) {
    const made = termsOfEnd(ending)
    terms.set(ending.status, made.length > MAX_END_TERMS ? undefined : made.join(' '))
  }
  return terms.get(ending.status)
}

export function namesOf(actors: readonly Actor[]): string[] {
  return actors.map(({ id }) => id)
}

/** The members of a target from its port on; equal queries cannot be told from their hash without the key, so nobody looks for it. */
function withoutQuery(text: string): string {
  const at = text.indexOf(QUERY)
  return at < 0 ? text : text.slice(0, at) + text.slice(text.indexOf('"', at + QUERY.length))
}

function unescaped(written: string): string | undefined {
  if (!written.includes('\\')) return written
  const text = parsed(`"${written}"`)
  return typeof text === 'string' ? clean(text) : undefined
}

function membersIn(written: string): Members | undefined {
  const value = parsed(written)
  return typeof value === 'object' && value !== null ? (value as Members) : undefined
}

function parsed(written: string): unknown {
  try {
    return JSON.parse(written)
  } catch {
    return undefined
  }
}
