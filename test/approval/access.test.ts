/** Requests for access of two replicas over one Redis: one human decides once, one fetch gets it, and no crash gives more than was given. */
import { createSecretKey, randomBytes } from 'node:crypto'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { AccessDesk, type AccessOptions } from '../../gateway/approval/access.ts'
import type { Grant, Human } from '../../gateway/protocol/grant.ts'
import { asGatewayError, GatewayError } from '../../gateway/protocol/problem.ts'
import { documentsIn } from '../../gateway/provider/sealed/documents.ts'
import { openRedisSealed } from '../../gateway/provider/sealed/redis.ts'
import { createSealed } from '../../gateway/provider/sealed/sealed.ts'
import { grant } from '../policy/policy.fixture.ts'
import { manualClock } from '../rig/clock.ts'
import { startRedis, type TestRedis } from '../rig/redis.ts'

const key = createSecretKey(randomBytes(32))
const lead: Human = { iss: 'https://id.test', sub: 'lead' }
const clock = manualClock()

let redis: TestRedis
let connection: Redis
/** Of every desk, in order. */
let log: { readonly kind: string; readonly facts: object }[] = []
let refuse: string | undefined
let prefix = 0

beforeAll(async () => {
  redis = await startRedis()
  connection = new Redis(redis.url)
})
afterAll(async () => {
  connection.disconnect()
  await redis.stop()
})
beforeEach(() => {
  log = []
  refuse = undefined
  prefix += 1
})

function desk(more: Partial<AccessOptions> = {}): AccessDesk {
  const rows = openRedisSealed({ redis: connection, prefix: `${redis.prefix}${prefix}` })
  const keys = { current: async () => ({ id: 0, key }), find: async () => key }
  const note = (kind: string) => async (_by: unknown, facts: object) => {
    if (refuse === kind) throw new GatewayError('audit_unavailable', 'The disk is full.')
    log.push({ kind, facts })
  }
  return new AccessDesk({
    tenant: 'acme',
    documents: documentsIn(createSealed({ rows, keys, tenant: 'acme' }), 'access/'),
    maxPerHour: 120,
    check: async () => {},
    mayGrant: ({ iss, sub }) => iss === lead.iss && sub === lead.sub,
    log: { requested: note('requested'), edited: note('edited'), decided: note('decided') },
    clock,
    ...more,
  })
}

const by = (human: Human) => ({ human, via: 'page' })
const holder: Grant = grant({ agent: { id: 'triage', owner: 'o', purpose: 'p', riskTier: 'low' } })
const root = holder.human
const wanted = { scope: 'github:issues.create', reason: 'why' }
const codes = async (works: readonly Promise<unknown>[]) =>
  (await Promise.all(works.map((work) => work.then(() => 'done', asGatewayError)))).map((one) =>
    one === 'done' ? one : (one as GatewayError).code,
  )

it('is decided by one of two humans who decide at once at two replicas, and the log knows one', async () => {
  const [one, other] = [desk(), desk()]
  for (let round = 0; round < 8; round++) {
    const { id } = await one.ask(holder, { ...wanted, ttl_s: round + 1 })
    const said = await codes([one.grant(id, by(lead)), other.deny(id, by(root))])
    expect(said.toSorted()).toEqual(['approval_closed', 'done'])
    const { state } = await other.get(id)
    expect(state).toBe(said[0] === 'done' ? 'granted' : 'denied')
    const decided = log.filter(({ kind }) => kind === 'decided')
    expect(decided).toMatchObject([{ facts: { verdict: state === 'granted' ? 'grant' : 'deny' } }])
    log = []
  }
})

it('is asked five times by one agent and no more, however many it asks at once, and the same one once', async () => {
  const one = desk()
  const asks = Array.from({ length: 30 }, (_, n) => one.ask(holder, { ...wanted, ttl_s: 1 + (n % 15) }))
  const said = await codes(asks)
  expect(said.filter((code) => code === 'done')).toHaveLength(10)
  expect(await one.pending()).toHaveLength(5)
  expect(log).toHaveLength(5)
})

it('is asked so often in an hour and no more, by one agent and in one task, whatever became of it', async () => {
  const child: Grant = { ...holder, agent: { ...holder.agent, id: 'child' } }
  const elsewhere: Grant = { ...holder, task: { ...holder.task, id: 'task_other' } }
  const stranger: Grant = { ...child, task: elsewhere.task }
  for (let n = 1; n <= 3; n++) {
    const { id } = await desk({ maxPerHour: 3 }).ask(n === 2 ? child : holder, { ...wanted, ttl_s: n })
    if (n < 3) await desk().deny(id, by(lead))
  }
  const asked = [holder, child, elsewhere].map((one) => desk({ maxPerHour: 3 }).ask(one, { ...wanted, ttl_s: 9 }))
  expect(await codes(asked)).toEqual(['too_many_requests', 'too_many_requests', 'done'])
  expect(await codes([desk({ maxPerHour: 3 }).ask(stranger, { ...wanted, ttl_s: 10 })])).toEqual(['done'])
  clock.advance(60 * 60_000)
  expect(await codes([desk({ maxPerHour: 3 }).ask(holder, { ...wanted, ttl_s: 11 })])).toEqual(['done'])
})

it('is granted as it was seen, and not as somebody else changed it since', async () => {
  const { id } = await desk().ask(holder, wanted)
  const seen = (await desk().get(id)).wanted
  await desk().edit(id, { scope: 'github:*' }, by(lead))
  const late = [desk().grant(id, by(root), seen), desk().grant(id, by(root))] // from a page, and by a command
  expect(await codes(late)).toEqual(['approval_closed', 'approval_closed'])
  expect(log.filter(({ kind }) => kind === 'decided')).toEqual([])
  await desk().edit(id, seen, by(root))
  expect((await desk().grant(id, by(root))).state).toBe('granted')
  expect((await desk().handOver(holder, id)).wanted).toEqual(seen)
})

