/** Signed grants: what verifies is exactly what was signed, whatever an attacker writes into a token. */
import { createHmac, createPublicKey, generateKeyPairSync, sign } from 'node:crypto'
import fc from 'fast-check'
import { createLocalJWKSet, jwtVerify } from 'jose'
import { beforeAll, describe, expect, it } from 'vitest'
import { authorityHash, type ClaimedGrant, claimsOf, grantOf } from '../../gateway/grant/chain/claims.ts'
import { hashOf, inputOf } from '../../gateway/grant/chain/jws.ts'
import { createTokenSeal } from '../../gateway/grant/chain/token.ts'
import type { Grant } from '../../gateway/protocol/grant.ts'
import { chainOf, delegate, ed25519, gatewayKey, type Held, ISSUER, kinds, root, seal } from './chain.fixture.ts'

const newKey = () => generateKeyPairSync('ed25519').privateKey
const sealWith = (current = gatewayKey, issuer = ISSUER) => createTokenSeal({ issuer, keys: { current, retired: [] } })
const refused = { code: 'grant_invalid' }
let held: Held
let grant: Grant
let token: string

beforeAll(async () => {
  held = await root()
  ;({ grant, token } = held)
})

const b64 = (value: unknown) =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')
const partOf = (index: number) => Buffer.from(token.split('.')[index] ?? '', 'base64url').toString()
const header = () => JSON.parse(partOf(0))
const claims = () => JSON.parse(partOf(1))
/** Claims of every grant; the others are there when they have something to say. */
const required = (good: object) => Object.keys(good).filter((name) => !['auth_time', 'amr', 'acr'].includes(name))
/** A token that our own key really signed, over any header and payload text. */
const signed = (head: unknown, payload: unknown) => {
  const input = `${b64(head)}.${b64(payload)}`
  return `${input}.${sign(null, Buffer.from(input), gatewayKey).toString('base64url')}`
}

