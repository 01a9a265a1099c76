/** Children: one request for each thing in which a child could be wider, and what becomes of chains. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { excessOf } from '../../gateway/grant/attenuate/attenuate.ts'
import { DELEGATION_TYPE } from '../../gateway/grant/chain/attestation.ts'
import { verifyAttestations } from '../../gateway/grant/chain/chain.ts'
import { publicJwk, readJws, signJws } from '../../gateway/grant/chain/jws.ts'
import { createTokenSeal } from '../../gateway/grant/chain/token.ts'
import { signOffline } from '../../gateway/grant/holder.ts'
import type { Human } from '../../gateway/protocol/grant.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'
import type { GrantRequest, IssuedGrant } from '../../gateway/protocol/instruction.ts'
import {
  agentOf,
  asClient,
  asWorkload,
  attesting,
  extract,
  type Key,
  newHolderKey,
  openWorld,
  orchestrator,
  requesting,
  research,
  search,
  type World,
} from './delegate.fixture.ts'
import { human, ISSUER, presenting, signingKey } from './grant.fixture.ts'

const code = (expected: string) => expect.objectContaining({ code: expected })
const WIDE: GrantRequest = {
  details: [
    {
      type: 'keyless_access',
      operations: ['github:issues.*'],
      locations: ['https://api.github.com'],
      paths: ['/repos/acme/**'],
      constraints: { max_calls: 10, rate: { n: 5, per: 60 }, params: { 'query.state': { one_of: ['open'] } } },
    },
  ],
  ttlS: 600,
  maxDepth: 2,
}
const narrower = (changes: object = {}, constraints: object = {}) => ({
  type: 'keyless_access',
  operations: ['github:issues.read'],
  locations: ['https://api.github.com'],
  paths: ['/repos/acme/site/**'],
  constraints: {
    max_calls: 5,
    rate: { n: 5, per: 60 },
    params: { 'query.state': { one_of: ['open'] } },
    ...constraints,
  },
  ...changes,
})

describe('a child', () => {
  it('is of the parent’s human and task, one deeper, and attested on behalf of a holder without a key', async () => {
    const world = openWorld()
    const root = await world.open()
    const child = await world.child(root, search, { scope: 'github:issues.read' })
    expect(child.grant).toMatchObject({
      human,
      task: root.grant.task,
      agent: { id: search.id },
      depth: 1,
      ancestry: [{ id: root.grant.id, authority: root.grant.authority }],
      parentHash: root.grant.signedHash,
      expiresAt: root.grant.expiresAt,
      lineage: [{ id: 'ana' }, { id: research.id }, { id: search.id, on_behalf: true }],
    })
    expect(child.grant.attested).toBeUndefined() // merely named
    const seal = createTokenSeal({ issuer: ISSUER, keys: { current: signingKey, retired: [] } })
    verifyAttestations(child.grant, { issuer: ISSUER, gateway: seal.keyOf, rootCnf: undefined })
    for (const token of [child.handle ?? '', child.token])
      expect(await world.grants.authenticate(presenting(token))).toMatchObject({ id: child.grant.id })
  })

  it('has what the parent has when nothing is asked for', async () => {
    const world = openWorld()
    const root = await world.open(WIDE)
    const child = await world.child(root, search)
    expect(child.grant.authority).toEqual(root.grant.authority)
    expect(child.grant).toMatchObject({ expiresAt: root.grant.expiresAt, maxDepth: 2, delegable: true })
  })

  it('is attested as itself when it proves its identity', async () => {
    const world = openWorld()
    const root = await world.open()
    const child = await world.child(root, search, {}, { actor: asWorkload(search) })
    expect(child.grant).toMatchObject({ attested: true, instance: 'pod-1' })
    const lie = world.child(root, search, {}, { actor: asWorkload(extract) })
    await expect(lie).rejects.toEqual(code('actor_invalid'))
    const rogue = world.child(root, agentOf('rogue'))
    await expect(rogue).rejects.toEqual(code('agent_unknown'))
    const nobody = world.do(requesting({ subject: { token: root.token, type: 'access_token' } }))
    await expect(nobody).rejects.toEqual(code('actor_invalid'))
  })

  it.each<[string, GrantRequest, RegExp]>([
    ['operations', { details: [narrower({ operations: ['github:pulls.read'] })] }, /operations/],
    ['locations', { details: [narrower({ locations: ['https://evil.example'] })] }, /locations/],
    ['paths', { details: [narrower({ paths: ['/**'] })] }, /paths/],
    ['no paths', { details: [narrower({ paths: undefined })] }, /paths/],
    ['max_calls', { details: [narrower({}, { max_calls: 11 })] }, /max_calls: got 11, allowed .*10/],
    ['no max_calls', { details: [narrower({}, { max_calls: undefined })] }, /max_calls/],
    ['rate', { details: [narrower({}, { rate: { n: 6, per: 60 } })] }, /rate/],
    ['params', { details: [narrower({}, { params: { 'query.state': { one_of: ['open', 'closed'] } } })] }, /params/],
    ['scope without constraints', { scope: 'github:issues.read' }, /locations|max_calls/],
    ['lifetime', { ttlS: 601 }, /ttl_s: got 601, allowed at most 600/],
    ['depth', { maxDepth: 3 }, /max_depth: got 3, allowed at most 2/],
  ])('is refused when it is wider in %s, with everything that was', async (_, asked, said) => {
    const world = openWorld()
    const root = await world.open(WIDE)
    const request = JSON.parse(JSON.stringify(asked)) as GrantRequest
    await expect(world.child(root, search, request)).rejects.toMatchObject({
      code: 'invalid_scope',
      grant: root.grant.id, // for the record
      detail: expect.stringMatching(said),
    })
  })

  it('is refused for all its excesses at once', async () => {
    const world = openWorld()
    const root = await world.open(WIDE)
    const details = [narrower({ paths: ['/**'] }, { max_calls: 99 })]
    const detail = await world
      .child(root, search, { details, ttlS: 3600, maxDepth: 8 })
      .catch((it: Error) => it.message)
    for (const part of ['paths', 'max_calls', 'ttl_s', 'max_depth', root.grant.id]) expect(detail).toContain(part)
  })

  it('is cut only where the request says so, and is told what was cut', async () => {
    const world = openWorld()
    const root = await world.open(WIDE)
    const wide = { details: [narrower({}, { max_calls: 99 })], ttlS: 3600, maxDepth: 8, allowNarrowing: true }
    const child = await world.child(root, search, wide)
    expect(child.grant.authority).toMatchObject([{ constraints: { max_calls: 10 } }])
    expect(child.grant).toMatchObject({ expiresAt: root.grant.expiresAt, maxDepth: 2 })
    expect(child.narrowed?.join('\n')).toMatch(/max_calls.*ttl_s.*max_depth/s)
    const nothing = { scope: 'openai:*', allowNarrowing: true }
    await expect(world.child(root, search, nothing)).rejects.toEqual(code('invalid_scope'))
  })

  it('never comes out wider than its parent, whatever is asked (property)', async () => {
    const world = openWorld()
    const root = await world.open(WIDE)
    const some = fc.record(
      {
        operations: fc.subarray(['github:*', 'github:issues.*', 'github:issues.read', 'openai:*'], { minLength: 1 }),
        paths: fc.subarray(['/**', '/repos/acme/**', '/repos/*/site', '/repos/acme/site/issues'], { minLength: 1 }),
        constraints: fc.record({ max_calls: fc.integer({ min: 1, max: 20 }) }),
      },
      { requiredKeys: ['operations'] },
    )
    const request = fc.record(
      {
        ttlS: fc.integer({ min: 1, max: 3600 }),
        maxDepth: fc.integer({ min: 1, max: 8 }),
        allowNarrowing: fc.boolean(),
      },
      { requiredKeys: [] },
    )
    await fc.assert(
      fc.asyncProperty(fc.array(some, { minLength: 1, maxLength: 3 }), request, async (entries, rest) => {
        const details = entries.map((entry) => ({ type: 'keyless_access', ...entry }))
        const child = await world.child(root, search, { details, ...rest }).catch(() => undefined)
        if (child === undefined) return
        expect(excessOf(root.grant.authority, child.grant.authority)).toEqual([])
        expect(child.grant.expiresAt).toBeLessThanOrEqual(root.grant.expiresAt)
        expect(child.grant.maxDepth).toBeLessThanOrEqual(root.grant.maxDepth)
      }),
      { numRuns: 200 },
    )
  })

  it('is not made from a grant that is not delegable, or too deep', async () => {
    const world = openWorld()
    await expect(world.child(await world.open({ scope: 'github:*', delegable: false }), search)).rejects.toEqual(
      code('delegation_refused'),
    )
    const root = await world.open({ scope: 'github:*', maxDepth: 1 })
    const child = await world.child(root, search)
    await expect(world.child(child, extract)).rejects.toMatchObject({
      code: 'delegation_refused',
      detail: expect.stringContaining('depth 1'),
    })
    const last = await world.child(await world.open(), search, { delegable: false })
    await expect(world.child(last, extract)).rejects.toEqual(code('delegation_refused'))
  })

  it('stays on the step and the prompt of its parent', async () => {
    const world = openWorld()
    const root = await world.open({ scope: 'github:*', step: 'one', trace: 'a'.repeat(32) })
    expect((await world.child(root, search)).grant).toMatchObject({ step: 'one', trace: 'a'.repeat(32) })
    for (const request of [{ step: 'two' }, { trace: 'b'.repeat(32) }])
      await expect(world.child(root, search, { ...request, allowNarrowing: true })).rejects.toEqual(
        code('invalid_scope'),
      )
  })

  it('keeps the preset, and with it the bound of its life', async () => {
    const world = openWorld()
    const root = await world.open({ scope: 'github:*', preset: 'sensitive' })
    const child = await world.child(root, search)
    expect(child.grant).toMatchObject({ preset: 'sensitive', authority: [{ constraints: { single_use: true } }] })
    await expect(world.child(root, search, { scope: 'github:*', preset: 'per-task' })).rejects.toEqual(
      code('invalid_scope'),
    )
  })

  it('does not come of a parent that has ended, expired, or lost one above it', async () => {
    const world = openWorld()
    const root = await world.open({ scope: 'github:*', ttlS: 100 })
    const middle = await world.child(root, search)
    const leaf = await world.child(middle, extract)
    await world.do({ kind: 'grant.revoke', id: uuidv7(), tenant: 'acme', token: middle.grant.id, by: { human } })
    await expect(world.child(leaf, research)).rejects.toEqual(code('grant_revoked'))
    await expect(world.child(root, search)).resolves.toBeDefined()
    world.clock.advance(100_000)
    await expect(world.child(root, search)).rejects.toEqual(code('grant_expired'))
  })
})

