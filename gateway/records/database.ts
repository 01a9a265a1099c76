/** What the records need of a database: one SQL for SQLite and Postgres, `?` for values in both. */

export type SqlValue = string | number | null | Uint8Array

export interface Writer {
  /** Run a statement; its values are bound in order. @returns how many rows it changed. */
  run(sql: string, values?: readonly SqlValue[]): number | Promise<number>
}

export interface Database {
  readonly dialect: 'sqlite' | 'postgres'
  /** Rows with columns by name. Integers above 2^53 do not occur. */
  all<Row>(sql: string, values?: readonly SqlValue[]): Promise<Row[]>
  /** All or nothing; one at a time. */
  transaction<T>(work: (writer: Writer) => T | Promise<T>): Promise<T>
  close(): Promise<void>
}
