/** The life of a task: intent, steps, suspension, resumption, the end; who may say so; what a crash leaves. */
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openRedisStore } from '../../gateway/grant/store/redis.ts'
import type { GrantStore } from '../../gateway/grant/store/store.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'
import type { GrantRequest, Instruction, IssuedGrant, Mandate } from '../../gateway/protocol/instruction.ts'
import { manualClock } from '../rig/clock.ts'
import { startRedis, type TestRedis } from '../rig/redis.ts'
import {
  asClient,
  extract,
  identities,
  newHolderKey,
  openWorld,
  research,
  search,
  type World,
  workloadOf,
} from './delegate.fixture.ts'
import { about, freshStore, human, presenting } from './grant.fixture.ts'

const code = (expected: string) => expect.objectContaining({ code: expected })
const given = (issued: IssuedGrant, by: Mandate = { human }) => ({
  id: uuidv7(),
  tenant: 'acme',
  task: issued.grant.task.id,
  by,
})
const intent = (issued: IssuedGrant, purpose: string, request: GrantRequest = {}, by?: Mandate): Instruction => ({
  kind: 'task.intent',
  ...given(issued, by),
  purpose,
  request,
})
const held = (issued: IssuedGrant): Mandate => ({ holder: issued.grant })
const uses = async (world: World, issued: IssuedGrant) =>
  world.grants.authenticate(presenting(issued.handle ?? issued.token))
const isDead = (world: World, issued: IssuedGrant, why = 'grant_revoked') =>
  expect(uses(world, issued)).rejects.toEqual(code(why))

/** root ─ child ─ leaf, and a sibling of the child. */
async function family(world: World) {
  const root = await world.open({ scope: 'github:*', ttlS: 600 })
  const child = await world.child(root, search)
  const leaf = await world.child(child, extract)
  const sibling = await world.child(root, extract)
  return { root, child, leaf, sibling }
}

