/** LG/1 §1.6 step 8 at the door: a delegated grant passes only with the lineage that was signed for it. */
import { beforeEach, describe, expect, it } from 'vitest'
import type { SigningKeys } from '../../gateway/grant/chain/token.ts'
import { signOffline } from '../../gateway/grant/holder.ts'
import { marksOf } from '../../gateway/grant/life/task.ts'
import { createRecords } from '../../gateway/grant/store/record.ts'
import type { GrantStore } from '../../gateway/grant/store/store.ts'
import type { Grant } from '../../gateway/protocol/grant.ts'
import type { IssuedGrant } from '../../gateway/protocol/instruction.ts'
import { manualClock } from '../rig/clock.ts'
import { attesting, extract, newHolderKey, openWorld, search, type World } from './delegate.fixture.ts'
import { freshStore, newKey, presenting, storeKey } from './grant.fixture.ts'

const records = createRecords(storeKey)
const elsewhere = newHolderKey()

let world: World
let lookups: number
/** grant id → what somebody with the key of the store put in its place */
let forged: Map<string, Partial<Grant>>
let lost: Set<string>

beforeEach(() => {
  const clock = manualClock()
  const inner = freshStore(clock)
  lookups = 0
  forged = new Map()
  lost = new Set()
  const seen = (standing: Awaited<ReturnType<GrantStore['byId']>>) => {
    if (standing === undefined || lost.has(standing.stored.id)) return undefined
    const change = forged.get(standing.stored.id)
    if (change === undefined) return standing
    const { handleDigest } = standing.stored
    const grant = { ...records.open(standing.stored), ...change }
    return { ...standing, stored: records.close(grant, { handleDigest, marks: marksOf(grant) }) }
  }
  const store: GrantStore = {
    ...inner,
    byId(tenant, id) {
      lookups += 1
      return seen(inner.byId(tenant, id) as Awaited<ReturnType<GrantStore['byId']>>)
    },
    byHandle: (tenant, digest) => seen(inner.byHandle(tenant, digest) as Awaited<ReturnType<GrantStore['byHandle']>>),
  }
  world = openWorld({ clock, store })
})

const use = async (world: World, { handle, token }: IssuedGrant, proof?: { jkt: string }) => {
  try {
    const presented = { ...presenting(handle ?? token), ...(proof && { proof }) }
    return (await world.grants.authenticate(presented)).id
  } catch (cause) {
    return (cause as { code?: string }).code
  }
}

async function threeDeep() {
  const root = await world.open({ scope: 'github:*' })
  const child = await world.child(root, search, { scope: 'github:issues.*' })
  const leaf = await world.child(child, extract, { scope: 'github:issues.read' })
  return { root, child, leaf }
}

describe('a delegated grant, of which somebody rewrote the sealed record,', () => {
  const rewritten: readonly [string, (o: Awaited<ReturnType<typeof threeDeep>>) => Partial<Grant>, string][] = [
    ['without the attestations', () => ({ attestations: [] }), 'lineage_truncated'],
    ['without the oldest', ({ leaf }) => ({ attestations: leaf.grant.attestations.slice(1) }), 'lineage_truncated'],
    ['in another order', ({ leaf }) => ({ attestations: leaf.grant.attestations.toReversed() }), 'lineage_reordered'],
    [
      'with one of them twice',
      ({ leaf: { grant } }) => ({ attestations: [grant.attestations[0] ?? '', grant.attestations[0] ?? ''] }),
      'lineage_duplicated',
    ],
    ['wider than was attested', () => ({ authority: [{ operations: ['github:*'] }] }), 'lineage_grafted'],
    ['for another agent', () => ({ agent: search }), 'lineage_grafted'],
    ['for a key that nobody attested', () => ({ cnf: { jkt: elsewhere.jkt } }), 'lineage_grafted'],
    ['longer than was attested', ({ leaf }) => ({ expiresAt: leaf.grant.expiresAt + 60 }), 'lineage_invalid'],
    ['below another parent', ({ root: { grant } }) => ({ parentHash: grant.signedHash ?? '' }), 'lineage_grafted'],
    [
      'as if its delegator had signed',
      ({ leaf: { grant } }) => ({ lineage: grant.lineage.map(({ on_behalf: _, ...step }) => step) }),
      'lineage_spliced',
    ],
  ]

  it.each(rewritten)('is refused: %s', async (_, change, code) => {
    const made = await threeDeep()
    const { id, lineage } = made.leaf.grant
    const changed = change(made)
    const agent = changed.agent && { lineage: lineage.with(-1, { ...lineage[3], id: changed.agent.id } as never) }
    forged.set(id, { ...changed, ...agent })
    expect(await use(world, made.leaf, changed.cnf as { jkt: string })).toBe(code)
    expect(await use(world, { ...made.leaf, handle: undefined } as never, changed.cnf as { jkt: string })).toBe(code)
  })

  it('is refused when the root above it is gone, or another one', async () => {
    const { root, leaf } = await threeDeep()
    lost.add(root.grant.id)
    expect(await use(world, leaf)).toBe('lineage_truncated')
    lost.clear()
    forged.set(root.grant.id, { cnf: { jkt: elsewhere.jkt } })
    expect(await use(world, leaf)).toBe('lineage_spliced')
    forged.clear()
    expect(await use(world, leaf)).toBe(leaf.grant.id)
  })
})