describe('a signed grant', () => {
  it('carries the claims of LG/1 and says what it is', () => {
    expect(header()).toEqual({ typ: 'at+jwt', alg: 'Ed25519', kid: seal.jwks().keys[0]?.kid })
    expect(claims()).toEqual({
      ver: 'lg/1',
      iss: ISSUER,
      aud: ISSUER,
      iat: grant.issuedAt,
      nbf: grant.issuedAt,
      exp: grant.issuedAt + 900,
      jti: grant.id,
      sub: 'ana',
      sub_iss: 'https://id.acme.test',
      client_id: grant.agent.id,
      tenant: 'acme',
      txn: grant.task.id,
      mission: { id: grant.task.id, issuer: ISSUER, authority_hash: authorityHash(grant.authority) },
      intent: { purpose: 'triage issue 42', hash: expect.stringMatching(/^[\w-]{43}$/) },
      auth_time: grant.issuedAt - 60,
      amr: ['pwd', 'otp'],
      acr: 'urn:acr:2',
      act: { iss: ISSUER, sub: grant.agent.id, sub_profile: 'ai_agent' },
      authorization_details: [{ type: 'keyless_access', operations: ['github:issues.read', 'github:pulls.*'] }],
      del_depth: 0,
      del_max_depth: 8,
      lin: grant.lineageHash,
    })
  })

  it('verifies for others with the published keys alone (RFC 9068)', async () => {
    const { payload } = await jwtVerify(token, publicKeys(), {
      typ: 'at+jwt',
      issuer: ISSUER,
      audience: ISSUER,
      algorithms: ['Ed25519'],
      currentDate: new Date(grant.issuedAt * 1000),
    })
    expect(payload.jti).toBe(grant.id)
  })

  it('nests who delegated to whom, and names its parent and its newest attestation', async () => {
    const first = await root(ed25519)
    const second = await delegate(first)
    const third = await delegate(second)
    const { payload } = await jwtVerify(third.token, publicKeys(), {
      currentDate: new Date(grant.issuedAt * 1000 + 5000),
    })
    const actor = (n: number) => ({ iss: ISSUER, sub: `spiffe://acme.test/agents/a${n}`, sub_profile: 'ai_agent' })
    expect(payload).toMatchObject({
      act: { ...actor(2), act: { ...actor(1), act: actor(0) } },
      client_id: actor(2).sub,
      txn: first.grant.task.id,
      mission: { authority_hash: authorityHash(first.grant.authority) },
      del_depth: 2,
      par: second.grant.id,
      par_hash: hashOf(inputOf(second.token)),
      lin: hashOf(third.grant.attestations[1] as string),
    })
  })

  it('comes back as the grant that was signed, at any depth', async () => {
    await fc.assert(
      fc.asyncProperty(kinds(8), async (hops) => {
        // What a holder signed offline is no token of ours.
        const isOurs = ({ grant, token }: Held) => grant.attestations.at(-1) !== token.split('~')[0]
        const leaf = (await chainOf(hops)).findLast(isOurs) as Held
        expect(await seal.verify(leaf.token)).toEqual(claimedFrom(leaf.grant))
      }),
      { numRuns: 40 },
    )
  })

  it('survives the way through claims for any grant', () => {
    const word = fc.string({ minLength: 1, unit: 'grapheme' }).filter((text) => text.isWellFormed())
    const authority = fc.constantFrom<Grant['authority']>(
      [
        {
          operations: ['github:*'],
          actions: ['GET'],
          locations: ['https://api.github.com'],
          paths: ['/repos/acme/**'],
        },
      ],
      [
        {
          operations: ['github:issues.read'],
          constraints: { max_calls: 50, rate: { n: 60, per: 60 }, single_use: true },
        },
        { operations: ['openai:*'], constraints: { params: { 'query.state': { one_of: ['open', null, 1] } } } },
      ],
    )
    const more = fc.record(
      {
        instance: word,
        step: word,
        trace: word,
        preset: fc.constantFrom('per-task' as const, 'sensitive' as const),
        cnf: fc.constantFrom({ jkt: 'a'.repeat(43) }, { 'x5t#S256': 'b'.repeat(43) }),
      },
      { requiredKeys: [] },
    )
    fc.assert(
      fc.property(word, authority, more, fc.boolean(), (purpose, authority, more, delegable) => {
        const any: Grant = { ...grant, ...more, task: { ...grant.task, purpose }, authority, delegable }
        expect(grantOf(JSON.parse(JSON.stringify(claimsOf(any, ISSUER))), ISSUER)).toEqual(claimedFrom(any))
      }),
    )
  })
})

const publicKeys = () => createLocalJWKSet(seal.jwks() as unknown as Parameters<typeof createLocalJWKSet>[0])

/** What claims can say of a grant. */
function claimedFrom(grant: Grant): ClaimedGrant {
  const { agent, lineage, ancestry, attestations, lineageHash, signedHash: _, ...rest } = grant
  const newest = attestations.at(-1)
  const parent = ancestry.at(-1)?.id
  return {
    ...rest,
    agent: { id: agent.id },
    actors: lineage.slice(1).map(({ id }) => id),
    lin: newest === undefined ? lineageHash : hashOf(newest),
    missionHash: authorityHash(ancestry[0]?.authority ?? grant.authority),
    ...(parent !== undefined && { parent }),
  }
}

