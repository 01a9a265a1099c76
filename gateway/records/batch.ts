/** Entries that are put into the index together: decision and outcome of a call become one row, whichever batch they come in. */
import type { Entry } from '../audit/entries/entry.ts'
import type { Database } from './database.ts'
import { type End, endOf, type GrantRow, grantRowOf, type LeaseRow, leaseRowOf } from './living.ts'
import { type Actor, actorsIn, COLUMNS, type Row, rowOf, withOutcome } from './row.ts'
import { termsOf } from './terms.ts'

/** Values that one question asks for. */
const CHUNK = 500

export interface Gathered {
  readonly records: readonly { readonly row: Row; readonly terms: readonly string[] }[]
  /** Chain → everyone in it. */
  readonly chains: ReadonlyMap<string, readonly Actor[]>
  readonly grants: readonly GrantRow[]
  readonly leases: readonly LeaseRow[]
  readonly ends: readonly End[]
}

interface Draft {
  row: Row
  readonly actors: readonly Actor[]
}

export class Batch {
  readonly #log: string
  /** By `req` for calls, by number for others. */
  readonly #drafts = new Map<string | number, Draft>()
  readonly #orphans = new Map<string, Draft>()
  readonly #chains = new Map<string, readonly Actor[]>()
  readonly #grants: GrantRow[] = []
  readonly #leases: LeaseRow[] = []
  readonly #ends: End[] = []
  #size = 0

  constructor(log: string) {
    this.#log = log
  }

  /** Entries in it. */
  get size(): number {
    return this.#size
  }

  add(entry: Entry): void {
    this.#size++
    const draft = { row: rowOf(entry, this.#log), actors: actorsIn(entry) }
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

  #end(req: string, outcome: Draft): void {
    const decided = this.#drafts.get(req)
    if (decided) decided.row = withOutcome(decided.row, outcome.row)
    else this.#orphans.set(req, outcome)
  }

  /** Everything as it is to be stored. Outcomes whose decisions came in an earlier batch are completed from the index. */
  async gathered(database: Database): Promise<Gathered> {
    const reqs = [...this.#orphans.keys()]
    for (let at = 0; at < reqs.length; at += CHUNK) await this.#adopt(database, reqs.slice(at, at + CHUNK))
    const drafts = [...this.#drafts.values(), ...this.#orphans.values()]
    return {
      records: drafts.map(({ row, actors }) => ({ row, terms: termsOf(row, namesOf(actors)) })),
      chains: this.#chains,
      grants: this.#grants,
      leases: this.#leases,
      ends: this.#ends,
    }
  }

  async #adopt(database: Database, reqs: readonly string[]): Promise<void> {
    const asked = reqs.map(() => '?').join(', ')
    const sql = `SELECT ${COLUMNS.join(', ')} FROM records WHERE log = ? AND kind = 'call' AND req IN (${asked})`
    for (const row of await database.all<Row>(sql, [this.#log, ...reqs])) {
      const orphan = this.#orphans.get(row.req ?? '')
      if (orphan) orphan.row = withOutcome(row, orphan.row)
    }
  }
}

function namesOf(actors: readonly Actor[]): string[] {
  return actors.map(({ id }) => id)
}
