/**
 * The records of several replicas in one Postgres. Each version of the index has a schema of its own: during an upgrade the old
 * replicas go on with theirs. One connection reads, one writes; a lost one is made again at the next use.
 */
import { Client, type ClientConfig, types } from 'pg'
import type { Database, SqlValue, Writer } from './database.ts'
import { INDEX_VERSION, schemaOf } from './tables.ts'

const SCHEMA = `keyless_index_${INDEX_VERSION}`
/** A query that takes longer is given up: it holds the connection that others wait for. */
const STATEMENT_MS = 10_000
const CONNECT_MS = 5_000
/** Held while tables are made: two replicas that start together would make them twice. */
const LOCK = 0x6b_65_79_6c

/** Whole numbers as numbers: none is beyond 2^53. */
const NUMBERS: ReadonlySet<number> = new Set([types.builtins.INT8, types.builtins.NUMERIC])

/** @throws what the connection says, without its URL. */
export async function openPostgres(url: string): Promise<Database> {
  const reading = new Connection(url)
  const writing = new Connection(url)
  let last: Promise<unknown> = Promise.resolve()
  const writer: Writer = { run: async (sql, values) => (await writing.query(sql, values)).changed }
  await writing.query('SELECT 1')
  return {
    dialect: 'postgres',
    all: async <Row>(sql: string, values?: readonly SqlValue[]) => (await reading.query(sql, values)).rows as Row[],
    transaction(work) {
      const turn = last.then(() => transact(writing, () => work(writer)))
      last = turn.catch(() => undefined)
      return turn
    },
    async close() {
      await last
      await Promise.all([reading.close(), writing.close()])
    },
  }
}

async function transact<T>(connection: Connection, work: () => T | Promise<T>): Promise<T> {
  await connection.query('BEGIN')
  try {
    const result = await work()
    await connection.query('COMMIT')
    return result
  } catch (cause) {
    await connection.query('ROLLBACK').catch(() => connection.drop())
    throw cause
  }
}

class Connection {
  readonly #options: ClientConfig
  #client: Promise<Client> | undefined

  constructor(url: string) {
    this.#options = {
      connectionString: url,
      application_name: 'keyless',
      connectionTimeoutMillis: CONNECT_MS,
      statement_timeout: STATEMENT_MS,
      // A server that went away without a word is not waited for.
      query_timeout: 2 * STATEMENT_MS,
      keepAlive: true,
      types: {
        getTypeParser: ((oid, format) =>
          NUMBERS.has(oid) ? Number : types.getTypeParser(oid, format)) as typeof types.getTypeParser,
      },
    }
  }

  async query(sql: string, values: readonly SqlValue[] = []): Promise<{ rows: unknown[]; changed: number }> {
    this.#client ??= this.#connect()
    const connecting = this.#client
    try {
      const client = await connecting
      const { rows, rowCount } = await client.query(numbered(sql), [...values])
      return { rows, changed: rowCount ?? 0 }
    } catch (cause) {
      // An error of a statement has a SQLSTATE; without one the connection is not to be trusted.
      const state = (cause as { code?: string }).code
      if (this.#client === connecting && !(state !== undefined && /^(?!08|57)[0-9A-Z]{5}$/.test(state))) this.drop()
      throw cause
    }
  }

  drop(): void {
    const client = this.#client
    this.#client = undefined
    client?.then((open) => open.end()).catch(() => undefined)
  }

  async close(): Promise<void> {
    const client = await this.#client?.catch(() => undefined)
    this.#client = undefined
    await client?.end()
  }

  async #connect(): Promise<Client> {
    const client = new Client(this.#options)
    client.on('error', () => this.drop()) // said where the connection is used next
    await client.connect()
    await client.query(`SELECT pg_advisory_lock(${LOCK})`)
    try {
      await client.query(`CREATE SCHEMA IF NOT EXISTS ${SCHEMA}; SET search_path TO ${SCHEMA}`)
      for (const statement of schemaOf('postgres')) await client.query(statement)
    } finally {
      await client.query(`SELECT pg_advisory_unlock(${LOCK})`)
    }
    return client
  }
}

/** Texts of statements → the same with `$1`, `$2`, … Statements hold no question marks but those of values. */
const texts = new Map<string, string>()

function numbered(sql: string): string {
  const known = texts.get(sql)
  if (known !== undefined) return known
  let n = 0
  const text = sql.replaceAll('?', () => `$${++n}`)
  if (texts.size < 1000) texts.set(sql, text)
  return text
}