describe('the exchanger', () => {
  it('is the parent’s holder: another authenticated client is refused', async () => {
    const world = openWorld()
    const root = await world.open()
    for (const [client, isFine] of [
      [research, true],
      [orchestrator, true],
      [search, false],
    ] as const) {
      const made = world.child(root, search, {}, { client: asClient(client) })
      if (isFine) await expect(made).resolves.toBeDefined()
      else await expect(made).rejects.toEqual(code('actor_invalid'))
    }
  })

  it('cannot join a task without a grant of it (requirement 43)', async () => {
    const world = openWorld()
    const root = await world.open()
    for (const token of [root.grant.id, root.grant.task.id, 'kh_'.padEnd(46, 'A'), ''])
      await expect(
        world.do(requesting({ subject: { token, type: 'access_token' }, requestedActor: search.id })),
        token,
      ).rejects.toEqual(code('grant_invalid'))
  })

  it('sends a grant of this tenant', async () => {
    const world = openWorld()
    const root = await world.open()
    await expect(world.child(root, search, {}, { tenant: 'other' })).rejects.toEqual(code('grant_invalid'))
  })
})

async function boundRoot(world: World): Promise<{ readonly root: IssuedGrant; readonly key: Key }> {
  const key = newHolderKey()
  return { key, root: await world.open({ scope: 'github:*', cnf: { jkt: key.jkt } }) }
}

