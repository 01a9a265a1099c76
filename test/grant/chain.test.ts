/** Attestations as a chain: whole ones verify, and whatever is done to one is refused under the name of what was done. */
import { sign } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type ChainKeys, verifyAttestations } from '../../gateway/grant/chain/chain.ts'
import type { Grant } from '../../gateway/protocol/grant.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { chainOf, delegate, ed25519, es256, type Held, ISSUER, kinds, root, seal } from './chain.fixture.ts'

const keysOf = ([first]: readonly Held[]): ChainKeys => ({
  issuer: ISSUER,
  gateway: (kid) => seal.keyOf(kid),
  rootCnf: first?.grant.cnf,
})
const leafOf = (chain: readonly Held[]): Grant => (chain.at(-1) as Held).grant

/** The code with which a chain is refused whose attestations were changed; undefined when it verifies. */
function codeFor(chain: readonly Held[], change: (attestations: readonly string[]) => readonly string[]) {
  const grant = leafOf(chain)
  try {
    verifyAttestations({ ...grant, attestations: change(grant.attestations) }, keysOf(chain))
  } catch (cause) {
    if (cause instanceof GatewayError) return cause.code
    throw cause
  }
}

const runs = { numRuns: 60 }

describe('a chain of attestations', () => {
  it('verifies from 0 to 8 hops, whoever signed each of them', async () => {
    await fc.assert(
      fc.asyncProperty(kinds(8), async (hops) => {
        const chain = await chainOf(hops)
        expect(leafOf(chain).attestations).toHaveLength(hops.length - 1)
        expect(codeFor(chain, (same) => same)).toBeUndefined()
      }),
      runs,
    )
  })

  it('does not cover a grant that lives longer than its newest one', async () => {
    await fc.assert(
      fc.asyncProperty(kinds(4, 1), async (hops) => {
        const chain = await chainOf(hops)
        const grant = leafOf(chain)
        const longer = { ...grant, expiresAt: grant.expiresAt + 1 }
        expect(() => verifyAttestations(longer, keysOf(chain))).toThrow(/it ends before the grant does/)
      }),
      runs,
    )
  })

  it('is truncated with any one removed', async () => {
    await fc.assert(
      fc.asyncProperty(kinds(6, 1), fc.nat(), async (hops, at) => {
        const chain = await chainOf(hops)
        expect(codeFor(chain, (all) => all.toSpliced(at % all.length, 1))).toBe('lineage_truncated')
      }),
      runs,
    )
  })

  it('is reordered with any two exchanged', async () => {
    await fc.assert(
      fc.asyncProperty(kinds(6, 2), fc.nat(), fc.nat(), async (hops, a, b) => {
        const chain = await chainOf(hops)
        const count = hops.length - 1
        const [i, j] = [a % count, b % count]
        fc.pre(i !== j)
        const exchange = (all: readonly string[]) => all.with(i, all[j] as string).with(j, all[i] as string)
        expect(codeFor(chain, exchange)).toBe('lineage_reordered')
      }),
      runs,
    )
  })

  it('is duplicated with any one standing twice, added or in the place of another', async () => {
    await fc.assert(
      fc.asyncProperty(kinds(6, 2), fc.nat(), fc.nat(), async (hops, a, b) => {
        const chain = await chainOf(hops)
        const count = hops.length - 1
        const [from, to] = [a % count, b % (count + 1)]
        expect(codeFor(chain, (all) => all.toSpliced(to, 0, all[from] as string))).toBe('lineage_duplicated')
        if (from === to || to === count) return
        expect(codeFor(chain, (all) => all.with(to, all[from] as string))).toBe('lineage_duplicated')
      }),
      runs,
    )
  })

  it('is grafted with any one from the chain of another task, added or in the place of another', async () => {
    await fc.assert(
      fc.asyncProperty(kinds(5, 1), kinds(5, 1), fc.nat(), fc.nat(), async (hops, others, a, b) => {
        const [chain, other] = [await chainOf(hops), await chainOf(others)]
        const foreign = leafOf(other).attestations
        const graft = foreign[a % foreign.length] as string
        const at = b % (hops.length - 1)
        expect(codeFor(chain, (all) => all.with(at, graft))).toBe('lineage_grafted')
        expect(codeFor(chain, (all) => all.toSpliced(at, 0, graft))).toBe('lineage_grafted')
      }),
      runs,
    )
  })

  it('is grafted with the attestation of a sister grant of the same task', async () => {
    const first = await root(ed25519)
    const [mine, sister] = [await delegate(first, { key: es256 }), await delegate(first)]
    const other = [{ operations: ['github:pulls.*'] }]
    const wider = await delegate(first, { key: es256, authority: other })
    const chain = [first, mine]
    expect(codeFor(chain, () => sister.grant.attestations)).toBe('lineage_grafted') // for another key
    expect(codeFor(chain, () => wider.grant.attestations)).toBe('lineage_grafted') // for other details
  })

  it('is spliced with one that says the right things and was signed by another key', async () => {
    await fc.assert(
      fc.asyncProperty(kinds(5, 1), fc.nat(), async (hops, a) => {
        const chain = await chainOf(hops)
        const at = a % (hops.length - 1)
        const delegator = chain[at] as Held
        const thief = delegator.key === ed25519 ? es256 : ed25519
        const forged = await delegate({ ...delegator, key: thief }, { key: chain[at + 1]?.key })
        const code = codeFor(chain, (all) => all.with(at, forged.grant.attestations.at(-1) as string))
        expect(code).toBe('lineage_spliced')
      }),
      runs,
    )
  })

  it('is spliced when the gateway speaks for a holder that has a key', async () => {
    const first = await root(ed25519)
    const child = await delegate(first)
    const { cnf: _, ...keyless } = first.grant
    const claimed = await delegate({ ...first, grant: keyless, key: undefined })
    expect(codeFor([first, child], () => claimed.grant.attestations)).toBe('lineage_spliced')
    await expect(
      seal.attest({ parent: first.grant, child: child.grant, issuer: ISSUER, policy: 'p' }),
    ).rejects.toMatchObject({ code: 'delegation_refused', detail: expect.stringContaining('bound to a key') })
  })

  it('is invalid or not in its bytes with any one character changed', async () => {
    const characters = fc.constantFrom(...'ABCXYZabcxyz0189-_.=+/~ \n{"é')
    const chains = await Promise.all(
      [undefined, 0, 1].map((key) =>
        chainOf([
          { key, isOffline: false },
          { key: 2, isOffline: true },
          { key: 3, isOffline: true },
        ]),
      ),
    )
    fc.assert(
      fc.property(fc.constantFrom(...chains), fc.nat(), fc.nat(), characters, (chain, a, b, char) => {
        const all = leafOf(chain).attestations
        const [at, text] = [a % all.length, all[a % all.length] as string]
        const i = b % text.length
        fc.pre(text[i] !== char)
        const code = codeFor(chain, () => all.with(at, text.slice(0, i) + char + text.slice(i + 1)))
        expect(['lineage_invalid', 'lineage_reencoded']).toContain(code)
      }),
      { numRuns: 600 },
    )
  })
})

