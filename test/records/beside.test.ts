/** What was given beside a grant, to an agent that asked for more, is shown as ended when what ended is that grant, its agent or its human. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Batch } from '../../gateway/records/batch.ts'
import type { Database } from '../../gateway/records/database.ts'
import { openPostgres } from '../../gateway/records/database-postgres.ts'
import { openSqlite } from '../../gateway/records/database-sqlite.ts'
import { grantById } from '../../gateway/records/granted.ts'
import { storeBatch } from '../../gateway/records/storing.ts'
import { startPostgres, type TestPostgres } from '../rig/postgres.ts'

const at = (seconds: number) => new Date(1_790_000_000_000 + seconds * 1000).toISOString()
const common = { v: 'ar/1', tenant: 'acme', gw: { node: 'n' } }
const ana = { iss: 'https://id.test', sub: 'ana' }

interface Given {
  readonly seq: number
  readonly log?: string
  readonly human?: string
  readonly agents: readonly string[]
  readonly beside?: string
}

const grant = (name: string, { seq, log = 'one', human = 'ana', agents, beside }: Given) => ({
  ...{ ...common, seq, log, ts: at(seq), kind: 'grant.issued', human: { ...ana, sub: human }, lineage_hash: name },
  decision: { effect: 'allow', policy_ids: [], policy_set: `sha256:${name}` },
  lineage: [{ type: 'human', id: human }, ...agents.map((id) => ({ type: 'ai_agent', id, grant: `${name}-${id}` }))],
  grant: { id: name, authority: [], issued: 1_790_000_000 + seq, expires: 1_790_000_900 },
  facts: beside === undefined ? {} : { beside },
})
const order = (facts: object) => ({
  ...{ ...common, seq: 8, log: 'one', ts: at(8), kind: 'revocation.ordered', human: ana },
  facts: { order: 'o', by: 'human', ...facts },
})

const asked = grant('asked', { seq: 1, agents: ['lead', 'child'] })
const more = grant('more', { seq: 2, human: 'ben', agents: ['child'], beside: 'asked' })
const further = grant('further', { seq: 3, human: 'cy', agents: ['child'], beside: 'more' })
const other = grant('other', { seq: 4, human: 'ben', agents: ['child'] })

let postgres: TestPostgres
let dir: string
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'keyless-beside-'))
  postgres = await startPostgres()
}, 60_000)
afterAll(async () => {
  await postgres?.stop()
  await rm(dir, { recursive: true, force: true })
})

const opens = {
  SQLite: async (name: string) => openSqlite(join(dir, `${name}.sqlite`)),
  Postgres: async () => openPostgres(await postgres.fresh()),
}

const reads: Readonly<Record<string, (end: object) => readonly (readonly object[])[]>> = {
  'after the grants': (end) => [[asked, more, further, other], [end]],
  'with them': (end) => [[asked, more, further, other, end]],
  'before what was given, in the log of another': (end) => [
    [asked, end],
    [more, further, other].map((one) => ({ ...one, log: 'two' })),
  ],
}

describe.each(Object.keys(opens) as (keyof typeof opens)[])('%s', (name) => {
  const cases = Object.keys(reads).flatMap((when) =>
    ([{ target: 'agent', name: 'lead' }, { target: 'human' }, { target: 'grant', name: 'asked' }] as const).map(
      (facts) => [facts.target, when, facts] as const,
    ),
  )
  it.each(cases)('by an order about the %s of the one beside it, read %s', async (target, when, facts) => {
    const database = await opens[name](`${target}-${when}`)
    for (const entries of reads[when]?.(order(facts)) ?? []) await store(database, entries)
    for (const id of ['asked', 'more', 'further']) expect((await grantById(database, id))?.ended_by, id).toBe('one:8')
    expect((await grantById(database, 'other'))?.ended).toBeNull()
    await database.close()
  })

  it('but not by one about the policies of the one beside it, which ends what was issued under them', async () => {
    const database = await opens[name]('policies')
    await store(database, [asked, more, order({ target: 'policy_set', name: 'sha256:asked' })])
    expect((await grantById(database, 'asked'))?.ended_by).toBe('one:8')
    expect((await grantById(database, 'more'))?.ended).toBeNull()
    await database.close()
  })
})

async function store(database: Database, entries: readonly object[]) {
  const batch = new Batch('one')
  for (const entry of entries) batch.add(entry as Parameters<Batch['add']>[0])
  const gathered = await batch.gathered(database)
  await database.transaction((writer) => storeBatch(writer, database.dialect, gathered))
}