describe('a grant that is named by its id', () => {
  it('is passed on by the human behind it, and by nobody else who owns a socket', async () => {
    const world = openWorld()
    const root = await world.open()
    const naming = (who: Human) =>
      world.do({
        ...{ kind: 'grant.delegate', id: uuidv7(), tenant: 'acme', human: who },
        ...{ parent: root.grant.id, agent: search.id, request: {} },
      })
    expect((await naming(human))?.grant.ancestry).toMatchObject([{ id: root.grant.id }])
    for (const other of [
      { ...human, sub: 'bo' },
      { ...human, iss: 'https://id.acme.test' },
    ])
      await expect(naming(other)).rejects.toEqual(code('delegation_refused'))
  })
})

describe('a holder with a key', () => {
  it('proves it, signs its delegation, and names the key of the child', async () => {
    const world = openWorld()
    const { root, key } = await boundRoot(world)
    const own = newHolderKey()
    const cnf = { jkt: own.jkt }
    const child = await world.child(root, search, { cnf }, attesting(root, key, search, { cnf }))
    expect(child.grant).toMatchObject({ cnf, lineage: [{}, {}, { id: search.id }] })
    expect(child.grant.lineage[2]).not.toHaveProperty('on_behalf')
    expect(child).not.toHaveProperty('handle')
    const leaf = await world.child(child, extract, {}, attesting(child, own, extract))
    expect(leaf.grant.attestations).toHaveLength(2)
    expect(leaf.handle).toMatch(/^kh_/) // bound to nothing: the last one may be a client that can do no better
    const seal = createTokenSeal({ issuer: ISSUER, keys: { current: signingKey, retired: [] } })
    verifyAttestations(leaf.grant, { issuer: ISSUER, gateway: seal.keyOf, rootCnf: { jkt: key.jkt } })
  })

  it('is refused without proof of the key, or with another one', async () => {
    const world = openWorld()
    const { root, key } = await boundRoot(world)
    const { jkt: _, ...unproved } = attesting(root, key, search)
    await expect(world.child(root, search, {}, unproved)).rejects.toEqual(code('grant_invalid'))
    const stolen = { ...unproved, jkt: newHolderKey().jkt }
    await expect(world.child(root, search, {}, stolen)).rejects.toEqual(code('grant_invalid'))
  })

  it('is refused without its own attestation, even from the socket', async () => {
    const world = openWorld()
    const { root, key } = await boundRoot(world)
    await expect(world.child(root, search, {}, { jkt: key.jkt })).rejects.toEqual(code('lineage_truncated'))
    const parent = root.grant.id
    const local = {
      kind: 'grant.delegate',
      id: uuidv7(),
      tenant: 'acme',
      human,
      parent,
      agent: search.id,
      request: {},
    } as const
    await expect(world.do(local)).rejects.toEqual(code('lineage_truncated'))
  })

  it('cannot attest one thing and ask for another', async () => {
    const world = openWorld()
    const { root, key } = await boundRoot(world)
    const refused = (request: GrantRequest, more: object) =>
      expect(world.child(root, search, request, more)).rejects.toMatchObject({
        code: expect.stringMatching(/^lineage_/),
      })
    await refused({}, attesting(root, key, extract)) // another agent
    await refused({}, { ...attesting(root, newHolderKey(), search), jkt: key.jkt }) // signed by another key
    await refused({ scope: 'github:issues.read' }, attesting(root, key, search)) // other authority
    await refused({ cnf: { jkt: newHolderKey().jkt } }, attesting(root, key, search)) // other key of the child
    await refused({ ttlS: 600 }, attesting(root, key, search, { seconds: 60 })) // attested for less time
    const { root: other, key: otherKey } = await boundRoot(world)
    await refused({}, { ...attesting(other, otherKey, search), jkt: key.jkt }) // of another task
  })
})

