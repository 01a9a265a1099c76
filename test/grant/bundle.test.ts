/** Bundles: what the gateway exports verifies from public keys alone, and nothing that was changed does. */
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Bundle, bundleOf } from '../../gateway/grant/chain/bundle.ts'
import { verifyBundle } from '../../gateway/grant/chain/bundle-verify.ts'
import { inputOf } from '../../gateway/grant/chain/jws.ts'
import { createTokenSeal } from '../../gateway/grant/chain/token.ts'
import type { Grant } from '../../gateway/protocol/grant.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { chainOf, delegate, ed25519, es256, type Held, ISSUER, kinds, POLICY, root, seal } from './chain.fixture.ts'

const grantsOf = (chain: readonly Held[]) => chain.map(({ grant }) => grant)
const exported = (chain: readonly Held[]): Bundle => bundleOf(grantsOf(chain), seal)
const verify = (bundle: unknown) =>
  verifyBundle(typeof bundle === 'string' ? bundle : JSON.stringify(bundle), (kid) => seal.keyOf(kid))

function codeFor(bundle: unknown): string | undefined {
  try {
    verify(bundle)
  } catch (cause) {
    if (cause instanceof GatewayError) return cause.code
    throw cause
  }
}

const otherKey = () => generateKeyPairSync('ed25519').privateKey
const kidOf = (token: string) => JSON.parse(String(Buffer.from(token.split('.')[0] ?? '', 'base64url'))).kid
const runs = { numRuns: 30 }

describe('a bundle', () => {
  it('verifies for any chain of 0 to 8 hops, and tells it from the human down', async () => {
    await fc.assert(
      fc.asyncProperty(kinds(8), async (hops) => {
        const chain = await chainOf(hops)
        const { grants, human, task } = verify(exported(chain))
        expect(grants.map(({ id }) => id)).toEqual(chain.map(({ grant }) => grant.id))
        expect(grants.map(({ authority }) => authority)).toEqual(chain.map(({ grant }) => grant.authority))
        expect([human, task]).toEqual([chain[0]?.grant.human, chain[0]?.grant.task])
      }),
      runs,
    )
  })

  it('holds no token of a parent that could be used without a key', async () => {
    await fc.assert(
      fc.asyncProperty(kinds(6, 1), async (hops) => {
        const chain = await chainOf(hops)
        for (const [i, ancestor] of exported(chain).ancestors.entries()) {
          if (ancestor.split('.').length === 3) expect(chain[i]?.grant.cnf?.jkt).toBeDefined()
        }
        const bundle = JSON.stringify(exported(chain))
        for (const { grant, token } of chain.slice(0, -1))
          if (grant.cnf === undefined) expect(bundle).not.toContain(token)
      }),
      runs,
    )
  })

  it('can be exported after the signing key has changed, but for what must carry its signature', async () => {
    const chain = [await root(), await root(ed25519)]
    const child = await delegate(chain[1] as Held, { key: es256 })
    const after = createTokenSeal({
      issuer: ISSUER,
      keys: {
        current: otherKey(),
        retired: [{ key: seal.keyOf(kidOf(child.token)) as KeyObject, untilS: Number.POSITIVE_INFINITY }],
      },
    })
    const grandchild = await delegate(child, {}, after)
    const bundle = bundleOf(grantsOf([chain[1] as Held, child, grandchild]), after)
    expect(verifyBundle(JSON.stringify(bundle), (kid) => after.keyOf(kid)).grants).toHaveLength(3)
    expect(() => bundleOf(grantsOf([chain[1] as Held, child]), after)).toThrow(/cannot be told any more/)
  })

  it('is refused with any one part left out, exchanged or from another chain', async () => {
    await fc.assert(
      fc.asyncProperty(kinds(5, 2), kinds(5, 2), fc.nat(), fc.nat(), async (hops, others, a, b) => {
        const [mine, other] = [exported(await chainOf(hops)), exported(await chainOf(others))]
        const list = b % 2 === 0 ? 'ancestors' : 'actor_proofs'
        const parts = mine[list]
        const at = a % parts.length
        const foreign = other[list][b % other[list].length] as string
        const left = { ...mine, [list]: parts.toSpliced(at, 1) }
        const exchanged = { ...mine, [list]: parts.toReversed() }
        const grafted = { ...mine, [list]: parts.with(at, foreign) }
        const twice = { ...mine, [list]: parts.toSpliced(at, 0, parts[at] as string) }
        for (const spoiled of [left, exchanged, grafted, twice, { ...mine, token: other.token }])
          expect(codeFor(spoiled), JSON.stringify({ at, list })).toMatch(/^(?:lineage_|grant_invalid)/)
        if (list === 'ancestors') return
        expect([left, exchanged, grafted, twice].map(codeFor)).toEqual([
          'lineage_truncated',
          'lineage_reordered',
          'lineage_grafted',
          'lineage_duplicated',
        ])
      }),
      runs,
    )
  })

  it('is refused with a hop left out as if it had never been', async () => {
    await fc.assert(
      fc.asyncProperty(kinds(5, 2), fc.nat(), async (hops, a) => {
        const { token, ancestors, actor_proofs } = exported(await chainOf(hops))
        const at = a % ancestors.length
        const hidden = {
          token,
          ancestors: ancestors.toSpliced(at, 1),
          actor_proofs: actor_proofs.toSpliced(Math.max(at - 1, 0), 1),
        }
        expect(codeFor(hidden)).toMatch(/^lineage_truncated|^grant_invalid/)
      }),
      runs,
    )
  })

  it('is refused with any one character changed, in any of its texts', async () => {
    const chains = await Promise.all([
      chainOf([
        { key: undefined, isOffline: false },
        { key: 0, isOffline: false },
        { key: 1, isOffline: false },
      ]),
      chainOf([
        { key: 1, isOffline: false },
        { key: 0, isOffline: true },
        { key: undefined, isOffline: true },
      ]),
      chainOf([
        { key: 0, isOffline: false },
        { key: 1, isOffline: true },
        { key: undefined, isOffline: false },
      ]),
    ])
    const texts = chains.map((chain) => JSON.stringify(exported(chain)))
    const characters = fc.constantFrom(...'ABCXYZabcxyz0189-_.=+/~ "[]{}')
    fc.assert(
      fc.property(fc.constantFrom(...texts), fc.nat(), characters, (text, n, char) => {
        const at = n % text.length
        fc.pre(text[at] !== char)
        expect(codeFor(text.slice(0, at) + char + text.slice(at + 1)), `${at} ${char}`).toBeDefined()
      }),
      { numRuns: 800 },
    )
  })
})