describe('a lineage in order', () => {
  it('is verified once, and never of a root grant', async () => {
    const { root, leaf } = await threeDeep()
    lookups = 0
    expect(await use(world, root)).toBe(root.grant.id)
    expect(lookups).toBe(0)
    for (let i = 0; i < 5; i++) expect(await use(world, leaf)).toBe(leaf.grant.id)
    expect(lookups).toBe(1)
    const remembered = world.grants.authenticate(presenting(leaf.handle ?? ''))
    expect(remembered).not.toBeInstanceOf(Promise)
  })

  it('passes for keys, for handles and for offline hops, one below the other', async () => {
    const [own, next] = [newHolderKey(), newHolderKey()]
    const root = await world.open({ scope: 'github:*', cnf: { jkt: own.jkt } })
    const authority = [{ operations: ['github:issues.*'] }]
    const given = attesting(root, own, search, { authority, cnf: { jkt: next.jkt } })
    const request = { scope: 'github:issues.*', cnf: { jkt: next.jkt } }
    const child = await world.child({ ...root }, search, request, given)
    expect(await use(world, child, next)).toBe(child.grant.id)
    const { issuedAt, expiresAt } = child.grant
    const leaf = signOffline({ parent: child.token, key: next.key, agent: extract.id, authority, issuedAt, expiresAt })
    const seen = await use(world, { grant: child.grant, token: leaf })
    expect(seen).toMatch(/^[0-9a-f-]{36}$/)
    expect(await use(world, { grant: child.grant, token: leaf })).toBe(seen)
  })

  it('that ends while it is verified is over', async () => {
    const { root, leaf } = await threeDeep()
    const first = use(world, leaf)
    await world.do({ kind: 'grant.revoke', id: 'r', tenant: 'acme', token: root.token, by: { client: {} } })
    await first
    expect(await use(world, leaf)).toBe('grant_revoked')
  })
})

it('knows what another replica attested with a key that is newer than its own', async () => {
  const clock = manualClock()
  const store = freshStore(clock)
  const [before, after] = [newKey(), newKey()]
  let isSeen = false
  const late: SigningKeys = {
    get current() {
      return isSeen ? after : before
    },
    get retired() {
      return isSeen ? [{ key: before, untilS: Number.MAX_SAFE_INTEGER }] : []
    },
    async refresh() {
      isSeen = true
    },
  }
  const [rotated, behind] = [
    openWorld({ clock, store, signing: { current: after, retired: [] } }),
    openWorld({ clock, store, signing: late }),
  ]
  const child = await rotated.child(await rotated.open(), search)
  expect(await use(behind, { ...child, token: '' })).toBe(child.grant.id)

  const stranger = openWorld({ clock, store, signing: { current: newKey(), retired: [] } })
  expect(await use(stranger, child)).toBe('lineage_invalid')
})
