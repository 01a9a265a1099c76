/**
 * A table in Postgres, one row an entry, made when it is not there. The key is (log, seq): what is sent again changes nothing.
 * Connects when there is something to deliver, and again after an error.
 */
import pg from 'pg'
import type { Format } from './format.ts'
import type { Item } from './item.ts'
import { Refusal, type Sink, Unavailable } from './sink.ts'

const CONNECT_TIMEOUT_MS = 10_000
const STATEMENT_TIMEOUT_MS = 60_000
/** Data exceptions and violated constraints (appendix A of the manual): the same rows would fail again. */
const REFUSALS = /^(?:22|23)/

export interface PostgresSinkOptions {
  /** May hold a password: never printed. */
  readonly url: string
  readonly table: string
  readonly format: Format
}

export function createPostgresSink({ url, table, format }: PostgresSinkOptions): Sink {
  let client: pg.Client | undefined // written only by `deliver`, its error listener and `close`
  const release = async () => {
    const held = client
    client = undefined
    await held?.end().catch(() => {})
  }
  const connect = async (): Promise<pg.Client> => {
    const made = new pg.Client({
      connectionString: url,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      query_timeout: STATEMENT_TIMEOUT_MS,
      application_name: 'keyless export',
    })
    // Between two deliveries the server may go away: the next one connects again.
    made.on('error', () => {
      if (client === made) client = undefined
    })
    await made.connect()
    await made.query(tableOf(table, format))
    return made
  }
  return {
    async deliver(items) {
      try {
        client ??= await connect()
        await client.query(insertInto(table, format), columnsOf(items, format))
      } catch (cause) {
        const { code = '', message } = cause as Error & { code?: string }
        if (REFUSALS.test(code)) throw new Refusal(`Postgres ${code}: ${message}`)
        await release()
        throw new Unavailable(`Postgres${code === '' ? '' : ` ${code}`}: ${message}`)
      }
    },
    close: release,
  }
}

/** The name is checked where settings are read: letters, digits and underscores. */
function tableOf(table: string, { rowType }: Format): string {
  return `CREATE TABLE IF NOT EXISTS ${table} (
    log TEXT NOT NULL, seq BIGINT NOT NULL, ts TIMESTAMPTZ NOT NULL, kind TEXT NOT NULL,
    event ${rowType === 'json' ? 'JSONB' : 'TEXT'} NOT NULL, PRIMARY KEY (log, seq))`
}

function insertInto(table: string, { rowType }: Format): string {
  return `INSERT INTO ${table} (log, seq, ts, kind, event)
    SELECT log, seq, ts, kind, event FROM ROWS FROM
      (unnest($1::text[]), unnest($2::bigint[]), unnest($3::timestamptz[]), unnest($4::text[]), unnest($5::${rowType === 'json' ? 'jsonb' : 'text'}[]))
      AS given (log, seq, ts, kind, event)
    ON CONFLICT (log, seq) DO NOTHING`
}

function columnsOf(items: readonly Item[], { row }: Format): unknown[] {
  const entries = items.map(({ entry }) => entry)
  return [
    entries.map(({ log }) => log ?? ''),
    entries.map(({ seq }) => seq),
    entries.map(({ ts }) => ts),
    entries.map(({ kind }) => kind),
    items.map((item) => withoutNul(row(item))),
  ]
}

/** Postgres has no U+0000 in texts. Whoever puts one into a purpose must not keep the entry from arriving. */
function withoutNul(row: string): string {
  return row.replaceAll(/(?<!\\)((?:\\\\)*)\\u0000/g, '$1\\ufffd').replaceAll('\u0000', '\ufffd')
}
