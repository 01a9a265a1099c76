/** The index answers what the log says: every filter, in both databases, and page by page while the log grows. */
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readCursor } from '../../gateway/records/matching.ts'
import { type Index, openIndex } from '../../gateway/records/opening.ts'
import type { Filter, Query } from '../../gateway/records/query.ts'
import { createRecords, type Records } from '../../gateway/records/records.ts'
import { manualClock } from '../rig/clock.ts'
import { startPostgres, type TestPostgres } from '../rig/postgres.ts'
import { createTestLog, happening, pools, type TestLog } from './entries.fixture.ts'
import { scan } from './naive.fixture.ts'

const clock = manualClock()

let postgres: TestPostgres
beforeAll(async () => {
  postgres = await startPostgres()
}, 60_000)
afterAll(() => postgres.stop())

interface Open {
  readonly index: Index
  readonly records: Records
}

async function open(log: TestLog, dialect: 'sqlite' | 'postgres'): Promise<Open> {
  const at = dialect === 'sqlite' ? { path: join(log.dir, '..', 'index.sqlite') } : { url: await postgres.fresh() }
  const { dir, origin } = log
  const index = await openIndex({ dir, origin, at, clock })
  return { index, records: createRecords({ ...index, dir, origin }) }
}

const one = <T>(values: readonly T[]) => fc.option(fc.constantFrom(...values), { nil: undefined })
const START_MS = Date.parse('2026-11-22T10:00:00.000Z')

/** Values that are there, values that are nearly there, and values that mean something to a database. */
const filters: fc.Arbitrary<Filter> = fc
  .record({
    human: one([...pools.human, 'https://id.test ana', 'local:here ana b', 'https://id.test']),
    agent: one([...pools.agent, 'spiffe://acme.test/']),
    task: one(pools.task),
    ancestor: one([...pools.human, ...pools.agent, ...pools.grant]),
    grant: one([...pools.grant, 'g']),
    service: one(['github', 'git', 'GitHub']),
    operation: one([...pools.operation, 'github:*', 'github:issues.*', '*']),
    host: one([...pools.host, '*.github.com', '*.com', '*github.com']),
    status: one(['200', '404', '4xx', '2xx', '5xx', '403']),
    effect: one(['allow', 'deny'] as const),
    kind: one(['call', 'grant.issued', 'grant.*', 'lease.*', 'call.*', 'call.decision', '*']),
    credential: one([...pools.credential, 'hmac:github']),
    trace: one(pools.trace),
    prompt: one(pools.prompt),
    text: one([
      'issue',
      'ISSUE 42',
      'invoice 7',
      'policy_denied',
      'curl',
      'acme site',
      'ünïcode',
      '日本',
      'file',
      'OR',
      'a AND NOT b',
      'sealed',
    ]),
    since: fc.option(fc.integer({ min: START_MS, max: START_MS + 41 }), { nil: undefined }),
    until: fc.option(fc.integer({ min: START_MS, max: START_MS + 41 }), { nil: undefined }),
    tenant: one(['acme', 'other']),
    log: one(['keyless.local/acme', 'other']),
  })
  .map((all) => Object.entries(all).filter(([, value]) => value !== undefined))
  // Few at once: with many, nothing is ever found.
  .chain((entries) => fc.subarray(entries, { maxLength: Math.min(3, entries.length) }))
  .map((entries) => Object.fromEntries(entries) as Filter)

async function allPages(records: Records, query: Query): Promise<number[]> {
  const seqs: number[] = []
  for (let after: string | undefined, left = 1000; left > 0; left--) {
    const page = await records.find({ ...query, ...(after !== undefined && { after }) })
    seqs.push(...page.records.map(({ seq }) => seq))
    after = page.next
    if (after === undefined) return seqs
  }
  throw new Error('the pages have no end')
}