describe('an attestation in other bytes than those that were signed', () => {
  const part = (text: string, i: number) => Buffer.from(text.split('.')[i] ?? '', 'base64url').toString()
  const withPart = (text: string, i: number, value: string) => text.split('.').with(i, value).join('.')
  const b64 = (text: string) => Buffer.from(text).toString('base64url')
  const spellings: Record<string, (text: string) => string> = {
    'with padding': (text) => withPart(text, 0, `${text.split('.')[0]}${'='.repeat(2)}`),
    'with padding at its end': (text) => `${text}=`,
    'in standard base64': (text) => text.replaceAll('-', '+').replaceAll('_', '/').concat('=='),
    'with a line break': (text) => withPart(text, 1, `${text.split('.')[1]}\n`),
    'with other low bits in the last character': (text) =>
      text.slice(0, -1) + String.fromCharCode(text.charCodeAt(text.length - 1) + 1),
    'with spaces in the claims': (text) => withPart(text, 1, b64(JSON.stringify(JSON.parse(part(text, 1)), null, 1))),
    'with spaces in the header': (text) => withPart(text, 0, b64(part(text, 0).replaceAll(':', ' : '))),
    'with escapes in the claims': (text) => withPart(text, 1, b64(part(text, 1).replace('spiffe', '\\u0073piffe'))),
  }

  for (const [how, respell] of Object.entries(spellings)) {
    it(`is refused ${how}, at any hop, whoever signed`, async () => {
      await fc.assert(
        fc.asyncProperty(kinds(4, 1), fc.nat(), async (hops, a) => {
          const chain = await chainOf(hops)
          const at = a % (hops.length - 1)
          expect(codeFor(chain, (all) => all.with(at, respell(all[at] as string)))).toBe('lineage_reencoded')
        }),
        { numRuns: 20 },
      )
    })
  }

  it('is refused above the newest when its own signer signs it once more', async () => {
    const first = await root(es256)
    const second = await delegate(first, { key: ed25519 })
    const third = await delegate(second)
    const [oldest = ''] = third.grant.attestations
    const input = oldest.slice(0, oldest.lastIndexOf('.'))
    const again = sign('sha256', Buffer.from(input), { key: es256, dsaEncoding: 'ieee-p1363' }).toString('base64url')
    const code = codeFor([first, second, third], (all) => all.with(0, `${input}.${again}`))
    expect(code).toBe('lineage_reencoded')
  })
})
