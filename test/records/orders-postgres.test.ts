/** The same statements on Postgres, which is stricter with types: an order ends what came before it, and nothing that came after. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { systemClock } from '../../gateway/protocol/clock.ts'
import { grantById } from '../../gateway/records/granted.ts'
import { openIndex } from '../../gateway/records/opening.ts'
import { slo } from '../../gateway/records/report-slo.ts'
import { startPostgres, type TestPostgres } from '../rig/postgres.ts'
import { createTestLog, type Draft } from './entries.fixture.ts'

const at = (seconds: number) => new Date(1_790_000_000_000 + seconds * 1000).toISOString()
const human = { iss: 'https://id.test', sub: 'ana' }
const grant = (name: string, seconds: number) =>
  ({
    ...{ ts: at(seconds), kind: 'grant.issued', req: name, tenant: 'acme', human, lineage_hash: name },
    decision: { effect: 'allow', policy_ids: [], policy_set: `sha256:${name}` },
    lineage: [
      { n: 0, type: 'human', id: 'ana' },
      { n: 1, type: 'ai_agent', id: `bot-${name}`, grant: name },
    ],
    grant: { id: name, authority: [], issued: 1_790_000_000 + seconds, expires: 1_790_000_900 },
  }) as unknown as Draft
const order = (facts: object, seconds: number) =>
  ({
    ts: at(seconds),
    kind: 'revocation.ordered',
    tenant: 'acme',
    human,
    facts: { by: 'human', ...facts },
  }) as unknown as Draft

let postgres: TestPostgres
beforeAll(async () => {
  postgres = await startPostgres()
}, 60_000)
afterAll(() => postgres.stop())

it.each([
  ['agent', 'bot-a'],
  ['policy_set', 'sha256:a'],
  ['human', undefined],
  ['everything', undefined],
])('an order about %s', async (target, name) => {
  const log = await createTestLog()
  await log.append([grant('a', 1), order({ target, ...(name && { name }) }, 2), grant('b', 2)])
  const { database, indexer } = await openIndex({
    ...{ dir: log.dir, origin: log.origin, clock: systemClock },
    at: { url: await postgres.fresh() },
  })
  await indexer.catchUp()
  expect((await grantById(database, 'a'))?.ended_by).toBe(`${log.origin}:1`)
  expect((await grantById(database, 'b'))?.ended).toBeNull()
  expect((await slo(database, {})).revocation.orders).toMatchObject({ given: 1 })
  await database.close()
  await log.remove()
})
