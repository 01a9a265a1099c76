/** Who may end a grant, what ends with it, and who may know of it. */
import { describe, expect, it } from 'vitest'
import { claimsOf } from '../../gateway/grant/chain/claims.ts'
import { type GrantStore, storeUnavailable } from '../../gateway/grant/store/store.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'
import type { Instruction, IssuedGrant } from '../../gateway/protocol/instruction.ts'
import { manualClock } from '../rig/clock.ts'
import {
  agentOf,
  asClient,
  attesting,
  extract,
  newHolderKey,
  openWorld,
  orchestrator,
  research,
  search,
  type World,
  workloadOf,
} from './delegate.fixture.ts'
import { freshStore, human, ISSUER, presenting } from './grant.fixture.ts'

const code = (expected: string) => expect.objectContaining({ code: expected })
type By = Extract<Instruction, { kind: 'grant.revoke' }>['by']
const revoking = (token: string, by: By): Instruction => ({
  kind: 'grant.revoke',
  id: uuidv7(),
  tenant: 'acme',
  token,
  by,
})
const isAlive = async (world: World, issued: IssuedGrant) => {
  const standing = await world.store.byId('acme', issued.grant.id)
  return standing !== undefined && standing.ended === undefined
}

/** root (key) → child (key) → leaf (no key) */
async function chain(world: World) {
  const [first, second] = [newHolderKey(), newHolderKey()]
  const root = await world.open({ scope: 'github:*', cnf: { jkt: first.jkt } })
  const cnf = { jkt: second.jkt }
  const child = await world.child(root, search, { cnf }, attesting(root, first, search, { cnf }))
  const leaf = await world.child(child, extract, {}, attesting(child, second, extract))
  return { first, second, root, child, leaf }
}

describe('revocation', () => {
  it('by the socket takes any grant by id, handle or token, and everything below it', async () => {
    for (const name of ['id', 'handle', 'token'] as const) {
      const world = openWorld()
      const root = await world.open()
      const child = await world.child(root, search)
      const leaf = await world.child(child, extract)
      await world.do(revoking(name === 'id' ? child.grant.id : (child[name] ?? ''), { human }))
      expect([await isAlive(world, root), await isAlive(world, child), await isAlive(world, leaf)]).toEqual([
        true,
        false,
        false,
      ])
      expect(world.ended.map(({ id }) => id).sort()).toEqual([child.grant.id, leaf.grant.id].sort())
    }
  })

  it('by its holder: whoever has an unbound grant may end it', async () => {
    const world = openWorld()
    const { leaf, child } = await chain(world)
    await world.do(revoking(leaf.handle ?? '', { client: {} }))
    expect([await isAlive(world, leaf), await isAlive(world, child)]).toEqual([false, true])
  })

  it('of a bound grant needs its key, or one above it', async () => {
    for (const [by, isFine] of [
      ['second', true],
      ['first', true],
      ['stranger', false],
      ['nobody', false],
    ] as const) {
      const world = openWorld()
      const { first, second, child, leaf } = await chain(world)
      const jkt = { first: first.jkt, second: second.jkt, stranger: newHolderKey().jkt, nobody: undefined }[by]
      const attempt = world.do(revoking(child.token, { client: {}, ...(jkt !== undefined && { jkt }) }))
      if (isFine) await expect(attempt, by).resolves.toBeNull()
      else await expect(attempt, by).rejects.toEqual(code('client_invalid'))
      expect([await isAlive(world, child), await isAlive(world, leaf)], by).toEqual([!isFine, !isFine])
    }
  })

  it('of a bound grant is also for an authenticated agent of its lineage, above it or itself', async () => {
    for (const [client, isFine] of [
      [research, true],
      [search, true],
      [extract, false],
      [agentOf('rogue'), false],
    ] as const) {
      const world = openWorld()
      const { child } = await chain(world)
      const attempt = world.do(revoking(child.token, { client: asClient(client) }))
      if (isFine) await expect(attempt).resolves.toBeNull()
      else await expect(attempt).rejects.toEqual(code('client_invalid'))
    }
  })

  it('is not possible by naming an id that anyone could have read', async () => {
    const world = openWorld()
    const root = await world.open()
    await expect(world.do(revoking(root.grant.id, { client: asClient(research) }))).rejects.toEqual(
      code('grant_invalid'),
    )
    expect(await isAlive(world, root)).toBe(true)
  })

  it('of a root grant ends its task', async () => {
    const world = openWorld()
    const root = await world.open()
    const child = await world.child(root, search)
    await world.do(revoking(root.token, { client: {} }))
    expect(await isAlive(world, child)).toBe(false)
    expect(await world.grants.list('acme')).toEqual([])
  })

  it('reaches the store at the second attempt, when the first did not get through', async () => {
    const clock = manualClock()
    const store = freshStore(clock)
    let isAway = true
    const away = () => {
      throw new Error('the store is away')
    }
    const world = openWorld({ clock, store: { ...store, end: (...o) => (isAway ? away() : store.end(...o)) } })
    const child = await world.child(await world.open(), search)
    await expect(world.do(revoking(child.token, { client: {} }))).rejects.toThrow('away')
    await expect(async () => world.grants.authenticate(presenting(child.token))).rejects.toEqual(code('grant_revoked'))
    expect(await isAlive(world, child)).toBe(true) // at every other replica
    isAway = false
    await world.do(revoking(child.token, { client: {} }))
    expect(await isAlive(world, child)).toBe(false)
  })

  it('reaches the store whatever else is in there, or cannot be read', async () => {
    for (const isForged of [true, false]) {
      const clock = manualClock()
      const store = freshStore(clock)
      const grantsOf: GrantStore['grantsOf'] = async (tenant, task) => {
        if (!isForged) throw new Error('cannot be read')
        return (await store.grantsOf(tenant, task)).map((stored) => ({ ...stored, body: 'forged' }))
      }
      const world = openWorld({ clock, store: { ...store, grantsOf } })
      const child = await world.child(await world.open(), search)
      await world.do(revoking(child.token, { human })).catch((cause) => expect(cause.message).toBe('cannot be read'))
      expect(await isAlive(world, child)).toBe(false)
    }
  })

  it('takes a grant that is parked with its task', async () => {
    const world = openWorld()
    const root = await world.open()
    const child = await world.child(root, search)
    await world.do({ kind: 'task.suspend', id: uuidv7(), tenant: 'acme', by: { human }, task: root.grant.task.id })
    await world.do(revoking(child.token, { client: {} }))
    expect(await isAlive(world, child)).toBe(false)
  })

  it('says which it was to those who have to answer the same to everyone', async () => {
    const world = openWorld()
    const root = await world.open({ scope: 'github:*', ttlS: 60 })
    for (const token of ['kh_'.padEnd(46, 'A'), 'x', uuidv7(), `${root.token}x`])
      await expect(world.do(revoking(token, { human })), token).rejects.toEqual(code('grant_invalid'))
    await world.do(revoking(root.token, { human }))
    await expect(world.do(revoking(root.token, { human }))).rejects.toEqual(code('grant_revoked'))
    world.clock.advance(61_000)
    await expect(world.do(revoking(root.token, { human }))).rejects.toMatchObject({
      code: expect.stringMatching(/^grant_(revoked|expired)$/),
    })
  })
})