describe('a gateway that lies is found out by', () => {
  /** A chain in which the gateway's key really signed something that it must not. */
  const forged = async (changes: Partial<Grant>, parent: Partial<Grant> = {}) => {
    const above = await root(undefined, parent)
    const below = await delegate(above, { changes })
    return codeFor(exported([above, below]))
  }
  const first = () => root()

  it('a wider child', async () => {
    const above = await first()
    const below = await delegate(above, { authority: [{ operations: ['github:*'] }] })
    expect(() => verify(exported([above, below]))).toThrow(
      /grant 1 is wider than the one above it: authorization_details\[0\]\.operations/,
    )
  })

  it('a child of a grant that cannot be delegated, or deeper than it may be', async () => {
    expect(await forged({}, { delegable: false })).toBe('delegation_refused')
    expect(await forged({ maxDepth: 1 }, { maxDepth: 0 })).toMatch(/delegation_refused|grant_invalid/)
    expect(await forged({ maxDepth: 5 }, { maxDepth: 4 })).toBe('delegation_refused')
  })

  it('a child that outlives its parent, or its attestation', async () => {
    const late = (await first()).grant.expiresAt + 1
    expect(await forged({ expiresAt: late })).toMatch(/lineage_invalid|grant_invalid/)
  })

  it('a child of another human, tenant or purpose', async () => {
    expect(await forged({ human: { iss: 'https://id.acme.test', sub: 'eve' } })).toBe('lineage_grafted')
    expect(await forged({ tenant: 'other' })).toBe('lineage_grafted')
    const { task } = (await first()).grant
    expect(await forged({ task: { ...task, purpose: 'something else' } })).toMatch(/lineage_grafted/)
  })

  it('a mission that nobody authorised', async () => {
    const above = await first()
    const ancestry = [{ id: above.grant.id, authority: [{ operations: ['github:*'] }] }]
    const below = await delegate(above, { changes: { ancestry } })
    expect(() => verify(exported([above, below]))).toThrow(/grant 1 names another mission/)
  })

  it('a parent that it never was', async () => {
    expect(await forged({ ancestry: [{ id: 'other', authority: [{ operations: ['github:*'] }] }] })).toBe(
      'lineage_grafted',
    )
  })

  it('an attestation that says the same, and is not the one that it signed over', async () => {
    const above = await first()
    const below = await delegate(above)
    const child = { ...below.grant, attestations: above.grant.attestations }
    const again = await seal.attest({ parent: above.grant, child, issuer: ISSUER, policy: POLICY })
    expect(again).not.toBe(below.grant.attestations.at(-1))
    expect(codeFor({ ...exported([above, below]), actor_proofs: [again] })).toBe('lineage_reencoded')
  })
})

describe('the reader of bundles', () => {
  it('refuses what is no bundle', async () => {
    const [held] = await chainOf([{ key: undefined, isOffline: false }])
    const good = exported([held as Held])
    const bad = [
      '',
      'null',
      '[]',
      '{}',
      { ...good, more: 1 },
      { ...good, token: 7 },
      { ...good, ancestors: 'x' },
      { ...good, actor_proofs: [1] },
    ]
    for (const each of bad) expect(codeFor(each), JSON.stringify(each)).toBe('grant_invalid')
    expect(codeFor(JSON.stringify(good).replace('{', '{"token":"",'))).toBe('grant_invalid') // a key twice
    expect(codeFor(`${JSON.stringify(good)}${' '.repeat(300_000)}`)).toBe('grant_invalid')
    expect(codeFor({ ...good, ancestors: Array(20).fill('a.b') })).toBe('grant_invalid')
  })

  it('trusts no key but those that it was given', async () => {
    const chain = await chainOf([
      { key: undefined, isOffline: false },
      { key: undefined, isOffline: false },
    ])
    expect(() => verifyBundle(JSON.stringify(exported(chain)), () => undefined)).toThrow(/not among the known ones/)
    const impostor = createTokenSeal({ issuer: ISSUER, keys: { current: otherKey(), retired: [] } })
    expect(() => verifyBundle(JSON.stringify(exported(chain)), (kid) => impostor.keyOf(kid))).toThrow(GatewayError)
  })

  it('believes no gateway that a holder makes up above its own signature', async () => {
    const impostor = createTokenSeal({ issuer: ISSUER, keys: { current: otherKey(), retired: [] } })
    const fake = await root(ed25519, {}, impostor)
    const below = await delegate(fake, { isOffline: true })
    const bundle = bundleOf(grantsOf([fake, below]), impostor)
    expect(codeFor(bundle)).toBe('grant_invalid')
    expect(codeFor({ ...bundle, ancestors: bundle.ancestors.map(inputOf) })).toBe('grant_invalid')
  })
})