describe('a delegation that was signed offline', () => {
  const offline = (parent: IssuedGrant | string, key: Key, to = search, more: object = {}) =>
    signOffline({
      parent: typeof parent === 'string' ? parent : parent.token,
      key: key.key,
      agent: to.id,
      authority: [{ operations: ['github:issues.*'] }],
      issuedAt: Math.floor(Date.UTC(2026, 5, 1, 12) / 1000),
      expiresAt: Math.floor(Date.UTC(2026, 5, 1, 12) / 1000) + 300,
      ...more,
    })

  it('becomes known at first use, hop by hop, and dies with any one above it', async () => {
    const world = openWorld()
    const { root, key } = await boundRoot(world)
    const middle = newHolderKey()
    const one = offline(root, key, search, { cnf: { jkt: middle.jkt } })
    const two = offline(one, middle, extract, { authority: [{ operations: ['github:issues.read'] }] })
    const leaf = await world.grants.authenticate(presenting(two))
    expect(leaf).toMatchObject({ agent: { id: extract.id }, depth: 2, task: root.grant.task })
    expect(leaf.ancestry.map(({ id }) => id)[0]).toBe(root.grant.id)
    expect(await world.grants.authenticate(presenting(two))).toEqual(leaf)
    const { grants: living } = await world.grants.task('acme', root.grant.task.id)
    expect(living.map(({ depth }) => depth).sort()).toEqual([0, 1, 2])
    await world.do({
      kind: 'grant.revoke',
      id: uuidv7(),
      tenant: 'acme',
      token: leaf.ancestry[1]?.id ?? '',
      by: { human },
    })
    await expect(async () => world.grants.authenticate(presenting(two))).rejects.toEqual(code('grant_revoked'))
  })

  it('is refused when it is wider, too long, for nobody, or signed by a stranger', async () => {
    const world = openWorld()
    const { root, key } = await boundRoot(world)
    const use = (token: string) => expect((async () => world.grants.authenticate(presenting(token)))()).rejects
    await use(offline(root, key, search, { authority: [{ operations: ['openai:*'] }] })).toEqual(code('invalid_scope'))
    await use(offline(root, key, search, { expiresAt: root.grant.expiresAt + 1 })).toMatchObject({
      code: 'lineage_invalid',
    })
    await use(offline(root, key, agentOf('rogue'))).toEqual(code('agent_unknown'))
    await use(offline(root, newHolderKey())).toEqual(code('lineage_spliced'))
    const plain = await world.open()
    await use(offline(plain, newHolderKey())).toEqual(code('lineage_spliced'))
  })

  it('does not pass for another one of the same id, neither itself nor as the one above', async () => {
    const world = openWorld()
    const { root, key } = await boundRoot(world)
    const middle = newHolderKey()
    const known = offline(root, key, search, { cnf: { jkt: middle.jkt } })
    await world.grants.authenticate({ ...presenting(known), proof: { jkt: middle.jkt } })
    const { payload } = readJws(known, 16_384)
    const wide = {
      ...payload,
      authorization_details: [{ type: 'keyless_access', operations: ['github:*', 'openai:*'] }],
    }
    const twin = signJws({ typ: DELEGATION_TYPE, jwk: publicJwk(key.key) }, wide, key.key)
    const below = offline(twin, middle, extract, { authority: [{ operations: ['openai:*'] }] })
    for (const token of [twin, below])
      await expect(async () => world.grants.authenticate(presenting(token)), token).rejects.toEqual(
        code(token === twin ? 'grant_invalid' : 'lineage_duplicated'),
      )
    expect(await world.store.grantsOf('acme', root.grant.task.id)).toHaveLength(2)
    expect(await world.grants.introspect(twin, { human })).toEqual({ active: false })
  })

  it('is made once of two that have one id, whoever comes first', async () => {
    const world = openWorld()
    const { root, key } = await boundRoot(world)
    const one = offline(root, key)
    const wide = {
      ...readJws(one, 16_384).payload,
      authorization_details: [{ type: 'keyless_access', operations: ['github:*'] }],
    }
    const twin = signJws({ typ: DELEGATION_TYPE, jwk: publicJwk(key.key) }, wide, key.key)
    const present = (token: string) => world.propose({ kind: 'grant.present', id: uuidv7(), tenant: 'acme', token })
    const [first, second] = [await present(one), await present(twin)]
    await world.grants.perform(first, {})
    await expect(world.grants.perform(second, {})).rejects.toEqual(code('lineage_duplicated'))
  })

  it('is refused from the future, and after its end', async () => {
    const world = openWorld()
    const { root, key } = await boundRoot(world)
    const nowS = world.clock.nowMs() / 1000
    const early = offline(root, key, search, { issuedAt: nowS + 31 })
    await expect(async () => world.grants.authenticate(presenting(early))).rejects.toEqual(code('grant_invalid'))
    const brief = offline(root, key)
    world.clock.advance(300_000)
    await expect(async () => world.grants.authenticate(presenting(brief))).rejects.toEqual(code('grant_expired'))
  })

  it('can be revoked before anyone has presented it', async () => {
    const world = openWorld()
    const { root, key } = await boundRoot(world)
    const token = offline(root, key)
    await world.do({ kind: 'grant.revoke', id: uuidv7(), tenant: 'acme', token, by: { client: {}, jkt: key.jkt } })
    await expect(async () => world.grants.authenticate(presenting(token))).rejects.toEqual(code('grant_revoked'))
  })

  it('presented by many at once is made once', async () => {
    const world = openWorld()
    const { root, key } = await boundRoot(world)
    const token = offline(root, key)
    const again = { kind: 'grant.present', id: uuidv7(), tenant: 'acme', token } as const
    const [one, two] = await Promise.all([world.propose(again), world.propose(again)])
    const made = await Promise.all([world.grants.perform(one, {}), world.grants.perform(two, {})])
    expect(made[0]?.grant.id).toBe(made[1]?.grant.id)
    expect(await world.store.grantsOf('acme', root.grant.task.id)).toHaveLength(2)
  })
})
