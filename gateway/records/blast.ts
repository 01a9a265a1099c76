/** What else is touched if this is lost: whoever used the same credentials, what else came from the same parents, what came after. */
import type { Database } from './database.ts'
import { among, type Granted, grantsWhere, type Ref } from './granted.ts'
import { type Inquiry, merged, SEEN, type Seen, type SeenRow } from './inquiry.ts'

/** Grants that share something with those in question. */
export interface Sharer extends Seen {
  readonly grant: string | null
  readonly agent: string | null
  readonly task: string | null
}

export interface SharedCredential {
  readonly credential: string | null
  readonly cred_id: string
  readonly ephemeral: boolean | null
  /** Milliseconds since the epoch; null for a key that does not end. */
  readonly expires: number | null
  readonly used_by: readonly Sharer[]
}

export interface Relative {
  readonly grant: string
  readonly entry: Ref
  readonly agent: string | null
  readonly task: string | null
  readonly isLiving: boolean
}

export interface Blast {
  /** Credentials used under these grants, and which other grants used them. */
  readonly credentials: readonly SharedCredential[]
  /** Other children of the same parents. */
  readonly siblings: readonly Relative[]
  /** What was delegated from these grants, by whomever it is held. */
  readonly descendants: readonly Relative[]
}

interface SharerRow extends SeenRow {
  readonly cred_id: string
  readonly credential: string | null
  readonly ephemeral: number | null
  readonly expires: number | null
  readonly grant_id: string | null
  readonly agent: string | null
  readonly task: string | null
}

const RELATIVES_SHOWN = 100

export async function blastOf(database: Database, inquiry: Inquiry, nowMs: number): Promise<Blast> {
  const { grants } = inquiry
  const own = new Set(grants.map(({ id }) => id))
  const ids = JSON.stringify([...own])
  const parents = JSON.stringify([...new Set(grants.flatMap(({ parent }) => parent ?? []))])
  const siblings = await grantsWhere(database, among(database, 'parent'), [parents], RELATIVES_SHOWN)
  const below = `chain IN (SELECT chain FROM chains WHERE ${among(database, 'actor')} AND kind = 'grant')`
  const descendants = await grantsWhere(database, below, [ids], RELATIVES_SHOWN)
  const relative = (one: Granted): Relative => ({
    grant: one.id,
    entry: one.entry,
    agent: one.agent,
    task: one.task,
    isLiving: one.ended === null && one.expires > nowMs,
  })
  return {
    credentials: await sharedCredentials(database, inquiry, own),
    siblings: siblings.filter(({ id }) => !own.has(id)).map(relative),
    descendants: descendants.filter(({ id, depth }) => depth > 0 && !isTopmost(id, inquiry)).map(relative),
  }
}

/** The grants asked about themselves; of a task or an agent, those that came from no other. */
function isTopmost(id: string, { subject, grants }: Inquiry): boolean {
  if (subject.kind === 'grant') return id === subject.id
  const known = new Set(grants.map((one) => one.id))
  return grants.some((one) => one.id === id && !known.has(one.parent ?? ''))
}

async function sharedCredentials(
  database: Database,
  { calls }: Inquiry,
  own: ReadonlySet<string>,
): Promise<SharedCredential[]> {
  const rows = await database.all<SharerRow>(
    `SELECT ${SEEN}, cred_id, credential, ephemeral, MAX(cred_expires) AS expires, grant_id, agent, task FROM records
     WHERE kind = 'call' AND cred_id IN (SELECT cred_id FROM records WHERE ${calls.sql} AND cred_id IS NOT NULL)
     GROUP BY log, cred_id, credential, ephemeral, grant_id, agent, task`,
    calls.values,
  )
  return [...Map.groupBy(rows, ({ cred_id }) => cred_id)].map(([cred_id, group]) => {
    const [head] = group
    const isEphemeral = head?.ephemeral == null ? null : head.ephemeral === 1
    const others = group.filter(({ grant_id }) => !own.has(grant_id ?? ''))
    return {
      credential: head?.credential ?? null,
      cred_id,
      ephemeral: isEphemeral,
      expires: isEphemeral ? Math.max(...group.map(({ expires }) => expires ?? 0)) : null,
      used_by: merged(others, ({ grant_id }) => grant_id).map(({ grant_id, agent, task, ...row }) => ({
        grant: grant_id,
        agent,
        task,
        ...{ calls: row.calls, first: row.first, last: row.last },
        ...{ first_entry: row.first_entry, last_entry: row.last_entry },
      })),
    }
  })
}