describe.each(['sqlite', 'postgres'] as const)('an index in %s', (dialect) => {
  it('answers every filter with exactly what reading all of the log finds, in the order of time', async () => {
    const log = await createTestLog()
    await log.append(fc.sample(happening, { seed: 42, numRuns: 180 }).flat())
    const { index, records } = await open(log, dialect)
    await index.indexer.catchUp()
    let found = 0
    await fc.assert(
      fc.asyncProperty(filters, fc.constantFrom(20, 1000), fc.boolean(), async (filter, limit, isOldest) => {
        const expected = scan(log.entries, filter)
        found += expected.length
        const got = await allPages(records, { ...filter, limit, order: isOldest ? 'oldest' : 'newest' })
        expect(isOldest ? got : got.reverse()).toEqual(expected)
        expect(await records.count(filter)).toBe(expected.length)
      }),
      { numRuns: dialect === 'sqlite' ? 100 : 50 },
    )
    expect(found).toBeGreaterThan(500)
    await index.database.close()
    await log.remove()
  })

  it('loses and repeats nothing from page to page while the log grows', async () => {
    const log = await createTestLog()
    await log.append(fc.sample(happening, { seed: 7, numRuns: 60 }).flat())
    const { index, records } = await open(log, dialect)
    await index.indexer.catchUp()
    const before = scan(log.entries, {}).reverse()
    const seen: number[] = []
    let after: string | undefined
    do {
      const page = await records.find({ limit: 9, ...(after !== undefined && { after }) })
      seen.push(...page.records.map(({ seq }) => seq))
      after = page.next
      const later = fc.sample(happening, { seed: seen.length, numRuns: 5 }).flat()
      await log.append(
        later.map((draft) => ({ ...draft, ts: '2026-11-22T11:00:00.000Z', req: `${seen.length} ${draft.req}` })),
      )
      await index.indexer.catchUp()
    } while (after !== undefined)
    expect(seen).toEqual(before)
    await index.database.close()
    await log.remove()
  })

  it('has the same rows whether it read the log at once or an entry at a time', async () => {
    const drafts = fc.sample(happening, { seed: 3, numRuns: 25 }).flat()
    const [atOnce, slowly] = [await createTestLog(), await createTestLog()]
    const [first, second] = [await open(atOnce, dialect), await open(slowly, dialect)]
    await atOnce.append(drafts)
    await first.index.indexer.catchUp()
    for (const draft of drafts) {
      await slowly.append([draft])
      await second.index.indexer.catchUp()
    }
    for (const table of ['records', 'chains', 'grants', 'leases', 'ends', 'progress'])
      expect(await rowsOf(second.index, table), table).toEqual(await rowsOf(first.index, table))
    for (const filter of fc.sample(filters, { seed: 1, numRuns: 10 }))
      expect(await allPages(second.records, { ...filter, limit: 100 })).toEqual(
        await allPages(first.records, { ...filter, limit: 100 }),
      )
    for (const { index } of [first, second]) await index.database.close()
    for (const log of [atOnce, slowly]) await log.remove()
  })
})

/** Without the places in files, which depend on how it was read. */
async function rowsOf({ database }: Index, table: string): Promise<string[]> {
  const columns: Record<string, string> = {
    records: 'log, seq, end_seq, ts, kind, req, human, agent, grant_id, status, credential, detail, chain',
    progress: 'log, next, ts, leaf',
  }
  const rows = await database.all(`SELECT ${columns[table] ?? '*'} FROM ${table}`)
  return rows.map((row) => JSON.stringify(row)).sort()
}

describe('a query', () => {
  it('is refused with what is allowed, when nothing could match it', async () => {
    const log = await createTestLog()
    const { index, records } = await open(log, 'sqlite')
    for (const wrong of [
      { status: '40' },
      { trace: 'abc' },
      { text: '!' },
      { prompt: 'secret' },
      { limit: 0 },
      { limit: 1001 },
      { after: 'x' },
    ])
      await expect(records.find({ limit: 10, ...wrong }), JSON.stringify(wrong)).rejects.toMatchObject({
        code: 'instruction_invalid',
      })
    await index.database.close()
    await log.remove()
  })

  it('takes no place in a list that is none', () => {
    for (const cursor of ['', 'null', '[1]', '[1,2]', '["1",2,"x"]', '[1,2,3]', '{}', '[1e400,2,"x"]'])
      expect(() => readCursor(Buffer.from(cursor).toString('base64url'))).toThrow(/allowed is "next"/)
  })
})
