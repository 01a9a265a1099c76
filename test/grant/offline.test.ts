/** Delegations that a holder signs without asking: read as they were signed, within what the grant above allows, or refused. */
import { createPublicKey } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { hashOf, inputOf, publicJwk, readJws, signJws } from '../../gateway/grant/chain/jws.ts'
import { readOffline } from '../../gateway/grant/chain/offline.ts'
import { type OfflineDelegation, signAttestation, signOffline } from '../../gateway/grant/holder.ts'
import type { Grant } from '../../gateway/protocol/grant.ts'
import { agentOf, boundTo, delegate, ed25519, es256, type Held, ISSUER, NOW_S, root } from './chain.fixture.ts'

const authority = [{ operations: ['github:issues.read'] }]
const read = (token: string, ...known: readonly Held[]) =>
  readOffline(token, async (id) => known.find(({ grant }) => grant.id === id)?.grant, ISSUER)

const hop = (parent: Held, changes: Partial<OfflineDelegation> = {}) =>
  signOffline({
    parent: parent.token,
    key: parent.key as never,
    agent: agentOf(1).id,
    authority,
    issuedAt: NOW_S + 1,
    expiresAt: NOW_S + 600,
    ...changes,
  })

/** The same delegation with other claims, signed by the same key. */
const respoken = (token: string, key: Held['key'], change: object) => {
  const [own = '', ...above] = token.split('~')
  const { header, payload } = readJws(own, 20_000)
  const { alg: _, ...rest } = header
  const claims = Object.fromEntries(
    Object.entries({ ...payload, ...change }).filter(([, value]) => value !== undefined),
  )
  return [signJws(rest, claims, key as never), ...above].join('~')
}