describe('introspection', () => {
  it('tells the claims to the socket, to holders of it or of one above, to agents of its lineage and to orchestrators', async () => {
    const world = openWorld()
    const root = await world.open()
    const child = await world.child(root, search, { scope: 'github:issues.read' })
    const whole = {
      active: true,
      token_type: 'Bearer',
      scope: 'github:issues.read',
      ...claimsOf(child.grant, ISSUER),
    }
    for (const by of [
      { human },
      { holder: root.grant },
      { holder: child.grant },
      { client: workloadOf(research.id) },
      { client: workloadOf(search.id) },
    ])
      expect(await world.grants.introspect(child.token, by)).toEqual(whole)
    expect(await world.grants.introspect(root.token, { client: workloadOf(orchestrator.id) })).toMatchObject({
      active: true,
    })
    expect(await world.grants.introspect(child.handle ?? '', { human })).toEqual(whole)
  })

  it('tells nobody else more than that it is not active', async () => {
    const world = openWorld()
    const root = await world.open()
    const child = await world.child(root, search)
    const sibling = await world.child(root, extract)
    const other = await world.open()
    const inactive = { active: false }
    for (const by of [{ holder: child.grant }, { holder: other.grant }, { client: workloadOf(extract.id) }])
      expect(await world.grants.introspect(root.token, by)).toEqual(inactive)
    expect(await world.grants.introspect(child.token, { holder: sibling.grant })).toEqual(inactive)
    expect(await world.grants.introspect('nonsense', { human })).toEqual(inactive)
    await world.do(revoking(child.token, { human }))
    expect(await world.grants.introspect(child.token, { human })).toEqual(inactive)
  })

  it('does not take a store that is away for the end of a grant', async () => {
    const world = openWorld()
    const root = await world.open()
    const away = openWorld({
      clock: world.clock,
      store: {
        ...world.store,
        byId: () => {
          throw storeUnavailable(new Error('away'))
        },
      },
    })
    await expect(away.grants.introspect(root.token, { human })).rejects.toEqual(code('store_unavailable'))
  })
})

describe('a holder', () => {
  it('is who presents a living grant, with its key where there is one', async () => {
    const world = openWorld()
    const { root, first, leaf } = await chain(world)
    expect(await world.grants.holder(leaf.handle ?? '')).toMatchObject({ id: leaf.grant.id })
    expect(await world.grants.holder(root.token, { jkt: first.jkt })).toMatchObject({ id: root.grant.id })
    await expect(world.grants.holder(root.token)).rejects.toEqual(code('grant_invalid'))
    expect(await world.grants.authenticate({ ...presenting(root.token), proof: { jkt: first.jkt } })).toBeDefined()
  })
})
