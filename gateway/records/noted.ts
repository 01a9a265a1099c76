/** What people and rules did about some grants: consent asked for and given, orders that ended them, odd habits, emergencies. */
import type { Database } from './database.ts'
import { among, type Ref, refOf } from './granted.ts'
import { type Inquiry, within } from './inquiry.ts'

export interface Noted {
  readonly entry: Ref
  readonly ts: number
  readonly kind: string
  /** Who did it; of a request, for whom it was made. Null: the gateway by itself. */
  readonly human: string | null
  readonly detail: Readonly<Record<string, unknown>>
}

const SHOWN = 100

/** Newest first. */
export async function notedOf(database: Database, { grants, span }: Inquiry): Promise<Noted[]> {
  const about = `(kind LIKE 'approval.%' OR kind LIKE 'breakglass.%' OR kind = 'revocation.anomaly') AND ${among(database, 'grant_id')}`
  const ends = `kind LIKE 'revocation.%' AND ${among(database, "log || ':' || seq")}`
  const { sql, values } = within(
    {
      sql: `((${about}) OR (${ends}))`,
      values: [
        JSON.stringify(grants.map(({ id }) => id)),
        JSON.stringify([...new Set(grants.flatMap(({ ended_by }) => ended_by ?? []))]),
      ],
    },
    span,
  )
  const rows = await database.all<
    Omit<Noted, 'entry' | 'detail'> & { log: string; seq: number; detail: string | null }
  >(`SELECT log, seq, ts, kind, human, detail FROM records WHERE ${sql} ORDER BY ts DESC LIMIT ${SHOWN}`, values)
  return rows.map(({ log, seq, detail, ...row }) => ({
    ...row,
    entry: refOf({ log, seq }),
    detail: detail === null ? {} : JSON.parse(detail),
  }))
}
