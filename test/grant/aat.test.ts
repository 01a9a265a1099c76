/** Import of AAT chains: invariants I1 to I6 (standards.md B), and what a grant cannot say. */
import { createPublicKey, type KeyObject } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type AatTrust, readAatChain } from '../../gateway/grant/chain/aat.ts'
import { hashOf, inputOf, publicJwk, signJws, thumbprintOf } from '../../gateway/grant/chain/jws.ts'
import { ed25519, es256, gatewayKey, NOW_S } from './chain.fixture.ts'

const ISSUER = 'https://aat.acme.test'
const AUDIENCE = 'http://127.0.0.1:8081'
/** Root's signer, then the holder of each token. */
const keys = [gatewayKey, ed25519, es256, gatewayKey]
const publicOf = (key: KeyObject) => createPublicKey(key)
const nameOf = (key: KeyObject) => `urn:ietf:params:oauth:jwk-thumbprint:sha-256:${thumbprintOf(publicOf(key))}`
const details = (tools: object) => [{ type: 'attenuating_agent_token', tools }]
const READ = { 'github:issues.read': {} }
const BOTH = { ...READ, 'github:issues.write': {} }

type Change = (claims: Record<string, unknown>, header: Record<string, unknown>) => void

/** A chain of `count` tokens; `change` may spoil token `at` before it is signed. */
function chainOf(count: number, at = -1, change: Change = () => {}): string[] {
  const chain: string[] = []
  for (let i = 0; i < count; i++) {
    const above = chain.at(-1)
    const signer = keys[i] as KeyObject
    const claims: Record<string, unknown> = {
      iss: above === undefined ? ISSUER : nameOf(signer),
      ...(above === undefined && { sub: 'ana' }),
      aud: AUDIENCE,
      jti: `aat-${i}`,
      iat: NOW_S + i,
      exp: NOW_S + 900 - i,
      aat_type: 'delegation',
      del_depth: i,
      del_max_depth: 3,
      ...(above !== undefined && { par_hash: hashOf(inputOf(above)) }),
      cnf: { jwk: publicJwk(publicOf(keys[i + 1] ?? ed25519)) },
      authorization_details: details(i === 0 ? BOTH : READ),
    }
    const header: Record<string, unknown> = { typ: 'aat+jwt', kid: `k${i}` }
    if (i === at) change(claims, header)
    chain.push(signJws(header, claims, signer))
  }
  return chain
}

const trust = (changes: Partial<AatTrust> = {}): AatTrust => ({
  rootKey: ({ issuer, kid }) => (issuer === ISSUER && kid === 'k0' ? publicOf(gatewayKey) : undefined),
  audience: AUDIENCE,
  proved: undefined,
  nowS: NOW_S + 10,
  ...changes,
})
const holderOf = (count: number) => thumbprintOf(publicOf(keys[count] ?? ed25519))
const read = (chain: unknown, count: number, changes: Partial<AatTrust> = {}) =>
  readAatChain(
    typeof chain === 'string' ? chain : JSON.stringify(chain),
    trust({ proved: holderOf(count), ...changes }),
  )
const refusal = (what: RegExp) => ({ code: 'subject_invalid', detail: expect.stringMatching(what) })