describe('a changed intent', () => {
  it('ends the old grant with everything below it, and issues one under the new intent', async () => {
    const world = openWorld()
    const { root, child, leaf, sibling } = await family(world)
    const fresh = await world.do(intent(root, 'escalate', { scope: 'github:issues.read' }))
    for (const old of [root, child, leaf, sibling]) await isDead(world, old)
    expect(world.ended.map(({ id }) => id).sort()).toEqual(
      [root, child, leaf, sibling].map(({ grant }) => grant.id).sort(),
    )
    expect(fresh?.grant).toMatchObject({
      task: { id: root.grant.task.id, purpose: 'escalate' },
      authority: [{ operations: ['github:issues.read'] }],
      depth: 0,
    })
    expect(await uses(world, fresh as IssuedGrant)).toMatchObject({ id: fresh?.grant.id })
    expect(await world.grants.list('acme')).toMatchObject([{ root: { id: fresh?.grant.id } }])
  })

  it('is proposed anew, so that policy decides with the new purpose', async () => {
    const world = openWorld()
    const root = await world.open()
    expect(await world.propose(intent(root, 'escalate'))).toMatchObject({
      kind: 'grant.replace',
      reason: 'intent_changed',
      old: { id: root.grant.id },
      grant: { task: { purpose: 'escalate' } },
      authority: root.grant.authority,
    })
    expect(await uses(world, root)).toMatchObject({ id: root.grant.id }) // nothing has happened yet
  })

  it('of a holder stays within what the human authorised, in everything', async () => {
    const world = openWorld()
    const root = await world.open({ scope: 'github:*', ttlS: 600, maxDepth: 1, trace: 'a'.repeat(32) })
    const wider: GrantRequest[] = [{ scope: 'openai:*' }, { ttlS: 601 }, { maxDepth: 2 }, { trace: 'b'.repeat(32) }]
    for (const request of wider)
      await expect(world.do(intent(root, 'more', request, held(root))), JSON.stringify(request)).rejects.toEqual(
        code('invalid_scope'),
      )
    const less = await world.do(intent(root, 'less', { scope: 'github:issues.read' }, held(root)))
    expect(less?.grant.expiresAt).toBe(root.grant.expiresAt)
    // What was authorised for the task is still there to be asked for; nothing else is.
    const back = await world.do(intent(root, 'back', { scope: 'github:*' }, held(less as IssuedGrant)))
    expect(back?.grant.authority).toEqual([{ operations: ['github:*'] }])
  })

  it('of the human is a new authority: a holder cannot go back behind it', async () => {
    const world = openWorld()
    const root = await world.open({ scope: 'github:*' })
    const fresh = (await world.do(intent(root, 'only read', { scope: 'github:issues.read' }))) as IssuedGrant
    await expect(world.do(intent(root, 'wide', { scope: 'github:*' }, held(fresh)))).rejects.toEqual(
      code('invalid_scope'),
    )
    const other = (await world.do(intent(root, 'another service', { scope: 'openai:*' }))) as IssuedGrant
    expect(other.grant.authority).toEqual([{ operations: ['openai:*'] }])
  })

  it('does not make a grant live longer than the one before, when its holder asks', async () => {
    const world = openWorld()
    const root = await world.open({ scope: 'github:*', ttlS: 600 })
    world.clock.advance(500_000)
    const fresh = await world.do(intent(root, 'again', {}, held(root)))
    expect(fresh?.grant.expiresAt).toBe(root.grant.expiresAt)
    const renewed = await world.do(intent(root, 'again', {}))
    expect(renewed?.grant.expiresAt).toBeGreaterThan(root.grant.expiresAt)
  })

  it('keeps the key and what was proved of the workload', async () => {
    const world = openWorld()
    const { jkt } = newHolderKey()
    const root = await world.open({ scope: 'github:*', cnf: { jkt } })
    const fresh = await world.do(intent(root, 'on', {}, held(root)))
    expect(fresh?.grant.cnf).toEqual({ jkt })
    expect(fresh).not.toHaveProperty('handle')
  })

  it('of two at once happens once', async () => {
    const world = openWorld()
    const root = await world.open()
    const both = await Promise.all([world.propose(intent(root, 'one')), world.propose(intent(root, 'two'))])
    const made = await Promise.allSettled(both.map((proposal) => world.grants.perform(proposal, {})))
    expect(made.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    const { grants: living } = await world.grants.task('acme', root.grant.task.id)
    expect(living).toHaveLength(1)
  })

  it('is not declared for a human by another one', async () => {
    const world = openWorld()
    const root = await world.open()
    const bo = { human: { iss: 'local:test', sub: 'bo' } }
    await expect(world.do(intent(root, 'mine', {}, bo))).rejects.toEqual(code('delegation_refused'))
    await expect(world.do({ kind: 'task.complete', ...given(root, bo), reason: 'revoked' })).resolves.toBeNull()
  })
})

describe('a step', () => {
  it('takes the grants that belong to it along when it ends, and no others', async () => {
    const world = openWorld()
    const root = await world.open()
    const one = await world.child(root, search, { step: 'load', preset: 'training-batch' })
    const below = await world.child(one, extract)
    const two = await world.child(root, search, { step: 'train', preset: 'training-batch' })
    await world.do({ kind: 'task.step_complete', ...given(root), step: 'load' })
    await isDead(world, one)
    await isDead(world, below)
    expect(world.ended.map(({ id }) => id).sort()).toEqual([one.grant.id, below.grant.id].sort())
    for (const alive of [root, two]) expect(await uses(world, alive)).toMatchObject({ id: alive.grant.id })
  })

  it('is over for good: no grant is made for it afterwards', async () => {
    const world = openWorld()
    const root = await world.open()
    await world.child(root, search, { step: 'load' })
    const end = { kind: 'task.step_complete', ...given(root), step: 'load' } as const
    await world.do(end)
    await expect(world.child(root, search, { step: 'load' })).rejects.toEqual(code('grant_revoked'))
    await expect(world.do({ ...end, id: uuidv7() })).rejects.toEqual(code('step_unknown'))
    await expect(world.do({ ...end, step: 'never' })).rejects.toEqual(code('step_unknown'))
  })

  it('may be ended by who works on it, not by who works on another', async () => {
    const world = openWorld()
    const root = await world.open()
    const one = await world.child(root, search, { step: 'load' })
    const two = await world.child(root, extract, { step: 'train' })
    const end = (by: IssuedGrant, step: string) =>
      world.do({ kind: 'task.step_complete', ...given(root, held(by)), step })
    await expect(end(two, 'load')).rejects.toEqual(code('delegation_refused'))
    await end(one, 'load')
    await isDead(world, one)
    await end(root, 'train')
    await isDead(world, two)
  })
})

describe('suspension', () => {
  const suspend = (issued: IssuedGrant, by?: Mandate): Instruction => ({ kind: 'task.suspend', ...given(issued, by) })
  const resume = (issued: IssuedGrant, changes: object = {}): Instruction =>
    ({ kind: 'task.resume', ...given(issued), ...changes }) as Instruction

  it('parks every grant of the task and drops their credentials', async () => {
    const world = openWorld()
    const { root, child, leaf, sibling } = await family(world)
    await uses(world, child)
    await world.do(suspend(root))
    for (const parked of [root, child, leaf, sibling]) await isDead(world, parked, 'task_suspended')
    expect(world.ended).toHaveLength(4)
    expect(await world.grants.list('acme')).toMatchObject([{ state: 'suspended' }])
    await expect(world.do(suspend(root))).rejects.toEqual(code('instruction_invalid'))
    await expect(world.do(intent(root, 'on'))).rejects.toEqual(code('instruction_invalid'))
    await expect(world.child(root, search)).rejects.toEqual(code('task_suspended'))
  })

  it('needs no heartbeats, and outlives its grants', async () => {
    const world = openWorld()
    const opening = { kind: 'task.open', id: uuidv7(), tenant: 'acme', human, agent: research.id } as const
    const root = (await world.do({
      ...opening,
      purpose: 'wait for approval',
      request: { scope: 'github:*', ttlS: 60 },
      heartbeat: true,
    })) as IssuedGrant
    await world.do(suspend(root))
    world.clock.advance(6 * 3600_000)
    expect(await world.grants.overdue()).toEqual([])
    const fresh = (await world.do(resume(root))) as IssuedGrant
    expect(await uses(world, fresh)).toMatchObject({ id: fresh.grant.id })
    expect(await world.grants.overdue()).toEqual([]) // the silence is counted from here
    world.clock.advance(31_000)
    expect(await world.grants.overdue()).toMatchObject([{ id: fresh.grant.id }])
  })

  it('ends with a fresh grant; those from before stay dead', async () => {
    const world = openWorld()
    const { root, child } = await family(world)
    await world.do(suspend(root))
    expect(await world.propose(resume(root))).toMatchObject({
      kind: 'grant.replace',
      reason: 'resumed',
      old: root.grant,
    })
    const fresh = (await world.do(resume(root, { ttlS: 120 }))) as IssuedGrant
    expect(fresh.grant.expiresAt - fresh.grant.issuedAt).toBe(120)
    expect(fresh.grant).toMatchObject({ authority: root.grant.authority, task: root.grant.task })
    for (const old of [root, child]) await isDead(world, old)
    expect(await uses(world, fresh)).toMatchObject({ id: fresh.grant.id })
    await expect(world.do(resume(root))).rejects.toEqual(code('instruction_invalid'))
  })

  it('and every other change is refused to a client that shows neither socket nor grant', async () => {
    const world = openWorld()
    const root = await world.open({ scope: 'github:*', step: 'one' })
    const nobody: Mandate = { client: asClient(research) }
    const told = given(root, nobody)
    for (const instruction of [
      suspend(root, nobody),
      intent(root, 'something else', {}, nobody),
      { kind: 'task.complete', ...told, reason: 'completed' },
      { kind: 'task.step_complete', ...told, step: 'one' },
    ] as const)
      await expect(world.do(instruction), instruction.kind).rejects.toEqual(code('grant_missing'))
    await expect(world.grants.heartbeat(told)).rejects.toEqual(code('grant_missing'))
    expect(await uses(world, root)).toMatchObject({ id: root.grant.id })
  })

  it('does not end without the workload proving itself again', async () => {
    const world = openWorld()
    const root = await world.open()
    await world.do(suspend(root))
    await expect(world.do(resume(root, { by: { client: {} } }))).rejects.toEqual(code('client_invalid'))
    await expect(world.do(resume(root, { by: { client: asClient(search) } }))).rejects.toEqual(code('task_unknown'))
    const bo = { human: { iss: 'local:test', sub: 'bo' } }
    await expect(world.do(resume(root, { by: bo }))).rejects.toEqual(code('delegation_refused'))
    const fresh = await world.do(resume(root, { by: { client: asClient(research) } }))
    expect(fresh?.grant).toMatchObject({ attested: true, instance: 'pod-1' })
  })

  it('does not loosen a grant that was bound to a key', async () => {
    const world = openWorld()
    const { jkt } = newHolderKey()
    const root = await world.open({ scope: 'github:*', cnf: { jkt } })
    await world.do(suspend(root))
    const client = asClient(research)
    await expect(world.do(resume(root, { by: { client } }))).rejects.toEqual(code('dpop_invalid'))
    const next = newHolderKey()
    const fresh = await world.do(resume(root, { by: { client, jkt: next.jkt } }))
    expect(fresh?.grant.cnf).toEqual({ jkt: next.jkt })
  })

  it('binds to a certificate only what was bound to one, or what no other key is proved for', async () => {
    const certificate = { 'x5t#S256': 'c'.repeat(43) }
    const client = async () => workloadOf(research.id, { cnf: certificate })
    const world = openWorld({ identities: { ...identities, client } })
    const { jkt } = newHolderKey()
    const back = async (cnf: GrantRequest['cnf'], proved: { jkt?: string }) => {
      const root = await world.open({ scope: 'github:*', ...(cnf && { cnf }) })
      await world.do(suspend(root))
      const fresh = await world.do(resume(root, { by: { client: asClient(research), ...proved } }))
      return fresh?.grant.cnf
    }
    expect(await back(undefined, {})).toBeUndefined()
    expect(await back(certificate, {})).toEqual(certificate)
    expect(await back({ jkt }, { jkt })).toEqual({ jkt })
    expect(await back({ jkt }, {})).toEqual(certificate)
  })

  it('is over after a week, and can be completed meanwhile for good', async () => {
    const world = openWorld()
    const [one, two] = [await world.open(), await world.open()]
    await world.do(suspend(one))
    await world.do(suspend(two))
    await world.do({ kind: 'task.complete', ...given(two), reason: 'completed' })
    for (const ms of [2 * 3600_000, 24 * 3600_000]) {
      world.clock.advance(ms)
      await expect(world.do(resume(two))).rejects.toEqual(code('task_unknown')) // its end is not forgotten before it is
    }
    world.clock.advance(7 * 24 * 3600_000)
    await expect(world.do(resume(one))).rejects.toEqual(code('task_unknown'))
  })

  it('and its end are asked for by the root grant’s holder alone', async () => {
    const world = openWorld()
    const { root, child } = await family(world)
    const other = await world.open()
    await expect(world.do(suspend(root, held(child)))).rejects.toEqual(code('delegation_refused'))
    await expect(world.do(suspend(root, held(other)))).rejects.toEqual(code('task_unknown'))
    const ending = { kind: 'task.complete', reason: 'completed' } as const
    await expect(world.do({ ...ending, ...given(root, held(child)) })).rejects.toEqual(code('delegation_refused'))
    await expect(world.do({ ...ending, ...given(root, held(other)) })).rejects.toEqual(code('task_unknown'))
    await expect(world.grants.heartbeat({ ...about(root.grant), by: held(child) })).rejects.toEqual(
      code('delegation_refused'),
    )
    await world.do(suspend(root, held(root)))
  })
})

describe('the end of a task', () => {
  it('ends the whole subtree, and lets go of everything that was leased', async () => {
    const world = openWorld()
    const { root, child, leaf, sibling } = await family(world)
    const other = await world.open()
    await world.do({ kind: 'task.complete', ...given(root), reason: 'completed' })
    for (const dead of [root, child, leaf, sibling]) await isDead(world, dead)
    expect(new Set(world.ended.map(({ id }) => id))).toEqual(
      new Set([root, child, leaf, sibling].map(({ grant }) => grant.id)),
    )
    expect(await uses(world, other)).toMatchObject({ id: other.grant.id })
  })
})

describe('a crash between record and effect', () => {
  /** A store that fails once, at one method: before it did its work, or after. */
  const failing = (inner: GrantStore, method: keyof GrantStore, isDone: boolean): GrantStore => {
    let isDue = true
    return new Proxy(inner, {
      get(store, name) {
        const real = store[name as keyof GrantStore]
        if (name !== method || typeof real !== 'function') return real
        return (...args: unknown[]) => {
          if (!isDue) return Reflect.apply(real, store, args)
          isDue = false
          if (isDone) Reflect.apply(real, store, args)
          throw new Error('the power went')
        }
      },
    })
  }

  it.each([
    ['saveTask', false],
    ['saveTask', true],
    ['create', false],
    ['create', true],
    ['end', false],
    ['end', true],
  ] as const)('at %s (done: %s) never leaves both grants of a changed intent', async (method, isDone) => {
    const clock = manualClock()
    const store = freshStore(clock)
    const before = openWorld({ store, clock })
    const root = await before.open()
    const crashing = openWorld({ store: failing(store, method, isDone), clock })
    await expect(crashing.do(intent(root, 'on'))).rejects.toThrow('the power went')
    const after = openWorld({ store, clock })
    const living = (await store.grantsOf('acme', root.grant.task.id)).map(({ id }) => id)
    expect(living.length).toBeLessThanOrEqual(1)
    if (method !== 'end' || isDone) await isDead(after, root)
    await isDead(crashing, root) // wherever the store stopped, here it is over
    await after.do({ kind: 'task.complete', ...given(root), reason: 'crashed' })
    expect(await store.grantsOf('acme', root.grant.task.id)).toEqual([])
  })

  it.each([
    ['saveTask', false],
    ['saveTask', true],
    ['create', false],
  ] as const)('at %s (done: %s) leaves no usable grant of an opened task', async (method, isDone) => {
    const clock = manualClock()
    const store = freshStore(clock)
    await expect(openWorld({ store: failing(store, method, isDone), clock }).open()).rejects.toThrow('the power went')
    for (const { root } of await openWorld({ store, clock }).grants.list('acme'))
      expect(await store.grantsOf('acme', root.task.id)).toEqual([])
  })

  it('leaves a task without a living grant that can go on by a new intent of the human', async () => {
    const clock = manualClock()
    const store = freshStore(clock)
    const root = await openWorld({ store, clock }).open()
    await expect(openWorld({ store: failing(store, 'create', false), clock }).do(intent(root, 'on'))).rejects.toThrow()
    const fresh = await openWorld({ store, clock }).do(intent(root, 'on again'))
    expect(fresh?.grant.task.purpose).toBe('on again')
  })
})

describe('on two replicas that share Redis', () => {
  let server: TestRedis
  beforeAll(async () => {
    server = await startRedis()
  })
  afterAll(() => server.stop())

  it('an intent, a suspension and a step of one are known to the other', async () => {
    const clock = manualClock()
    const connections = [new Redis(server.url), new Redis(server.url)] as const
    const [here, there] = connections.map((redis) =>
      openWorld({ clock, store: openRedisStore({ redis, clock, prefix: server.prefix }) }),
    ) as [World, World]
    const root = await here.open()
    const child = await there.child(root, search, { step: 'load' })
    await uses(here, child)
    await there.do({ kind: 'task.step_complete', ...given(root), step: 'load' })
    clock.advance(1_001) // what the store said may be relied on for a second
    await isDead(here, child)
    await here.do({ kind: 'task.suspend', ...given(root) })
    clock.advance(1_001)
    await isDead(there, root, 'task_suspended')
    const fresh = (await there.do({ kind: 'task.resume', ...given(root), by: { human } })) as IssuedGrant
    expect(await uses(here, fresh)).toMatchObject({ id: fresh.grant.id })
    clock.advance(1_001)
    await isDead(here, root)
    const changed = (await here.do(intent(root, 'on'))) as IssuedGrant
    clock.advance(1_001)
    await isDead(there, fresh)
    expect(await uses(there, changed)).toMatchObject({ task: { purpose: 'on' } })
    for (const redis of connections) redis.disconnect()
  })
})