it('is granted as another human changed it where that is what was seen', async () => {
  const { id } = await desk().ask(holder, wanted)
  const { wanted: seen } = await desk().edit(id, { scope: 'github:issues.read' }, by(lead))
  expect((await desk().grant(id, by(root), seen)).state).toBe('granted')
})

it('gives nothing once settings took who granted it out of those who may', async () => {
  const { id } = await desk().ask(holder, wanted)
  await desk().grant(id, by(lead))
  const after = desk({ mayGrant: () => false })
  expect(await codes([after.handOver(holder, id)])).toEqual(['approval_closed'])
  expect((await after.get(id)).state).toBe('granted')
})

it('is fetched once, however many fetch it at once', async () => {
  const [one, other] = [desk(), desk()]
  const { id } = await one.ask(holder, wanted)
  await other.grant(id, by(lead))
  const said = await codes(Array.from({ length: 10 }, (_, i) => (i % 2 ? one : other).handOver(holder, id)))
  expect(said.filter((code) => code === 'done')).toHaveLength(1)
  expect(new Set(said)).toEqual(new Set(['done', 'approval_closed']))
})

it('gives nothing when the process dies between handing over and making, and can be fetched again when making failed', async () => {
  const { id } = await desk().ask(holder, wanted)
  await desk().grant(id, by(lead))
  expect(await desk().handOver(holder, id)).toEqual({ wanted: { scope: wanted.scope }, human: lead })
  expect(await codes([desk().handOver(holder, id)])).toEqual(['approval_closed'])
  await desk().takeBack(id)
  expect(await codes([desk().handOver(holder, id)])).toEqual(['done'])
})

it('takes no effect that is not in the log', async () => {
  refuse = 'requested'
  expect(await codes([desk().ask(holder, wanted)])).toEqual(['audit_unavailable'])
  expect(await desk().pending()).toEqual([])
  refuse = undefined
  const { id } = await desk().ask(holder, wanted)
  refuse = 'decided'
  expect(await codes([desk().grant(id, by(lead))])).toEqual(['audit_unavailable'])
  refuse = undefined
  expect(await desk().get(id)).toMatchObject({ state: 'pending' })
  expect(await codes([desk().grant(id, by(lead))])).toEqual(['done']) // nobody holds it
})

it('is decided by the human that the agent works for or whom settings name, never by an agent or anybody else', async () => {
  const { id } = await desk().ask(holder, wanted)
  const agents = holder.lineage.filter(({ type }) => type === 'ai_agent').map((step) => ({ iss: 'x', sub: step.id }))
  for (const human of [...agents, { iss: lead.iss, sub: 'other' }, { iss: 'https://evil.test', sub: lead.sub }]) {
    const works = [
      desk().grant(id, by(human)),
      desk().deny(id, by(human)),
      desk().edit(id, { scope: 'x:*' }, by(human)),
    ]
    expect(await codes(works)).toEqual(Array(3).fill('approver_refused'))
  }
  expect(await codes([desk().grant(id, by(root))])).toEqual(['done'])
})

it('is handed to the same agent in the same task with the same key, and to nobody else', async () => {
  const bound: Grant = { ...holder, cnf: { jkt: 'k'.repeat(43) } }
  const { id } = await desk().ask(bound, wanted)
  await desk().grant(id, by(lead))
  const { cnf: _, ...keyless } = bound
  const others: Grant[] = [
    keyless,
    { ...bound, cnf: { jkt: 'l'.repeat(43) } },
    { ...bound, task: { ...bound.task, id: 'task_other' } },
    { ...bound, agent: { ...bound.agent, id: 'other' } },
    { ...bound, tenant: 'other' },
  ]
  expect(await codes(others.map((one) => desk().handOver(one, id)))).toEqual(others.map(() => 'approval_unknown'))
  expect(await codes([desk().handOver({ ...bound, id: 'renewed' }, id)])).toEqual(['done'])
})

it('runs out: nobody can grant it after an hour, or fetch it a quarter of an hour after that was done', async () => {
  const late = await desk().ask(holder, wanted)
  const granted = await desk().ask(holder, { ...wanted, ttl_s: 60 })
  await desk().grant(granted.id, by(lead))
  clock.advance(15 * 60_000)
  expect(await codes([desk().handOver(holder, granted.id)])).toEqual(['approval_closed'])
  clock.advance(45 * 60_000)
  expect(await codes([desk().grant(late.id, by(lead))])).toEqual(['approval_closed'])
  expect(await desk().pending()).toEqual([])
  clock.advance(2 * 60 * 60_000)
  await desk().ask(holder, { ...wanted, ttl_s: 61 })
  expect(await codes([desk().get(late.id)])).toEqual(['approval_unknown'])
})

it('is refused by policy before anybody is told that it was granted', async () => {
  const strict = desk({
    check: async (_beside, _wanted, human) => {
      if (human !== undefined) throw new GatewayError('policy_denied', 'Not by this human.')
    },
  })
  const { id } = await strict.ask(holder, wanted)
  expect(await codes([strict.grant(id, by(lead))])).toEqual(['policy_denied'])
  expect(log.map(({ kind }) => kind)).toEqual(['requested'])
  expect(await strict.get(id)).toMatchObject({ state: 'pending' })
})