describe('an offline delegation', () => {
  it('says what was delegated, oldest hop first, and to whom', async () => {
    const first = await root(ed25519)
    const one = hop(first, { cnf: boundTo(es256), maxDepth: 4, step: 's1' })
    const two = hop({ ...first, token: one, key: es256 }, { agent: agentOf(2).id, expiresAt: NOW_S + 500 })
    const { parent, hops } = await read(two, first)
    expect(parent).toBe(first.grant)
    expect(hops).toEqual([
      {
        id: readJws(one, 20_000).payload.jti,
        agent: agentOf(1).id,
        authority,
        issuedAt: NOW_S + 1,
        expiresAt: NOW_S + 600,
        maxDepth: 4,
        delegable: true,
        cnf: boundTo(es256),
        step: 's1',
        attestation: one,
        signedHash: hashOf(inputOf(one)),
      },
      expect.objectContaining({
        agent: agentOf(2).id,
        maxDepth: 4,
        delegable: false,
        step: 's1',
        expiresAt: NOW_S + 500,
      }),
    ])
  })

  it('can be presented without the hops that are known already', async () => {
    const first = await root(ed25519)
    const second = await delegate(first, { key: es256, isOffline: true })
    const two = hop(second, { agent: agentOf(2).id, expiresAt: NOW_S + 500 })
    expect((await read(two, first)).hops).toHaveLength(2)
    const alone = two.split('~')[0] as string
    expect((await read(alone, second)).hops).toHaveLength(1)
    await expect(read(alone, first)).rejects.toMatchObject({ code: 'lineage_truncated' })
    await expect(read(two)).rejects.toMatchObject({ code: 'lineage_truncated' })
  })

  it('goes on from a grant that the gateway delegated', async () => {
    const first = await root()
    const second = await delegate(first, { key: es256 })
    const { hops } = await read(hop(second, { agent: agentOf(2).id, expiresAt: NOW_S + 500 }), second)
    expect(hops).toHaveLength(1)
  })

  it('is refused as soon as the grant above allows less, whoever signed it', async () => {
    const cases: [Partial<Grant>, object, string][] = [
      [{}, { exp: NOW_S + 901 }, 'lineage_invalid'],
      [{}, { iat: NOW_S - 31 }, 'lineage_invalid'],
      [{}, { exp: NOW_S }, 'lineage_invalid'],
      [{ delegable: false }, {}, 'delegation_refused'],
      [{ maxDepth: 0 }, {}, 'delegation_refused'],
      [{ maxDepth: 3 }, { del_max_depth: 4 }, 'delegation_refused'],
      [{}, { del_max_depth: 0 }, 'lineage_invalid'],
      [{ step: 's1' }, { step: 's2' }, 'delegation_refused'],
      [{ trace: 'a' }, { trace: 'b' }, 'delegation_refused'],
      [{}, { txn: 'task_other' }, 'lineage_grafted'],
      [{}, { par: 'other' }, 'lineage_truncated'],
      [{}, { par_hash: hashOf('x') }, 'lineage_grafted'],
      [
        {},
        {
          target: { aud: 'https://other.test' },
          act: { iss: 'https://other.test', sub: 'x', sub_profile: 'ai_agent' },
        },
        'lineage_grafted',
      ],
      [{}, { del_depth: 2 }, 'lineage_grafted'],
      [{}, { prh: hashOf('x') }, 'lineage_truncated'],
      [{}, { iss: ISSUER }, 'lineage_invalid'],
      [{}, { ver: 'lg/2' }, 'lineage_invalid'],
      [{}, { jti: 'task_other' }, 'lineage_invalid'],
      [{}, { delegable: true }, 'lineage_invalid'],
      [{}, { more: 1 }, 'lineage_invalid'],
      [{}, { authorization_details: [] }, 'lineage_invalid'],
      [{}, { authorization_details: undefined }, 'lineage_invalid'],
      [{}, { cnf: { jwk: {} } }, 'lineage_invalid'],
      [{}, { att: 'gateway-on-behalf' }, 'lineage_invalid'],
    ]
    for (const key of [ed25519, es256]) {
      for (const [above, change, code] of cases) {
        const first = await root(key, above)
        const token = respoken(hop(first), key, change)
        await expect(read(token, first), JSON.stringify([above, change])).rejects.toMatchObject({ code })
      }
    }
  })

  it('is refused from anyone but the holder of the key that the grant above is bound to', async () => {
    const [bound, keyless] = [await root(ed25519), await root()]
    await expect(read(hop({ ...bound, key: es256 }), bound)).rejects.toMatchObject({ code: 'lineage_spliced' })
    await expect(read(hop({ ...keyless, key: es256 }), keyless)).rejects.toMatchObject({ code: 'lineage_spliced' })
    const stolen = { ...bound, grant: { ...bound.grant, cnf: { 'x5t#S256': 'a'.repeat(43) } } }
    await expect(read(hop(bound), stolen)).rejects.toMatchObject({ code: 'lineage_spliced' })
  })

  it('cannot be delegated on when it is bound to no key', async () => {
    const first = await root(ed25519)
    const one = hop(first)
    const two = hop({ ...first, token: one, key: es256 }, { agent: agentOf(2).id, expiresAt: NOW_S + 500 })
    await expect(read(two, first)).rejects.toMatchObject({ code: 'lineage_spliced' })
  })

  it('is not read from an attestation, nor from a grant', async () => {
    const first = await root(ed25519)
    const said = {
      parent: first.token,
      key: ed25519,
      agent: agentOf(1).id,
      authority,
      issuedAt: NOW_S,
      expiresAt: NOW_S + 9,
    }
    await expect(read(signAttestation(said), first)).rejects.toMatchObject({ code: 'lineage_truncated' })
    await expect(read(`${first.token}~${first.token}`, first)).rejects.toMatchObject({ code: 'lineage_duplicated' })
    await expect(read(first.token, first)).rejects.toMatchObject({ code: 'lineage_invalid' })
  })

  it('brings no key but its signer’s public one, and chooses nothing else', async () => {
    const first = await root(es256)
    const good = hop(first)
    const { payload } = readJws(good, 20_000)
    const jwk = publicJwk(createPublicKey(es256))
    const headers = [
      { typ: 'keyless-delegation+jwt', jwk: { ...jwk, d: 'AA' } },
      { typ: 'keyless-delegation+jwt', jwk: { ...jwk, alg: 'ES256' } },
      { typ: 'keyless-delegation+jwt', jwk, crit: ['exp'] },
      { typ: 'keyless-delegation+jwt', jwk, jku: 'https://evil.test' },
      { typ: 'keyless-delegation+jwt', kid: 'x' },
      { typ: 'at+jwt', jwk },
      { typ: 'keyless-delegation+jwt', jwk: { kty: 'oct', k: 'AA' } },
      { typ: 'keyless-delegation+jwt', jwk: { kty: 'RSA', n: 'AA', e: 'AQAB' } },
      { typ: 'keyless-delegation+jwt', jwk: { ...jwk, x: jwk.y } },
    ]
    for (const header of headers)
      await expect(read(signJws(header, payload, es256), first), JSON.stringify(header)).rejects.toMatchObject({
        code: 'lineage_invalid',
      })
    for (const alg of ['none', 'HS256', 'EdDSA', 'Ed25519', 'ES384']) {
      const head = Buffer.from(JSON.stringify({ typ: 'keyless-delegation+jwt', jwk, alg })).toString('base64url')
      const [, body, signature] = good.split('.')
      for (const end of [signature, 'AA'])
        await expect(read(`${head}.${body}.${end}`, first), alg).rejects.toMatchObject({
          code: expect.stringMatching(/lineage_(?:invalid|reencoded)/),
        })
    }
  })

  it('has at most 8 hops and 16 KiB', async () => {
    const first = await root(ed25519)
    const one = hop(first)
    await expect(read(Array(12).fill('a.b.c').join('~'), first)).rejects.toMatchObject({
      code: expect.stringMatching(/lineage_/),
    })
    await expect(read(`${one}~${'A'.repeat(16_400)}`, first)).rejects.toMatchObject({ code: 'grant_invalid' })
    for (const bad of ['', '~', `~${one}`, `${one}~`, `${one}~~${one}`, `${one}~x`])
      await expect(read(bad, first)).rejects.toMatchObject({ code: expect.stringMatching(/lineage_|grant_invalid/) })
  })

  it('is refused with its hops in another order, twice or of another chain', async () => {
    const [first, other] = [await root(ed25519), await root(ed25519)]
    const chainOf = (base: Held) => {
      const one = hop(base, { cnf: boundTo(es256) })
      return hop({ ...base, token: one, key: es256 }, { agent: agentOf(2).id, expiresAt: NOW_S + 500 }).split('~') as [
        string,
        string,
      ]
    }
    const [two, one] = chainOf(first)
    const [foreignTwo, foreignOne] = chainOf(other)
    const cases: [string, string][] = [
      [`${one}~${two}`, 'lineage_reordered'],
      [`${two}~${two}~${one}`, 'lineage_duplicated'],
      [`${two}~${one}~${one}`, 'lineage_duplicated'],
      [`${two}~${foreignOne}`, 'lineage_grafted'],
      [`${foreignTwo}~${one}`, 'lineage_grafted'],
    ]
    for (const [token, code] of cases) await expect(read(token, first, other)).rejects.toMatchObject({ code })
  })

  it('is refused with any one character changed', async () => {
    const first = await root(ed25519)
    const one = hop(first, { cnf: boundTo(es256) })
    const two = hop({ ...first, token: one, key: es256 }, { agent: agentOf(2).id, expiresAt: NOW_S + 500 })
    await fc.assert(
      fc.asyncProperty(fc.nat(two.length - 1), fc.constantFrom(...'ABCabc019-_.=+/~ '), async (at, char) => {
        fc.pre(two[at] !== char)
        await expect(read(two.slice(0, at) + char + two.slice(at + 1), first)).rejects.toMatchObject({
          name: 'GatewayError',
        })
      }),
      { numRuns: 300 },
    )
  })
})
