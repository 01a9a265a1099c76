/** What is asked of the records: lists from the index, entries and their proofs from the log itself. */
import { type Entry, parseEntry } from '../audit/entries/entry.ts'
import { entriesAt } from '../audit/files/follow.ts'
import type { Unsealing } from '../audit/personal/personal.ts'
import { prove } from '../audit/verify/prove.ts'
import type { Database, SqlValue } from './database.ts'
import { countRecords, findRecords, foundOf } from './find.ts'
import type { Indexer } from './indexer.ts'
import type { Filter, Found, Lag, Page, Query, Told } from './query.ts'
import { COLUMNS } from './row.ts'

export interface RecordsOptions {
  readonly database: Database
  readonly indexer: Indexer
  /** Directory of the log that is on this machine, and its name. */
  readonly dir: string
  readonly origin: string
  /** What humans are called where their names are sealed. */
  readonly names?: Unsealing | undefined
}

export interface Which {
  readonly log: string
  readonly seq: number
}

export interface Records {
  /** @throws {GatewayError} `instruction_invalid` */
  find(query: Query): Promise<Page>
  count(filter: Filter): Promise<number>
  /** By id of the call or instruction, or by the number of an entry; undefined when the index has none. */
  tell(which: string | Which, o?: { readonly prove?: boolean }): Promise<Told | undefined>
  lag(): Promise<Lag>
}

const LISTED = COLUMNS.join(', ')

export function createRecords(o: RecordsOptions): Records {
  const { database, indexer, names } = o
  const open = <T>(value: T): T => names?.unseal(value) ?? value
  return {
    async find(query) {
      await names?.refresh()
      const [{ records, ...rest }, lag] = await Promise.all([
        findRecords(database, query, names?.sealedForms),
        indexer.lag(),
      ])
      return { records: records.map(open), ...rest, lag }
    },
    async count(filter) {
      await names?.refresh()
      return countRecords(database, filter, names?.sealedForms)
    },
    async tell(which, { prove: shallProve = false } = {}) {
      await names?.refresh()
      const found = await recordOf(database, which)
      if (!found) return undefined
      const { entries, proofs } = await told(o, found, shallProve)
      return { found: open(found), entries: entries.map(open), ...(shallProve && { proofs }) }
    },
    lag: () => indexer.lag(),
  }
}

async function recordOf(database: Database, which: string | Which): Promise<Found | undefined> {
  // A refused answer has an entry of its own beside those of its call: the call comes first.
  const [sql, values]: [string, SqlValue[]] =
    typeof which === 'string'
      ? ["req = ? ORDER BY CASE kind WHEN 'call' THEN 0 ELSE 1 END, seq", [which]]
      : ['log = ? AND (seq = ? OR end_seq = ?) ORDER BY seq', [which.log, which.seq, which.seq]]
  const sqlText = `SELECT ${LISTED} FROM records WHERE ${sql} LIMIT 1`
  const [row] = await database.all<Record<string, string | number | null>>(sqlText, values)
  return row && foundOf(row)
}

async function told(
  o: RecordsOptions,
  found: Found,
  shallProve: boolean,
): Promise<{ entries: Entry[]; proofs: string[] }> {
  if (found.log !== o.origin) return { entries: [], proofs: [] }
  const seqs = [...new Set([found.seq, found.end_seq ?? found.seq])]
  const bytes = (await entriesAt(o.dir, seqs)).filter((one) => one !== undefined)
  const entries = bytes.map((one) => parseEntry(one)).filter((entry) => entry !== undefined)
  const proofs: string[] = []
  if (shallProve) for (const { seq } of entries) proofs.push(await prove(o.dir, seq))
  return { entries, proofs }
}