describe('a token is refused', () => {
  it('with any one character changed', async () => {
    const alphabet = fc.constantFrom(...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ ')
    await fc.assert(
      fc.asyncProperty(fc.nat(token.length - 1), alphabet, async (at, char) => {
        fc.pre(token[at] !== char)
        await expect(seal.verify(token.slice(0, at) + char + token.slice(at + 1))).rejects.toMatchObject(refused)
      }),
      { numRuns: 500 },
    )
  })

  it('with every possible other last character, whose low bits a lax decoder drops', async () => {
    for (const char of 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_') {
      if (token.endsWith(char)) continue
      await expect(seal.verify(token.slice(0, -1) + char)).rejects.toMatchObject(refused)
    }
  })

  it('cut anywhere, padded or repeated', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(token.length - 1), async (length) => {
        await expect(seal.verify(token.slice(0, length))).rejects.toMatchObject(refused)
      }),
    )
    for (const changed of [
      `${token}=`,
      `${token}.`,
      `.${token}`,
      ` ${token}`,
      `${token}\n`,
      `${token}.${token}`,
      token.repeat(20),
    ]) {
      await expect(seal.verify(changed)).rejects.toMatchObject(refused)
    }
  })

  it('when it chooses its own algorithm', async () => {
    const publicPem = createPublicKey(gatewayKey).export({ type: 'spki', format: 'pem' }) as string
    const hmac = (head: object, key: string | Buffer) => {
      const input = `${b64(head)}.${b64(claims())}`
      return `${input}.${createHmac('sha256', key).update(input).digest('base64url')}`
    }
    const rawPublic = Buffer.from(seal.jwks().keys[0]?.x ?? '', 'base64url')
    const attempts = [
      `${b64({ ...header(), alg: 'none' })}.${b64(claims())}.`,
      `${b64({ ...header(), alg: 'none' })}.${b64(claims())}.${token.split('.')[2]}`,
      hmac({ ...header(), alg: 'HS256' }, publicPem),
      hmac({ ...header(), alg: 'HS256' }, rawPublic),
      hmac(header(), rawPublic),
      signed({ ...header(), alg: 'EdDSA' }, claims()),
      signed({ ...header(), alg: 'ed25519' }, claims()),
    ]
    for (const attempt of attempts) await expect(seal.verify(attempt), attempt).rejects.toMatchObject(refused)
  })

  it('when it is signed by another key, also under our key id, or brings its key along', async () => {
    const other = generateKeyPairSync('ed25519')
    const foreign = (head: object) => {
      const input = `${b64(head)}.${b64(claims())}`
      return `${input}.${sign(null, Buffer.from(input), other.privateKey).toString('base64url')}`
    }
    const jwk = other.publicKey.export({ format: 'jwk' })
    for (const head of [
      header(),
      { ...header(), jwk },
      { ...header(), kid: 'other' },
      { ...header(), kid: '../../etc/passwd' },
      { ...header(), jku: 'https://evil.test/jwks.json' },
      { ...header(), x5u: 'https://evil.test/cert.pem' },
    ]) {
      await expect(seal.verify(foreign(head))).rejects.toMatchObject(refused)
    }
  })

  it('when our key signed it with any header but the three members, each with its one value', async () => {
    const heads = [
      { ...header(), crit: ['exp'] },
      { ...header(), b64: false, crit: ['b64'] },
      { ...header(), jwk: {} },
      { ...header(), x5c: [] },
      { ...header(), cty: 'JWT' },
      { ...header(), typ: 'JWT' },
      { ...header(), typ: 'application/at+jwt' },
      { ...header(), typ: 'dpop+jwt' },
      { typ: header().typ, alg: header().alg },
      { ...header(), kid: 7 },
      'null',
      '[]',
      '"at+jwt"',
    ]
    for (const head of heads)
      await expect(seal.verify(signed(head, claims())), JSON.stringify(head)).rejects.toMatchObject(refused)
  })

  it('when a JSON key stands twice, in the header or in the claims', async () => {
    const doubledHeader = partOf(0).replace('{', '{"alg":"none",')
    const doubledClaims = partOf(1).replace('{', '{"tenant":"victim",')
    const nested = partOf(1).replace('"operations":', '"operations":["github:*"],"operations":')
    for (const [head, payload] of [
      [doubledHeader, partOf(1)],
      [partOf(0), doubledClaims],
      [partOf(0), nested],
    ] as const) {
      await expect(seal.verify(signed(head, payload))).rejects.toMatchObject({
        ...refused,
        detail: expect.stringContaining('everybody reads alike'),
      })
    }
  })

  it('when our key signed claims that are missing, unknown, of another shape or not consistent', async () => {
    const good = claims()
    const details = (entry: object) => ({ ...good, authorization_details: [entry] })
    const access = good.authorization_details[0]
    const bad = [
      ...required(good).map((name) => Object.fromEntries(Object.entries(good).filter(([key]) => key !== name))),
      ...Object.keys(good).map((name) => ({ ...good, [name]: null })),
      { ...good, cnf: { jkt: 'x' } },
      { ...good, ver: 'lg/2' },
      { ...good, iss: 'https://other.test' },
      { ...good, aud: [ISSUER] },
      { ...good, aud: 'https://api.github.com' },
      { ...good, exp: String(good.exp) },
      { ...good, exp: good.exp + 0.5 },
      { ...good, sub: 'mallory' },
      { ...good, client_id: 'spiffe://acme.test/agents/billing' },
      { ...good, act: { ...good.act, act: { iss: ISSUER, sub: 'x', sub_profile: 'ai_agent' } } },
      { ...good, act: { ...good.act, sub: 'x' } },
      { ...good, intent: { ...good.intent, purpose: 'something else' } },
      { ...good, del_depth: 1 },
      { ...good, del_depth: -1 },
      { ...good, del_max_depth: 9 },
      { ...good, del_max_depth: -1 },
      { ...good, par: good.jti },
      { ...good, par_hash: good.lin },
      { ...good, delegable: true },
      { ...good, preset: 'for-ever' },
      { ...good, step: '' },
      { ...good, amr: [] },
      { ...good, amr: 'pwd' },
      { ...good, auth_time: 1.5 },
      { ...good, cnf: {} },
      { ...good, cnf: { jkt: good.lin, jwk: {} } },
      { ...good, mission: { ...good.mission, id: 'task_other' } },
      { ...good, mission: { ...good.mission, authority_hash: good.lin } },
      { ...good, mission: { ...good.mission, expires_at: 1 } },
      { ...good, act: { ...good.act, inst: 7 } },
      { ...good, lin: good.lin.toLowerCase() },
      { ...good, authorization_details: [] },
      { ...good, authorization_details: 'github:*' },
      details({ ...access, type: 'egress_grant' }),
      details({ ...access, actions: ['get'] }),
      details({ ...access, constraints: { max_calls: -1 } }),
      details({ ...access, constraints: { unknown: 1 } }),
      details({ ...access, more: 1 }),
      details({ ...access, operations: [] }),
      details({ ...access, operations: 'github:*' }),
      details({ ...access, paths: [] }),
      details({ ...access, locations: [7] }),
      details({ type: 'keyless_access' }),
    ]
    for (const payload of bad)
      await expect(seal.verify(signed(header(), payload)), JSON.stringify(payload)).rejects.toMatchObject(refused)
    await expect(seal.verify(signed(header(), good))).resolves.toMatchObject({ id: grant.id }) // the rig itself is right
  })

  it('when it was issued by a gateway of another name, even one with our key', async () => {
    const elsewhere = sealWith(gatewayKey, 'https://other.test')
    await expect(seal.verify((await elsewhere.sign(grant)).token)).rejects.toMatchObject(refused)
  })

  it('without a word of itself in the answer', async () => {
    for (const bad of [
      `${token}x`,
      signed({ ...header(), kid: 'sekret-kid' }, claims()),
      signed(header(), { ...claims(), sub: 'sekret-sub' }),
    ]) {
      const detail = await seal.verify(bad).then(
        () => '',
        (cause: Error) => cause.message,
      )
      expect(detail).toMatch(/Open a new task|open a new task/)
      expect(detail).not.toMatch(/sekret|eyJ/)
    }
  })
})

describe('the signing key', () => {
  it('must be Ed25519', () => {
    const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
    const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
    expect(() => sealWith(rsa)).toThrow(/Ed25519/)
    expect(() => sealWith(ec)).toThrow(/Ed25519/)
  })

  it('has a key id that follows from the key (RFC 7638) and never shows its private half', async () => {
    const { calculateJwkThumbprint } = await import('jose')
    const [jwk] = seal.jwks().keys
    expect(jwk?.kid).toBe(await calculateJwkThumbprint(jwk as Parameters<typeof calculateJwkThumbprint>[0]))
    expect(Object.keys(jwk ?? {})).not.toContain('d')
    expect(sealWith(newKey()).jwks().keys[0]?.kid).not.toBe(jwk?.kid)
  })
})