describe('an AAT chain', () => {
  it('says who, for whom, what, until when and how much further', async () => {
    expect(await read(chainOf(3), 3)).toEqual({
      issuer: ISSUER,
      subject: 'ana',
      ids: ['aat-0', 'aat-1', 'aat-2'],
      authority: [{ operations: ['github:issues.read'] }],
      expiresAt: NOW_S + 898,
      holder: holderOf(3),
      depthLeft: 1,
    })
    expect(await read(chainOf(1), 1)).toMatchObject({ authority: [{ operations: Object.keys(BOTH) }], depthLeft: 3 })
  })

  it('may name its algorithm as older drafts do, and describe its keys', async () => {
    const described = chainOf(2, 0, (claims) => {
      const { jwk } = claims.cnf as { jwk: object }
      claims.cnf = { jwk: { ...jwk, kid: 'mine', use: 'sig', alg: 'EdDSA' } }
    })
    await expect(read(described, 2)).resolves.toBeDefined()
  })

  const spoilt: readonly (readonly [string, number, Change, RegExp])[] = [
    ['another type', 0, (_, header) => Object.assign(header, { typ: 'at+jwt' }), /its type is not/],
    ['crit', 1, (_, header) => Object.assign(header, { crit: ['exp'] }), /claim header/],
    ['an embedded key', 1, (_, header) => Object.assign(header, { jwk: publicJwk(publicOf(ed25519)) }), /claim header/],
    ['a root nobody trusts', 0, (c) => Object.assign(c, { iss: 'https://evil.test' }), /nobody here trusts/],
    ['a key id nobody trusts', 0, (_, header) => Object.assign(header, { kid: 'k9' }), /nobody here trusts/],
    ['another audience', 0, (c) => Object.assign(c, { aud: 'https://other.test' }), /claim aud/],
    ['a derived token by another name', 1, (c) => Object.assign(c, { iss: ISSUER }), /claim iss/],
    ['a depth that does not count', 1, (c) => Object.assign(c, { del_depth: 2 }), /I2/],
    ['a root that is deep', 0, (c) => Object.assign(c, { del_depth: 1 }), /I2/],
    ['a maximum that rises', 1, (c) => Object.assign(c, { del_max_depth: 4 }), /I2/],
    ['a maximum below its own depth', 2, (c) => Object.assign(c, { del_max_depth: 1 }), /I2/],
    ['no maximum', 0, (c) => Object.assign(c, { del_max_depth: undefined }), /I2/],
    ['a later end', 1, (c) => Object.assign(c, { exp: NOW_S + 901 }), /outlive.*I3/],
    ['an earlier beginning', 1, (c) => Object.assign(c, { iat: NOW_S - 1 }), /older.*I3/],
    ['a beginning in the future', 0, (c) => Object.assign(c, { iat: NOW_S + 41 }), /future.*I3/],
    ['an end in the past', 0, (c) => Object.assign(c, { exp: NOW_S + 10 }), /expired.*I3/],
    [
      'a tool more',
      1,
      (c) => Object.assign(c, { authorization_details: details({ ...READ, 'github:repos.delete': {} }) }),
      /I4/,
    ],
    ['no tools', 0, (c) => Object.assign(c, { authorization_details: details({}) }), /authorization_details/],
    [
      'tools by a pattern',
      0,
      (c) => Object.assign(c, { authorization_details: details({ 'github:*': {} }) }),
      /not the name of an operation/,
    ],
    [
      'a tool of something else',
      0,
      (c) => Object.assign(c, { authorization_details: details({ read_file: {} }) }),
      /not the name of an operation/,
    ],
    [
      'argument constraints, which close a tool to other arguments',
      1,
      (c) =>
        Object.assign(c, {
          authorization_details: details({ 'github:issues.read': { state: { constraint_type: 'wildcard' } } }),
        }),
      /argument constraints/,
    ],
    [
      'the other draft',
      0,
      (c) => Object.assign(c, { authorization_details: [{ type: 'agent_delegation', tools: READ }] }),
      /are not of the type/,
    ],
    [
      'a member that may restrict',
      0,
      (c) => Object.assign(c, { authorization_details: [{ ...details(READ)[0], max_tool_calls: 2 }] }),
      /authorization_details/,
    ],
    [
      'two entries',
      0,
      (c) => Object.assign(c, { authorization_details: [...details(READ), ...details(READ)] }),
      /authorization_details/,
    ],
    ['the hash of another parent', 1, (c) => Object.assign(c, { par_hash: hashOf('x') }), /I5/],
    ['a parent above the root', 0, (c) => Object.assign(c, { par_hash: hashOf('x') }), /par_hash/],
    ['no parent', 1, (c) => Object.assign(c, { par_hash: undefined }), /par_hash/],
    ['a parent that is for execution', 0, (c) => Object.assign(c, { aat_type: 'execution' }), /for execution/],
    ['the same id twice', 1, (c) => Object.assign(c, { jti: 'aat-0' }), /has the jti of one above/],
    ['no key', 1, (c) => Object.assign(c, { cnf: { jkt: 'x' } }), /claim cnf/],
    ['a private key', 0, (c) => Object.assign(c, { cnf: { jwk: ed25519.export({ format: 'jwk' }) } }), /private/],
  ]
  for (const [what, at, change, why] of spoilt) {
    it(`is refused with ${what}`, async () => {
      await expect(read(chainOf(3, at, change), 3)).rejects.toMatchObject(refusal(why))
    })
  }

  it('reads the maximum as a depth, not as a number of tokens', async () => {
    await expect(read(chainWithMax(2), 3)).resolves.toMatchObject({ depthLeft: 0 })
    await expect(read(chainWithMax(1), 3)).rejects.toMatchObject(refusal(/I2/))
  })

  it('is refused when the key of its newest token was not proved (I6)', async () => {
    for (const proved of [undefined, holderOf(1), 'x'])
      await expect(read(chainOf(3), 3, { proved })).rejects.toMatchObject(refusal(/I6/))
  })

  it('is refused with a token left out, exchanged, repeated or of another chain', async () => {
    const chain = chainOf(3)
    const [a, b, c] = chain as [string, string, string]
    const other = chainOf(3, 1, (claims) => Object.assign(claims, { jti: 'other' }))
    for (const spoiled of [
      [b, c],
      [a, c],
      [b, a, c],
      [a, c, b],
      [a, b, b, c],
      [a, other[1], c],
      [a, b, other[2]],
    ])
      await expect(read(spoiled, 3)).rejects.toMatchObject({ code: 'subject_invalid' })
  })

  it('is refused with any one character changed', async () => {
    const chain = chainOf(3)
    const characters = fc.constantFrom(...'ABCabc019-_.=+/')
    await fc.assert(
      fc.asyncProperty(fc.nat(2), fc.nat(), characters, async (at, n, char) => {
        const token = chain[at] as string
        const i = n % token.length
        fc.pre(token[i] !== char)
        const changed = chain.with(at, token.slice(0, i) + char + token.slice(i + 1))
        await expect(read(changed, 3)).rejects.toMatchObject({ code: 'subject_invalid' })
      }),
      { numRuns: 300 },
    )
  })

  it('is refused when it is no array of tokens, or longer than it may be', async () => {
    const [one = ''] = chainOf(1)
    const many = Array.from({ length: 10 }, () => one)
    for (const bad of [
      '',
      'x',
      '{}',
      '[]',
      '[1]',
      `"${one}"`,
      `["${one}"`,
      JSON.stringify(many),
      JSON.stringify([`${one}${'A'.repeat(70_000)}`]),
      `["${'A'.repeat(300_000)}"]`,
    ])
      await expect(read(bad, 1)).rejects.toMatchObject({ code: 'subject_invalid' })
  })

  it('says what was wrong without a word of the tokens', async () => {
    const detail = await read([...chainOf(2), 'sekret.eyJ.x'], 2).catch((cause: Error) => cause.message)
    expect(detail).toMatch(/^An AAT chain was presented, but token 2 is refused/)
    expect(detail).not.toMatch(/sekret|eyJ/)
  })
})

/** Every token of it with this `del_max_depth`. */
function chainWithMax(max: number): string[] {
  const chain: string[] = []
  for (let i = 0; i < 3; i++) {
    const above = chain.at(-1)
    const redo = chainOf(i + 1, i, (claims) =>
      Object.assign(claims, { del_max_depth: max, ...(above && { par_hash: hashOf(inputOf(above)) }) }),
    )
    chain.push(redo.at(-1) as string)
  }
  return chain
}
