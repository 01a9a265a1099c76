/** Sealed values of replicas, in Postgres: durable by itself, for fleets that have one. Values are sealed before they come here. */
import { Pool, type QueryResultRow } from 'pg'
import { type SealedRow, type SealedRows, sealedStoreAway } from './sealed.ts'

const TABLE = 'keyless_sealed'
/** Two replicas that start together would make the table twice. */
const MAKE = `
  SELECT pg_advisory_xact_lock(1801812339);
  CREATE TABLE IF NOT EXISTS ${TABLE} (
    tenant text NOT NULL, name text NOT NULL, value bytea NOT NULL, version bigint NOT NULL,
    claimed_until timestamptz NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (tenant, name))`

const READ = `SELECT value, version FROM ${TABLE} WHERE tenant = $1 AND name = $2`
/** Above every version that a removed row of this name can have had. */
const ADD = `INSERT INTO ${TABLE} (tenant, name, value, version)
  VALUES ($1, $2, $3, floor(extract(epoch FROM clock_timestamp()) * 1000)) ON CONFLICT DO NOTHING RETURNING version`
const CHANGE = `UPDATE ${TABLE} SET value = $3, version = version + 1, claimed_until = '-infinity'
  WHERE tenant = $1 AND name = $2 AND version = $4 RETURNING version`
const REMOVE = `DELETE FROM ${TABLE} WHERE tenant = $1 AND name = $2 AND version = $3 RETURNING version`
const CLAIM = `UPDATE ${TABLE} SET version = version + 1, claimed_until = clock_timestamp() + make_interval(secs => $3::float8 / 1000)
  WHERE tenant = $1 AND name = $2 AND claimed_until <= clock_timestamp() RETURNING value, version`

const CONNECT_MS = 2_000
const STATEMENT_MS = 2_000

export function openPostgresSealed(url: string): SealedRows {
  const pool = new Pool({
    connectionString: url,
    application_name: 'keyless',
    max: 2,
    connectionTimeoutMillis: CONNECT_MS,
    statement_timeout: STATEMENT_MS,
    query_timeout: 2 * STATEMENT_MS,
    idleTimeoutMillis: 60_000,
    allowExitOnIdle: true,
  })
  pool.on('error', () => undefined) // said where it is used next
  let made: Promise<unknown> | undefined
  const ask = async (sql: string, values: readonly unknown[]): Promise<QueryResultRow | undefined> =>
    (await all(sql, values))[0]
  async function all(sql: string, values: readonly unknown[]): Promise<QueryResultRow[]> {
    try {
      made ??= pool.query(MAKE)
      await made.catch((cause: unknown) => {
        made = undefined
        throw cause
      })
      return (await pool.query(sql, [...values])).rows
    } catch {
      throw sealedStoreAway('Postgres') // its texts may hold the URL
    }
  }
  return {
    read: async ({ tenant, name }) => rowOf(await ask(READ, [tenant, name])),
    async write({ tenant, name }, value, expected) {
      const done =
        value === null
          ? await ask(REMOVE, [tenant, name, expected])
          : expected === 0
            ? await ask(ADD, [tenant, name, value])
            : await ask(CHANGE, [tenant, name, value, expected])
      return done === undefined ? undefined : Number(done.version)
    },
    async claim({ tenant, name }, forMs) {
      const row = rowOf(await ask(CLAIM, [tenant, name, forMs]))
      return row ?? ((await ask(READ, [tenant, name])) === undefined ? undefined : 'taken')
    },
    places: async () =>
      (await all(`SELECT tenant, name FROM ${TABLE}`, [])).map(({ tenant, name }) => ({ tenant, name })),
    close: () => pool.end(),
  }
}

function rowOf(row: QueryResultRow | undefined): SealedRow | undefined {
  return row && { value: row.value as Buffer, version: Number(row.version) }
}
