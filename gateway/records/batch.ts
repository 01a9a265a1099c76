/** Entries that are put into the index together: decision and outcome of a call become one row, whichever batch they come in. */
import { type Entry, parseEntry } from '../audit/entries/entry.ts'
import { Calls, type Draft, type Ended, namesOf } from './calls.ts'
import type { Database } from './database.ts'
import { type End, endOf, type GrantRow, grantRowOf, type LeaseRow, leaseRowOf } from './living.ts'
import { type Actor, actorsIn, COLUMNS, type Row, rowOf, withOutcome } from './row.ts'
import { termsOf } from './terms.ts'

/** Values that one question asks for. */
const CHUNK = 500

export interface Gathered {
  /** In the order of `id`; `terms` divided by blanks. */
  readonly records: readonly { readonly row: Row; readonly terms: string }[]
  /** Chain → everyone in it. */
  readonly chains: ReadonlyMap<string, readonly Actor[]>
  readonly grants: readonly GrantRow[]
  readonly leases: readonly LeaseRow[]
  readonly ends: readonly End[]
}

export class Batch {
  readonly #log: string
  readonly #calls: Calls
  /** By `req` for calls, by number for others. */
  readonly #drafts = new Map<string | number, Draft>()
  readonly #orphans = new Map<string, Draft>()
  readonly #chains = new Map<string, readonly Actor[]>()
  readonly #grants: GrantRow[] = []
  readonly #leases: LeaseRow[] = []
  readonly #ends: End[] = []
  #size = 0

  /** @param calls what was read before it helps to read this. */
  constructor(log: string, calls = new Calls(log)) {
    this.#log = log
    this.#calls = calls
  }

  /** Entries in it. */
  get size(): number {
    return this.#size
  }

  /** @param bytes canonical bytes of one entry. @throws {Error} when they are none. */
  read(bytes: Buffer): void {
    const text = bytes.toString('utf8')
    if (!this.#isDecision(text) && !this.#isEnd(text)) this.add(parsed(bytes))
  }

  add(entry: Entry): void {
    this.#size++
    const draft: Draft = { row: rowOf(entry, this.#log), actors: actorsIn(entry), terms: undefined }
    const { row, actors } = draft
    if (row.chain !== null) this.#chains.set(row.chain, actors)
    if (entry.kind === 'call.outcome' && row.req !== null) {
      this.#end(row.req, draft)
      return
    }
    this.#drafts.set(row.kind === 'call' && row.req !== null ? row.req : row.seq, draft)
    const grant = grantRowOf(entry, row, actors)
    const lease = leaseRowOf(entry, row)
    if (grant) this.#grants.push(grant)
    if (lease) this.#leases.push(lease)
    this.#ends.push(...endOf(entry, row))
  }

  #isDecision(text: string): boolean {
    const draft = this.#calls.decided(text)
    if (draft === undefined) return false
    this.#size++
    const { row, actors } = draft
    if (row.chain !== null) this.#chains.set(row.chain, actors)
    this.#drafts.set(row.req ?? row.seq, draft)
    return true
  }

  /** The end of a call that began in this batch; any other is read whole. */
  #isEnd(text: string): boolean {
    const ended = this.#calls.ended(text)
    const decided = ended && this.#drafts.get(ended.req)
    if (ended === undefined || decided?.row.kind !== 'call') return false
    this.#size++
    decided.terms = joined(decided, ended)
    Object.assign(decided.row, ended.ending)
    return true
  }

  #end(req: string, outcome: Draft): void {
    const decided = this.#drafts.get(req)
    if (decided === undefined) {
      this.#orphans.set(req, outcome)
      return
    }
    decided.row = withOutcome(decided.row, outcome.row)
    decided.terms = undefined
  }

  /** Everything as it is to be stored. Outcomes whose decisions came in an earlier batch are completed from the index. */
  async gathered(database: Database): Promise<Gathered> {
    const reqs = [...this.#orphans.keys()]
    for (let at = 0; at < reqs.length; at += CHUNK) await this.#adopt(database, reqs.slice(at, at + CHUNK))
    const drafts = [...this.#drafts.values(), ...this.#orphans.values()]
    // The posting lists of SQLite begin anew, and have to be merged, wherever an id is lower than the one before.
    drafts.sort((a, b) => a.row.ts - b.row.ts || a.row.seq - b.row.seq)
    return {
      records: drafts.map(({ row, actors, terms }) => ({
        row,
        terms: terms ?? termsOf(row, namesOf(actors)).join(' '),
      })),
      chains: this.#chains,
      grants: this.#grants,
      leases: this.#leases,
      ends: this.#ends,
    }
  }

  async #adopt(database: Database, reqs: readonly string[]): Promise<void> {
    const asked = reqs.map(() => '?').join(', ')
    // By `req` alone: with the log beside it, SQLite reads every record of the log instead.
    const sql = `SELECT ${COLUMNS.join(', ')} FROM records WHERE req IN (${asked})`
    for (const row of await database.all<Row>(sql, reqs)) {
      const orphan = this.#orphans.get(row.req ?? '')
      if (orphan && row.kind === 'call' && row.log === this.#log) orphan.row = withOutcome(row, orphan.row)
    }
  }
}

/** What a call is found by with its end, unless something else was said of its end before. */
function joined({ row, terms }: Draft, ended: Ended): string | undefined {
  const isFirst = row.status === null && row.end_seq === null && row.credential === null && row.cred_id === null
  return isFirst && terms !== undefined && ended.terms !== undefined ? `${terms} ${ended.terms}` : undefined
}

export function parsed(bytes: Buffer): Entry {
  const entry = parseEntry(bytes)
  if (!entry) throw new Error('The log holds a line that is no entry. Run "keyless log verify" to find it.')
  return entry
}
