/** Orders to revoke, as the index knows them: what they ended shows as ended, by which order, and how fast it was. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { foundLine } from '../../gateway/cli/log/found-words.ts'
import { investigationInWords } from '../../gateway/cli/log/investigate-words.ts'
import { sloInWords } from '../../gateway/cli/report-words.ts'
import type { IssuedView } from '../../gateway/protocol/control.ts'
import type { RevocationTarget } from '../../gateway/protocol/revocation.ts'
import { Batch } from '../../gateway/records/batch.ts'
import type { Database } from '../../gateway/records/database.ts'
import { openSqlite } from '../../gateway/records/database-sqlite.ts'
import { findRecords } from '../../gateway/records/find.ts'
import { grantById } from '../../gateway/records/granted.ts'
import { investigate } from '../../gateway/records/investigate.ts'
import { lineageOf } from '../../gateway/records/lineage-tree.ts'
import { slo } from '../../gateway/records/report-slo.ts'
import { storeBatch } from '../../gateway/records/storing.ts'
import { entriesOf } from '../invariant/services.fixture.ts'
import { agentId, openScene, policies, READ, type Scene } from './scene.fixture.ts'

let scene: Scene
let database: Database
const grants: Record<string, IssuedView> = {}
const id = (name: string) => grants[name]?.grant ?? ''

beforeAll(async () => {
  scene = await openScene(['lead', 'child', 'other', 'last'], policies(READ))
  const { human } = await scene.gateway.control.openTask({
    agent: agentId('last'),
    scope: 'demo:notes.list',
    purpose: 'who am I',
  })
  const order = (target: RevocationTarget) =>
    scene.gateway.gateway.house.revocations.order({
      target,
      reason: 'found on a paste site',
      by: { human: { iss: 'https://id.test', sub: human } },
    })
  grants.lead = await scene.open('lead', 'demo:notes.list')
  grants.child = await scene.delegate(grants.lead, 'child', 'demo:notes.list')
  grants.other = await scene.open('other', 'demo:notes.list')
  grants.handle = await scene.open('other', 'demo:notes.list')
  await scene.call(grants.child, 'GET', '/notes')
  await order({ agent: agentId('lead') })
  grants.anew = await scene.open('lead', 'demo:notes.list') // in the same second, most likely
  await order({ grant: grants.handle.handle ?? '' })
  grants.task = await scene.open('other', 'demo:notes.list')
  await order({ task: grants.task.task })
  await scene.call(grants.other, 'GET', '/notes')
  database = await scene.index()
}, 60_000)

afterAll(async () => {
  await database?.close()
  await scene?.stop()
})

it('an order about an agent ends its grants and those below them, and nothing that came later or is of others', async () => {
  for (const name of ['lead', 'child', 'handle', 'task'])
    expect((await grantById(database, id(name)))?.ended, name).toEqual(expect.any(Number))
  for (const name of ['anew', 'other']) expect((await grantById(database, id(name)))?.ended, name).toBeNull()
})

it('the tree of a task and an investigation name the order', async () => {
  const tree = JSON.stringify(await lineageOf(database, grants.lead?.task ?? '', Date.now()))
  expect(tree).toContain(`revoked by an order about agent ${agentId('lead')}`)
  const found = await investigate(
    database,
    { subject: { kind: 'grant', id: id('child') }, span: {} },
    { nowMs: Date.now() },
  )
  expect(found?.noted).toMatchObject([{ kind: 'revocation.ordered', detail: { facts: { target: 'agent' } } }])
  expect(found && investigationInWords(found)).toMatch(/revocation\.ordered +target agent, name \S+lead, by human/)
})

it('the mean time to revoke counts orders', async () => {
  const report = await slo(database, {})
  expect(report.revocation).toMatchObject({
    revocations: 3,
    late_calls: 0,
    isMet: true,
    orders: { given: 3, failed: 0 },
  })
  expect(report.revocation.orders.p99_ms).toBeLessThan(1000)
  expect(sloInWords(report)).toContain('3 orders to revoke')
})

it('orders can be found, and say on one line what they are about', async () => {
  const { records } = await findRecords(database, { kind: 'revocation.ordered', limit: 10 })
  expect(records).toHaveLength(3)
  expect(records.map(foundLine).join('\n')).toContain(`target agent, name ${agentId('lead')}, by human`)
})

it('an order about a handle names the grant in the log, never the handle', async () => {
  const entries = JSON.stringify(await entriesOf(scene.gateway.settings.dataDir))
  expect(entries).not.toContain(grants.handle?.handle)
  expect(entries).toContain(`"name":"${id('handle')}"`)
})

it.each(['everything', 'human', 'policy_set'] as const)(
  'an order about %s that is read before the grant ends it too',
  async (target) => {
    const of = openSqlite(`${scene.dir}/late-${target}.sqlite`)
    const at = (seconds: number) => new Date(1_790_000_000_000 + seconds * 1000).toISOString()
    const common = { v: 'ar/1', tenant: 'acme', gw: { node: 'n' } }
    const human = { iss: 'https://id.test', sub: 'ana' }
    const order = {
      ...{ ...common, seq: 0, log: 'one', ts: at(10), kind: 'revocation.ordered' },
      ...(target === 'human' && { human }),
      facts: { order: 'o', target, by: 'human', ...(target === 'policy_set' && { name: 'sha256:a' }) },
    }
    const grant = (name: string, seconds: number) => ({
      ...{ ...common, seq: seconds, log: 'two', ts: at(seconds), kind: 'grant.issued', human, lineage_hash: name },
      decision: { effect: 'allow', policy_ids: [], policy_set: 'sha256:a' },
      lineage: [
        { n: 0, type: 'human', id: 'ana' },
        { n: 1, type: 'ai_agent', id: 'bot', grant: name },
      ],
      grant: { id: name, authority: [], issued: 1_790_000_000 + seconds, expires: 1_790_000_900 },
    })
    for (const entries of [[order], [grant('before', 5), grant('after', 15)]]) {
      const batch = new Batch(entries[0]?.log ?? '')
      for (const entry of entries) batch.add(entry as unknown as Parameters<Batch['add']>[0])
      const gathered = await batch.gathered(of)
      await of.transaction((writer) => storeBatch(writer, of.dialect, gathered))
    }
    expect((await grantById(of, 'before'))?.ended_by).toBe('one:0')
    expect((await grantById(of, 'after'))?.ended).toBeNull()
    await of.close()
  },
)
